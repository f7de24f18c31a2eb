"""The parts of a leaderboard's page that speak of one category: charts and pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .case_gallery import CASES_FILE
from .chart_parts import Style
from .charts import Scored, histogram, pr_chart, roc_chart, scored_of
from .leaderboard_charts import Point, speed_chart
from .leaderboard_rows import Cell, engine_label, engine_row, shown_engine
from .leaderboard_words import share_text
from .overview_facts import score_text
from .picture_drawing import jpeg_uri

PICTURES_PER_PAGE: Final = 400  # cases; some 25 kB each with their heat map
PICTURES_PER_CELL: Final = 8
ROBUSTNESS_COLUMNS: Final = (
    ("AUROC", "image_auroc"),
    ("Recall", "recall"),
    ("False alarms", "false_alarm_rate"),
)


def page_sections(
    cells: Sequence[Cell], looks: Mapping[str, Style]
) -> list[dict[str, Any]]:
    """Give what the template shows of each category, in the cells' order."""
    places: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        places.setdefault((cell.dataset_name, cell.category), []).append(cell)
    per_cell = min(PICTURES_PER_CELL, max(2, PICTURES_PER_PAGE // max(len(cells), 1)))
    return [
        _section(place, members, looks, f"s{number}", per_cell)
        for number, (place, members) in enumerate(places.items(), start=1)
    ]


def _section(
    place: tuple[str, str],
    cells: Sequence[Cell],
    looks: Mapping[str, Style],
    anchor: str,
    per_cell: int,
) -> dict[str, Any]:
    several = len({cell.seed for cell in cells}) > 1
    labels = [
        f"{cell.model}, seed {cell.seed}" if several else cell.model for cell in cells
    ]
    scored = [
        found
        for cell, label in zip(cells, labels, strict=True)
        if (found := _scored(cell, label, looks[cell.model])) is not None
    ]
    galleries = [
        {"label": label, "groups": _gallery(cell, per_cell)}
        for cell, label in zip(cells, labels, strict=True)
    ]
    robust = [
        {"label": label, "table": robustness_table(cell.facts.get("robustness"))}
        for cell, label in zip(cells, labels, strict=True)
    ]
    counts = cells[0].facts["counts"]
    return {
        "place": place,
        "anchor": anchor,
        "counts": counts,
        "engine": ", ".join(sorted({shown_engine(cell) for cell in cells})),
        "keys": [(model, looks[model]) for model in sorted({c.model for c in cells})],
        "histograms": [(found.label, histogram(found)) for found in scored],
        "roc": roc_chart(scored),
        "pr": pr_chart(scored),
        "speed": speed_chart(_points(cells, labels, looks)),
        "galleries": [gallery for gallery in galleries if gallery["groups"]],
        "robustness": [found for found in robust if found["table"]],
        "notes": _notes(cells, labels),
    }


def _scored(cell: Cell, label: str, style: Style) -> Scored | None:
    rows = cell.per_image(shown_engine(cell))
    threshold = float(cell.facts["threshold"])
    return scored_of(rows, label=label, style=style, threshold=threshold)


def _points(
    cells: Sequence[Cell], labels: Sequence[str], looks: Mapping[str, Style]
) -> list[Point]:
    points = []
    for cell, label in zip(cells, labels, strict=True):
        for engine in cell.facts["engines"]:
            row = engine_row(cell, engine)
            ms, auroc = row["latency_ms.p50"], row["image_auroc"]
            if ms is None or auroc is None:
                continue
            interval = row["image_auroc_ci95"]
            points.append(
                Point(
                    f"{label}, {engine_label(row)}",
                    looks[cell.model],
                    engine == "torch",
                    *(ms, auroc),
                    (interval[0], interval[1]) if interval else None,
                )
            )
    return points


def _notes(cells: Sequence[Cell], labels: Sequence[str]) -> list[str]:
    """Give what was not measured and why, and the warnings; each once."""
    notes: dict[str, None] = {}
    for cell, label in zip(cells, labels, strict=True):
        reasons: dict[str, str] = {}
        for measured in cell.facts["engines"].values():
            reasons |= measured.get("reasons") or {}
        by_reason: dict[str, list[str]] = {}
        for key, reason in reasons.items():
            by_reason.setdefault(reason, []).append(key)
        for reason, keys in by_reason.items():
            notes[f"{label}: not measured: {', '.join(keys)}: {reason}"] = None
        for engine, reason in (cell.facts.get("engines_missing") or {}).items():
            notes[f"{label}: {engine} was not run: {reason}"] = None
        for warning in cell.facts.get("warnings") or []:
            notes[f"{label}: {warning}"] = None
    return list(notes)


def _gallery(cell: Cell, at_most: int) -> list[dict[str, Any]]:
    """Give the groups of gallery.json with their pictures, so many in all."""
    folder = cell.category_folder / "gallery"
    if not (folder / CASES_FILE).is_file():
        return []
    groups = json.loads((folder / CASES_FILE).read_text(encoding="utf-8"))["groups"]
    shown = []
    for group in groups:
        cases = group["cases"][:at_most]
        at_most -= len(cases)
        if cases:
            drawn = [_case(case, folder) for case in cases]
            shown.append({**group, "cases": drawn})
    return shown


def _case(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    photo, heat = (case["files"].get(key) for key in ("photo", "heat"))
    return {
        **case,
        "photo": jpeg_uri((folder / Path(photo).name).read_bytes()),
        "heat": None if heat is None else _uri(folder / Path(heat).name),
        "score_text": score_text(case["score"]),
        "threshold_text": score_text(case["threshold"]),
        "wrong": case["verdict"] in ("missed", "false alarm"),
    }


def _uri(path: Path) -> str:
    return jpeg_uri(path.read_bytes())


def robustness_table(report: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Give columns and rows: the pictures as they are, then each change of them."""
    if not report:
        return None
    rows = [("none", report["clean"])]
    for change in report["corruptions"]:
        name = str(change["name"]).replace("_", " ")
        rows.append((f"{name}, {change['strength']:g} {change['unit']}", change))
    return {
        "columns": [title for title, _ in ROBUSTNESS_COLUMNS],
        "rows": [
            (name, [share_text(found.get(key)) for _, key in ROBUSTNESS_COLUMNS])
            for name, found in rows
        ],
    }
