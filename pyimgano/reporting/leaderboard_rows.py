"""The finished and failed cells of a leaderboard, and one flat row per engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_WITH_INTERVAL: Final = (
    *("image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate"),
)
_OF_PIXELS: Final = ("pixel_auroc", "aupro_0.3", "aupro_0.05", "seg_f1")
_NAMES: Final = (
    *("model", "dataset", "category", "seed", "precision", "engine", "dataset_name"),
)
# Where a column is not said by the engine, its category says it.
_OF_CATEGORY: Final = (
    *("promised_false_alarm_rate", "decode_ms.p50", "fit_seconds", "threshold"),
    "test_fingerprint",
)

COLUMNS: Final = (
    *_NAMES,
    *(f"{key}{end}" for key in _WITH_INTERVAL for end in ("", "_ci95")),
    "promised_false_alarm_rate",
    *(f"{key}{end}" for key in _OF_PIXELS for end in ("", "_ci95")),
    *("label_flips", "min_threshold_distance"),
    *("max_abs_score_diff", "p99_abs_score_diff", "score_spearman"),
    *("max_abs_map_diff", "p99_abs_map_diff", "map_spearman"),
    *("latency_ms.p50", "latency_ms.p95", "latency_ms.p99"),
    *("cpu_ms.p50", "decode_ms.p50", "start.open_ms", "peak_rss_mb", "file_mb"),
    *("fit_seconds", "threshold"),
    *("oracle_image_f1", "oracle_recall_at_promise", "oracle_seg_f1"),
    *("test_fingerprint", "reasons"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A finished benchmark of one model on one category."""

    model: str
    dataset: str
    dataset_name: str
    category: str
    seed: int
    folder: Path  # the benchmark's output folder
    report: dict[str, Any]  # its report.json

    @property
    def facts(self) -> dict[str, Any]:
        """What the report says of this category."""
        facts: dict[str, Any] = self.report["categories"][self.category]
        return facts

    @property
    def category_folder(self) -> Path:
        """Where the rows and pictures of this category lie."""
        return self.folder / "categories" / str(self.facts["folder"])

    @property
    def n_pictures(self) -> int:
        """Test pictures, each of which got a label from every engine."""
        counts = self.facts["counts"]
        return int(counts["test_normals"]) + int(counts["test_anomalies"])

    def per_image(self, engine: str) -> list[dict[str, Any]]:
        """Give the scored pictures of an engine; none where no rows were kept."""
        path = self.category_folder / "per_image.jsonl"
        if not path.is_file():
            return []
        rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return [row for row in rows if row.get("ok") and row.get("engine") == engine]


@dataclass(frozen=True, slots=True)
class FailedCell:
    """A cell that ended with an error."""

    model: str
    dataset: str
    dataset_name: str
    category: str
    seed: int
    kind: str  # "DatasetError"
    error: str


def leaderboard_rows(cells: Iterable[Cell]) -> list[dict[str, Any]]:
    """Give one row per cell and engine, with every column of `COLUMNS`."""
    return [
        engine_row(cell, engine) for cell in cells for engine in cell.facts["engines"]
    ]


def engine_row(cell: Cell, engine: str) -> dict[str, Any]:
    """Give one row; a number that was not measured is None."""
    facts = cell.facts
    measured = facts["engines"][engine]
    plain, _, suffix = engine.partition("-")  # "onnx-int8"
    row: dict[str, Any] = {
        "model": cell.model,
        "dataset": cell.dataset,
        "category": cell.category,
        "seed": cell.seed,
        "precision": measured.get("precision") or suffix or "fp32",
        "engine": plain,
        "dataset_name": cell.dataset_name,
    }
    for column in COLUMNS[len(_NAMES) :]:
        row[column] = _found(facts if column in _OF_CATEGORY else measured, column)
    return row


def _found(report: dict[str, Any], column: str) -> Any:
    """Give the value under a key; dots lead into objects, but not in "aupro_0.3"."""
    if column in report or "." not in column:
        return report.get(column)
    outer, inner = column.rsplit(".", 1)
    return (report.get(outer) or {}).get(inner)


def engine_label(row: dict[str, Any]) -> str:
    """Give engine and precision in one word where fp32 goes without saying."""
    if row["precision"] == "fp32":
        return str(row["engine"])
    return f"{row['engine']} {row['precision']}"


def shown_engine(cell: Cell) -> str:
    """Give the engine that charts and pictures show: the one that is shipped."""
    engines: Sequence[str] = list(cell.facts["engines"])
    return "onnx" if "onnx" in engines else engines[0]
