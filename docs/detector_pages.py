"""The tables of docs/detectors: facts from the classes, numbers from results.json."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any, Final

from pyimgano.detectors import DETECTORS, detector_class
from pyimgano.detectors.feature_detector import FeatureDetector

RESULTS: Final = Path(__file__).resolve().parent / "detectors" / "results.json"
FEW_SHOT: Final = RESULTS.with_name("few_shot.json")
FEW_SHOT_SET: Final = "cookies"
FEW_SHOT_COUNTS: Final = ("1", "5", "20")  # train normals
# In the order of the reference suite.
SETS: Final = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
MISSING: Final = "not measured"
# Where a page's numbers go; written by hand as one line, once.
PLACEHOLDER: Final = "<!-- numbers: filled by docs/generate.py -->"

Numbers = dict[str, Any]


def read_results() -> dict[str, dict[str, Numbers]]:
    """Give the measured numbers by detector and data set."""
    if not RESULTS.exists():
        return {}
    found: dict[str, dict[str, Numbers]] = json.loads(
        RESULTS.read_text(encoding="utf-8")
    )["detectors"]
    return found


def read_few_shot() -> dict[str, dict[str, Numbers]]:
    """Give what few normals of one set gave, by detector and count."""
    if not FEW_SHOT.exists():
        return {}
    sets = json.loads(FEW_SHOT.read_text(encoding="utf-8"))["sets"]
    found: dict[str, dict[str, Numbers]] = sets.get(FEW_SHOT_SET, {})
    return found


def few_shot_cell(counts: dict[str, Numbers]) -> str:
    """Give the means over the picks of normals, one for each count."""
    if not counts:
        return MISSING
    means = [counts.get(count, {}).get("mean") for count in FEW_SHOT_COUNTS]
    return " / ".join(number(mean) for mean in means)


def capabilities() -> str:
    """Give what each detector is, from its class, and what few normals gave it."""
    lines = table("detector", "what for", "weights", "trains", "real defects", "map",
                  "thresholds from", "image AUROC from 1 / 5 / 20 normals")  # fmt: skip
    few = read_few_shot()
    for name in sorted(DETECTORS):
        cls = detector_class(name)
        statistic = issubclass(cls, FeatureDetector)
        lines.append(
            row(
                f"[{name}]({name}.md)",
                purpose(cls),
                "backbone" if cls.needs_weights else "none",
                "by gradient" if cls.trains else "fits",
                "learns from them" if cls.uses_defects else "refused",
                "yes" if cls.has_map else "score only",
                "out of fold, all normals" if statistic else "a fifth held out",
                few_shot_cell(few.get(name, {})),
            )
        )
    return "\n".join(lines)


def purpose(cls: Any) -> str:
    """Give the first sentence of a class's docstring."""
    first = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    return first.split(". ")[0].rstrip(".") or MISSING


def image_accuracy() -> str:
    """Give image AUROC of every detector and set, with intervals."""
    lines = table("detector", "mean", *SETS)
    for name, sets in measured():
        values = [sets[s].get("image_auroc") for s in SETS if s in sets]
        whole = len(values) == len(SETS) and None not in values
        mean = f"{statistics.fmean(values):.3f}" if whole else MISSING
        cells = [with_interval(sets.get(s), "image_auroc") for s in SETS]
        lines.append(row(f"[{name}]({name}.md)", mean, *cells))
    return "\n".join(lines)


def pixel_accuracy() -> str:
    """Give pixel AUROC and AUPRO of every detector with a map."""
    sets_with_masks = [s for s in SETS if s != "elpv_mono"]
    lines = table("detector", *sets_with_masks)
    for name, sets in measured():
        if detector_class(name).has_map:
            cells = [pixel_cell(sets.get(s)) for s in sets_with_masks]
            lines.append(row(f"[{name}]({name}.md)", *cells))
    return "\n".join(lines)


def costs() -> str:
    """Give size, times and agreement of every detector over its sets."""
    lines = table("detector", "numbers learned", "bundle MB", "fit s", "ms an image",
                  "score difference", "map difference", "flips")  # fmt: skip
    for name, sets in measured():
        cells = list(sets.values())
        verdicts = sum(c["test_normals"] + c["test_anomalies"] for c in cells)
        flips = sum(cell["label_flips"] for cell in cells)
        lines.append(
            row(
                f"[{name}]({name}.md)",
                largest(cells, "parameters", "{:,}"),
                largest(cells, "bundle_mb", "{:.1f}"),
                reach(cells, "fit_seconds", "{:.0f}"),
                middle(cells, "latency_ms_p50"),
                largest(cells, "max_rel_score_diff", "{:.1e}"),
                largest(cells, "max_map_diff_of_range", "{:.1e}"),
                f"{flips} of {verdicts:,}" if cells else MISSING,
            )
        )
    return "\n".join(lines)


def machines() -> str:
    """Say where the numbers come from."""
    cells = [cell for sets in read_results().values() for cell in sets.values()]
    if not cells:
        return "Nothing was measured yet."
    places = dict.fromkeys(
        f"{c['machine']}, {c['threads']} threads, torch {c['torch']}, onnxruntime "
        f"{c['onnxruntime']}"
        for c in cells
    )
    days = sorted({cell["finished"] for cell in cells})
    when = " to ".join(dict.fromkeys([days[0], days[-1]]))
    return f"Measured on {'; '.join(places)} ({when})."


def page_numbers(name: str) -> str:
    """Give the numbers of one detector's page."""
    sets = read_results().get(name, {})
    if not sets:
        return f"{MISSING.capitalize()}."
    cls = detector_class(name)
    pixel = ["pixel AUROC [95 %]", "AUPRO 0.3 [95 %]"] if cls.has_map else []
    lines = table("data set", "test normals + anomalies", "image AUROC [95 %]",
                  "recall", "false alarms: promised -> found", *pixel, "fit s", "ms",
                  "MB", "score difference", "flips")  # fmt: skip
    for data in [*SETS, *(s for s in sets if s not in SETS)]:
        cell = sets.get(data)
        if cell is None:
            lines.append(row(data, MISSING, *[""] * (lines[0].count("|") - 3)))
            continue
        pixels = [with_interval(cell, key, "-") for key in ("pixel_auroc", "aupro_0.3")]
        lines.append(
            row(
                data,
                f"{cell['test_normals']} + {cell['test_anomalies']}",
                with_interval(cell, "image_auroc"),
                number(cell["recall"]),
                f"{number(cell['promised_false_alarm_rate'])} -> "
                f"{number(cell['false_alarm_rate'])}",
                *(pixels if cls.has_map else []),
                f"{cell['fit_seconds']:.0f}",
                f"{cell['latency_ms_p50']:.1f}",
                f"{cell['bundle_mb']:.1f}",
                f"{cell['max_rel_score_diff']:.1e}",
                str(cell["label_flips"]),
            )
        )
    return "\n".join(
        [
            *lines,
            "",
            "The bundle in onnxruntime, at the defaults, by",
            "`pyimgano benchmark --suite detectors --suite-root DATA --output suite "
            f"--only {name}`;",
            "what each column is: [all detectors](index.md#how-to-read-it).",
        ]
    )


def measured() -> list[tuple[str, dict[str, Numbers]]]:
    """Give every registered detector with its numbers, none where there are none."""
    results = read_results()
    return [(name, results.get(name, {})) for name in sorted(DETECTORS)]


def table(*titles: str) -> list[str]:
    """Give the first two lines of a table."""
    return [row(*titles), "|" + "---|" * len(titles)]


def row(*cells: str) -> str:
    """Give one line of a table."""
    return f"| {' | '.join(cells)} |"


def number(value: float | None) -> str:
    """Give a share with three digits."""
    return "-" if value is None else f"{value:.3f}"


def with_interval(cell: Numbers | None, key: str, missing: str = MISSING) -> str:
    """Give a number with its 95 % interval, where it has one."""
    if cell is None or cell.get(key) is None:
        return missing
    low_high = cell.get(f"{key}_ci95")
    between = "" if low_high is None else f" [{low_high[0]:.3f}, {low_high[1]:.3f}]"
    return f"{cell[key]:.3f}{between}"


def pixel_cell(cell: Numbers | None) -> str:
    """Give pixel AUROC and AUPRO in one cell."""
    if cell is None or cell.get("pixel_auroc") is None:
        return MISSING
    return f"{with_interval(cell, 'pixel_auroc')} / {with_interval(cell, 'aupro_0.3')}"


def known(cells: list[Numbers], key: str) -> list[float]:
    """Give the values of a key that were measured."""
    return [cell[key] for cell in cells if cell.get(key) is not None]


def largest(cells: list[Numbers], key: str, form: str) -> str:
    """Give the largest of the sets."""
    values = known(cells, key)
    return form.format(max(values)) if values else MISSING


def reach(cells: list[Numbers], key: str, form: str) -> str:
    """Give the smallest and the largest of the sets."""
    values = known(cells, key)
    ends = dict.fromkeys(form.format(end(values)) for end in (min, max) if values)
    return " to ".join(ends) or MISSING


def middle(cells: list[Numbers], key: str) -> str:
    """Give the median over the sets."""
    values = known(cells, key)
    return f"{statistics.median(values):.1f}" if values else MISSING
