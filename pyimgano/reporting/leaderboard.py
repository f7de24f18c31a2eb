"""A leaderboard's files: leaderboard.csv, .md and .html, and comparisons.csv.

In the CSV files numbers have all their digits and what was not measured is empty. Text
that begins with = + - @ gets an apostrophe in front: a spreadsheet would run it as a
formula, and names of categories come from users.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.atomic import write_text

from .leaderboard_page import page_html
from .leaderboard_rows import COLUMNS, Cell, FailedCell, engine_label, leaderboard_rows
from .leaderboard_words import (
    NOT_MEASURED,
    interval_text,
    milliseconds,
    share_text,
    small,
)

__all__ = [
    "COLUMNS",
    "COMPARISON_COLUMNS",
    "Cell",
    "FailedCell",
    "leaderboard_rows",
    "write_leaderboard",
]

COMPARISON_COLUMNS: Final = (
    *("dataset", "dataset_name", "category", "seed", "precision", "engine"),
    *("model_a", "model_b", "image_auroc_difference", "low", "high"),
    *("distinguishable", "found_by_a_only", "found_by_b_only", "found_p_value"),
)
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN_COLUMNS: Final = (
    *("data set", "category", "model", "engine", "seed", "AUROC [95 %]", "AP"),
    *("recall", "false alarms: promised -> achieved", "pixel AUROC", "AUPRO 0.3"),
    *("SegF1", "label flips (closest score)", "ms p50", "MB", "fit s"),
)
_N_TEXT_COLUMNS: Final = 4


def write_leaderboard(
    folder: Path,
    cells: Sequence[Cell],
    failed: Sequence[FailedCell],
    *,
    title: str,
    command: str | None,
    comparisons: Sequence[Mapping[str, Any]] = (),
    planned: int | None = None,
) -> None:
    """Write the files into an existing folder.

    Args:
        cells: finished benchmarks; their folders are read for charts and pictures.
        failed: named in the page and the Markdown; no row and no mean has them.
        command: what was typed, for whoever wants to repeat it.
        comparisons: paired differences, with the keys of `COMPARISON_COLUMNS`.
        planned: how many cells there are to be; None: those given.
    """
    rows = leaderboard_rows(cells)
    write_text(folder / "leaderboard.csv", _csv(COLUMNS, rows))
    if comparisons:
        write_text(folder / "comparisons.csv", _csv(COMPARISON_COLUMNS, comparisons))
    write_text(folder / "leaderboard.md", _markdown(title, rows, failed))
    page = page_html(
        *(cells, failed),
        title=title,
        command=command,
        comparisons=comparisons,
        planned=planned,
    )
    write_text(folder / "leaderboard.html", page)


# --- CSV ----------------------------------------------------------------------------


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row.get(column)) for column in columns])
    return stream.getvalue()


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA_STARTS) else value
    return json.dumps(value, ensure_ascii=False)


# --- Markdown -----------------------------------------------------------------------


def _markdown(
    title: str, rows: Sequence[dict[str, Any]], failed: Sequence[FailedCell]
) -> str:
    lines = [f"# {_plain(title)}", ""]
    if rows:
        rule = [
            "---" if place < _N_TEXT_COLUMNS else "---:"
            for place in range(len(_MARKDOWN_COLUMNS))
        ]
        lines += [_table_line(_MARKDOWN_COLUMNS), _table_line(rule)]
        lines += [_table_line(_markdown_cells(row)) for row in rows]
        lines += [
            "",
            "Brackets are 95 % intervals. A dash: not measured, leaderboard.csv says "
            "why under `reasons`. There, text that begins with = + - @ has an "
            "apostrophe in front, so that spreadsheets take it for text.",
        ]
    else:
        lines.append("No cell has finished.")
    if failed:
        lines += ["", f"## Failed: {len(failed)}", ""]
        lines += [
            f"- {_plain(cell.dataset_name)} / {_plain(cell.category)} / "
            f"{_plain(cell.model)}, seed {cell.seed}: {_plain(cell.kind)}: "
            f"{_plain(cell.error)}"
            for cell in failed
        ]
    return "\n".join(lines) + "\n"


def _markdown_cells(row: dict[str, Any]) -> list[str]:
    promised, flips = row["promised_false_alarm_rate"], row["label_flips"]
    distance = small(row["min_threshold_distance"])
    auroc = share_text(row["image_auroc"])
    interval = interval_text(row["image_auroc_ci95"])
    return [
        *(_plain(row["dataset_name"]), _plain(row["category"]), _plain(row["model"])),
        *(_plain(engine_label(row)), str(row["seed"])),
        f"{auroc} [{interval}]" if interval else auroc,
        *(share_text(row["image_ap"]), share_text(row["recall"])),
        f"{share_text(promised)} -> {share_text(row['false_alarm_rate'])}",
        *(share_text(row["pixel_auroc"]), share_text(row["aupro_0.3"])),
        share_text(row["seg_f1"]),
        NOT_MEASURED if flips is None else f"{flips} ({distance})",
        milliseconds(row["latency_ms.p50"]),
        *(_one_decimal(row["file_mb"]), _one_decimal(row["fit_seconds"])),
    ]


def _one_decimal(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.1f}"


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: object) -> str:
    """Give text that a Markdown reader shows as it is, in one line."""
    words = " ".join(str(text).split())
    for sign in ("\\", "|", "`", "*", "[", "]"):
        words = words.replace(sign, f"\\{sign}")
    words = re.sub(r"\b_|_\b", r"\\_", words)  # inside a word it is no markup
    return words.replace("&", "&amp;").replace("<", "&lt;")
