"""What the parts of a report say, in words that need no training in statistics."""

from __future__ import annotations

from typing import Final

from ..metrics.report_keys import REPORT_KEYS
from .overview_facts import difference, percent, score_text, share_of
from .report_facts import (
    Counted,
    ReportCategory,
    interval_of,
    mapping_of,
    number_of,
)

MANY: Final = "pictures"

# Titles of the numbers that a report lists, in the order of the page.
TITLES: Final = {
    "image_auroc": "Image AUROC",
    "image_ap": "Image AP",
    "image_f1": "F1",
    "recall": "Defects found (recall)",
    "false_alarm_rate": "False alarms",
    "pixel_auroc": "Pixel AUROC",
    "aupro_0.3": "AUPRO 0.3",
    "aupro_0.05": "AUPRO 0.05",
    "seg_f1": "F1 of pixels",
}
_MEANINGS: Final = {key.name: key.meaning for key in REPORT_KEYS}
_SHARES: Final = ("recall", "false_alarm_rate")

GLOSSARY: Final = (
    (
        "Score",
        "How unusual the model finds a picture. It has no unit and no upper end; only "
        "its place beside the threshold counts.",
    ),
    (
        "Threshold",
        "The score from which a picture is called anomalous. It was set before the "
        "test, by good pictures alone, unless the page says otherwise.",
    ),
    (
        "Normal, anomalous",
        "Good and defective, in the words of reports and of the field. Held-out "
        "normals are good pictures that the model had not learned from.",
    ),
    ("False alarm", "A good picture that is called anomalous."),
    ("Missed", "A defective picture that is accepted."),
    (
        "95\u00a0% interval",
        "How far a number may lie from the true one because only so many pictures were "
        "tested. Few pictures give wide intervals.",
    ),
    (
        "p-value",
        "The share of good pictures that look at least this unusual, judged by those "
        "that set the threshold. It cannot fall below 1 / (their number + 1).",
    ),
    (
        "AUROC",
        "The chance that a defective picture scores above a good one; 1 is perfect, "
        "0.5 is chance. It looks at no threshold.",
    ),
    (
        "Heat map",
        "Where the model finds a picture unusual. A line runs around what lies above "
        "the pixel threshold.",
    ),
    (
        "Golden",
        "A control picture with its right answer, which travels with the exported "
        "model so that every device can prove that it computes the same.",
    ),
)


def headline(counted: Counted) -> str:
    """Give the result in one sentence."""
    if counted.defective == 0 and counted.good == 0:
        return "No test pictures: what it finds is not known"
    alarms = f"{counted.alarms} false alarm{'' if counted.alarms == 1 else 's'}"
    of_good = f"{alarms} in {_count(counted.good, 'good')}"
    if counted.defective == 0:
        return f"{of_good}; no defective ones were tested"
    found = f"{counted.found} of {_count(counted.defective, 'defective')} found"
    return f"{found}, {of_good}" if counted.good else f"{found}; no good ones tested"


def _count(count: int, kind: str) -> str:
    return f"{count} {kind} picture{'' if count == 1 else 's'}"


def data_rows(category: ReportCategory) -> list[tuple[str, str, str]]:
    """Give (what, how many, explanation) of the pictures that were used."""
    counts = category.training.get("counts")
    known = counts if isinstance(counts, dict) else {}
    learned = category.training.get("learned_from")
    in_words = learned.get("in_words") if isinstance(learned, dict) else None
    rows = [
        ("Learned from", known.get("train_normals"), "good pictures"),
        ("Also learned from", known.get("train_defects"), "defective pictures"),
        ("Set the threshold", known.get("calibration"), "good pictures"),
        (
            "Tested, good",
            known.get("test_normals"),
            "not learned from, and not used for the threshold",
        ),
        (
            "Tested, defective",
            known.get("test_anomalies"),
            _masks(category) or "not used before",
        ),
    ]
    shown = [
        (what, str(count), words)
        for what, count, words in rows
        if isinstance(count, int) and (count or what != "Also learned from")
    ]
    if (
        isinstance(in_words, str)
        and in_words != f"{known.get('train_normals')} normals"
    ):
        shown.insert(1, ("In detail", "", in_words))
    return shown


def _masks(category: ReportCategory) -> str:
    marked = number_of(category.masks, "anomalies_with_mask")
    if not marked:
        return ""
    some = f"{marked:.0f} of them" if marked < category.counted.defective else "all"
    return f"{some} with the true place of the defect (a mask)"


def kind_rows(category: ReportCategory) -> list[tuple[str, str, str]]:
    """Give (kind of defect, tested, found) where kinds are named; worst first."""
    by_kind: dict[str, list[bool]] = {}
    for part in category.parts:
        if part.defective:
            by_kind.setdefault(part.kind, []).append(part.flagged)
    if len(by_kind) < 2:
        return []
    ordered = sorted(
        by_kind.items(), key=lambda item: (sum(item[1]) / len(item[1]), item[0])
    )
    return [
        (kind, str(len(flags)), share_of(sum(flags), len(flags)))
        for kind, flags in ordered
    ]


def number_rows(category: ReportCategory) -> list[tuple[str, str, str, str]]:
    """Give (title, meaning, value, 95 % interval) of what was measured."""
    rows: list[tuple[str, str, str, str]] = []
    for key, title in TITLES.items():
        value = number_of(category.metrics, key)
        if value is None:
            continue
        interval = interval_of(category.metrics, key)
        if key == "false_alarm_rate" and category.achieved is not None:
            interval = category.achieved.by_images  # the same as beside the promise
        show = percent if key in _SHARES else _three
        between = "" if interval is None else f"{show(interval[0])} to "
        if interval is not None:
            between += show(interval[1])
        rows.append((title, _MEANINGS[key], show(value), between))
    return rows


def not_measured(category: ReportCategory) -> list[str]:
    """Give what was not measured, and why."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in mapping_of(category.metrics, "reasons").items():
        if not key.startswith("oracle_"):
            by_reason.setdefault(str(reason), []).append(TITLES.get(key, key))
    return [f"Not measured: {', '.join(k)}: {why}" for why, k in by_reason.items()]


def _three(value: float) -> str:
    return f"{value:.3f}"


def parity_words(category: ReportCategory) -> list[str]:
    """Give how the exported model compares with the trained one; empty: unknown."""
    parity = category.parity
    if parity is None:
        return []
    which = {
        "test+val": "pictures, which the model had not learned from",
        "train": "pictures, which it had learned from, as there were no others",
    }.get(parity.images, f"{parity.images} pictures")
    flips = (
        "not one verdict differs"
        if parity.label_flips == 0
        else f"{parity.label_flips} verdict{'s' * (parity.label_flips > 1)} differ"
    )
    words = [
        f"Trained and exported model judged the same {parity.n_images} {which}: "
        f"{flips}. The largest difference of a score is "
        f"{difference(parity.max_rel_score_diff)}; the score closest to the threshold "
        f"is {parity.min_threshold_distance:.3g} away from it."
    ]
    if category.in_int8:
        words.append(f"The exported model computes in 8 bits: {category.in_int8}.")
    return words


def speed_rows(category: ReportCategory) -> list[tuple[str, str]]:
    """Give (what, time)."""
    latency = category.metrics.get("latency_ms")
    times = latency if isinstance(latency, dict) else {}
    titles = {
        "p50": "Half of the pictures take at most",
        "p95": "19 of 20 take at most",
        "p99": "99 of 100 take at most",
    }
    rows = [
        (title, f"{number:.0f} ms" if number >= 10 else f"{number:.1f} ms")
        for key, title in titles.items()
        if (number := number_of(times, key)) is not None
    ]
    seconds = number_of(category.metrics, "fit_seconds")
    if seconds is not None:
        rows.append(("Training took", f"{seconds:.0f} s"))
    return rows


def threshold_rows(category: ReportCategory) -> list[tuple[str, str]]:
    """Give the thresholds."""
    thresholds = category.settings.thresholds
    rows = [("Image threshold", score_text(thresholds.image))]
    if thresholds.pixel is not None:
        rows.append(("Pixel threshold, for heat maps", score_text(thresholds.pixel)))
    return rows
