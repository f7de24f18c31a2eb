"""leaderboard.html: one file that needs no network, and is whole without script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pyimgano_runtime._version import __version__

from .chart_parts import Style
from .html_page import render
from .leaderboard_charts import styles
from .leaderboard_marks import Mark, marks
from .leaderboard_rows import (
    Cell,
    FailedCell,
    engine_label,
    engine_row,
    shown_engine,
)
from .leaderboard_sections import page_sections
from .leaderboard_words import (
    EXPLAINED,
    NOT_MEASURED,
    interval_text,
    megabytes,
    milliseconds,
    share_text,
    small,
)

TEMPLATE: Final = "leaderboard.html.j2"
SIGNIFICANT: Final = 0.05  # of the exact test on anomalies that only one model finds
OPEN_SECTIONS: Final = 3  # with more, sections start folded

# (title, key of the number that the column is sorted by)
NUMBERS: Final = (
    ("AUROC", "image_auroc"),
    ("AP", "image_ap"),
    ("Recall", "recall"),
    ("False alarms", "false_alarm_rate"),
    ("Pixel AUROC", "pixel_auroc"),
    ("AUPRO 0.3", "aupro_0.3"),
    ("Seg F1", "seg_f1"),
    ("Label flips", "label_flips"),
    ("ms", "latency_ms.p50"),
    ("RAM MB", "peak_rss_mb"),
    ("File MB", "file_mb"),
    ("Fit s", "fit_seconds"),
)


def page_html(
    cells: Sequence[Cell],
    failed: Sequence[FailedCell],
    *,
    title: str,
    command: str | None,
    comparisons: Sequence[Mapping[str, Any]],
    planned: int | None,
) -> str:
    """Give the whole page."""
    looks = styles(cell.model for cell in cells)
    ordered = sorted(cells, key=_by_place_then_quality)
    pairs = [(cell, engine) for cell in ordered for engine in cell.facts["engines"]]
    rows = [engine_row(cell, engine) for cell, engine in pairs]
    given = marks(rows, comparisons)
    sections = page_sections(ordered, looks)
    facts = {
        "title": title,
        "command": command,
        "version": __version__,
        "finished": _progress(len(cells), len(failed), planned),
        "agreement": _agreement(pairs),
        "facts": _facts(cells),
        "numbers": NUMBERS,
        "rows": [
            _table_row(row, index, given, looks[row["model"]], sections)
            for index, row in enumerate(rows)
        ],
        "has_seeds": len({cell.seed for cell in cells}) > 1,
        "datasets": sorted({cell.dataset_name for cell in cells}),
        "engines": sorted({engine_label(row) for row in rows}),
        "sections": sections,
        "unfolded": len(sections) <= OPEN_SECTIONS,
        "comparisons": [_comparison(found) for found in comparisons],
        "failed": failed,
        "explained": EXPLAINED,
        "has_pictures": any(case for s in sections for case in s["galleries"]),
    }
    return render(TEMPLATE, facts)


def _by_place_then_quality(cell: Cell) -> tuple[Any, ...]:
    auroc = cell.facts["engines"][shown_engine(cell)].get("image_auroc")
    return (
        *(cell.dataset_name, cell.category, -1.0 if auroc is None else -auroc),
        *(cell.model, cell.seed),
    )


# --- head ---------------------------------------------------------------------------


def _progress(n_finished: int, n_failed: int, planned: int | None) -> str:
    total = n_finished + n_failed if planned is None else planned
    words = f"{n_finished} of {total} cells finished, {n_failed} failed"
    waiting = total - n_finished - n_failed
    return words + (f", {waiting} still to run" if waiting > 0 else "")


def _agreement(pairs: Sequence[tuple[Cell, str]]) -> list[dict[str, Any]]:
    """Give for each engine how it agrees with torch, over all cells."""
    found: dict[str, dict[str, Any]] = {}
    for cell, engine in pairs:
        row = engine_row(cell, engine)
        if row["label_flips"] is None:
            continue
        total = found.setdefault(
            engine_label(row), {"flips": 0, "pictures": 0, "score": None}
        )
        total["flips"] += row["label_flips"]
        total["pictures"] += cell.n_pictures
        score = row["max_abs_score_diff"]
        if score is not None:
            total["score"] = max(score, total["score"] or 0.0)
    return [
        {
            "engine": engine,
            "flips": total["flips"],
            "pictures": total["pictures"],
            "score": small(total["score"]),
        }
        for engine, total in sorted(found.items())
    ]


def _facts(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Give what was measured when, on what and with what."""
    if not cells:
        return []
    environments = [cell.report.get("environment") or {} for cell in cells]
    dates = sorted(str(c.report["finished"]) for c in cells if c.report.get("finished"))
    facts = [
        ("Finished", _date(dates[-1]) if dates else ""),
        ("Machine", _each({str(e.get("machine") or "") for e in environments})),
        ("Threads", _each({str(c.report.get("threads") or "") for c in cells})),
        ("System", _each({str(e.get("platform") or "") for e in environments})),
        ("Versions", _each({_versions(e) for e in environments})),
    ]
    return [(name, text) for name, text in facts if text]


def _date(timestamp: str) -> str:
    """Give `2026-05-04 03:02:01 UTC`."""
    return timestamp.replace("T", " ").replace("Z", " UTC")


def _versions(environment: Mapping[str, Any]) -> str:
    versions = {
        "pyimgano": environment.get("pyimgano"),
        "python": environment.get("python"),
        **(environment.get("packages") or {}),
    }
    return ", ".join(f"{name} {v}" for name, v in versions.items() if v)


def _each(values: set[str]) -> str:
    return "; ".join(sorted(value for value in values if value))


# --- table --------------------------------------------------------------------------


def _table_row(
    row: dict[str, Any],
    index: int,
    given: Mapping[tuple[int, str], Mark],
    style: Style,
    sections: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    reasons = row["reasons"] or {}
    place = (row["dataset_name"], row["category"])
    anchor = next(s["anchor"] for s in sections if s["place"] == place)
    return {
        "row": row,
        "engine": engine_label(row),
        "style": style,
        "anchor": anchor,
        "cells": [
            {
                "text": _number(key, row[key]),
                "below": _below(key, row),
                "sort": row[key],
                "mark": given.get((index, key)),
                "why": reasons.get(key) if row[key] is None else None,
            }
            for _, key in NUMBERS
        ],
    }


def _number(key: str, value: Any) -> str:
    if value is None:
        return NOT_MEASURED
    if key == "label_flips":
        return str(value)
    if key == "latency_ms.p50":
        return milliseconds(value)
    if key.endswith("_mb") or key == "fit_seconds":
        return megabytes(value)
    return share_text(value)


def _below(key: str, row: Mapping[str, Any]) -> str:
    """Give the small line below a number."""
    if row[key] is None:
        return ""
    if key == "false_alarm_rate":
        promised = row["promised_false_alarm_rate"]
        return "no promise" if promised is None else f"promised {share_text(promised)}"
    if key == "label_flips":
        return f"closest {small(row['min_threshold_distance'])}"
    if key == "latency_ms.p50":
        return f"p95 {milliseconds(row['latency_ms.p95'])}"
    return interval_text(row.get(f"{key}_ci95"))


def _comparison(found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found["low"], found["high"]
    difference = found["image_auroc_difference"]
    measured = None not in (low, high, difference)
    return {
        **found,
        "label": engine_label(dict(found)),
        "difference": f"{difference:+.3f}" if measured else NOT_MEASURED,
        "interval": f"{low:+.3f} to {high:+.3f}" if measured else "",
        "found": f"{found['found_by_a_only']} / {found['found_by_b_only']}",
        "found_p": f"p {found['found_p_value']:.2g}",
        "found_apart": found["found_p_value"] < SIGNIFICANT,
        "better": (found["model_b"] if difference > 0 else found["model_a"])
        if measured and found["distinguishable"]
        else None,
    }
