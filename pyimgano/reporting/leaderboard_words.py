"""Numbers of a leaderboard as people read them, and what its columns mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..metrics.report_keys import REPORT_KEYS

NOT_MEASURED: Final = "-"

_MEANINGS: Final = {key.name: key.meaning for key in REPORT_KEYS}

# (title in the table, what it means in plain words)
EXPLAINED: Final = (
    ("AUROC", f"Image AUROC: {_MEANINGS['image_auroc']}; 1 is perfect, 0.5 is chance."),
    ("AP", f"Image AP: {_MEANINGS['image_ap']}, the area below precision and recall."),
    ("Recall", f"{_MEANINGS['recall'].capitalize()}."),
    (
        "False alarms",
        f"{_MEANINGS['false_alarm_rate'].capitalize()}; below it what the threshold "
        "promised before the test.",
    ),
    ("Pixel AUROC", f"{_MEANINGS['pixel_auroc']}. It is high even for coarse maps."),
    ("AUPRO 0.3", f"{_MEANINGS['aupro_0.3'].capitalize()}."),
    ("Seg F1", f"{_MEANINGS['seg_f1']}."),
    (
        "Label flips",
        f"{_MEANINGS['label_flips'].capitalize()}; below it how close the closest "
        "score comes to the threshold.",
    ),
    (
        "ms",
        f"{_MEANINGS['latency_ms.p50'].capitalize()}; below it the 95th percentile.",
    ),
    ("RAM MB", f"Peak memory: {_MEANINGS['peak_rss_mb']}."),
    ("File MB", "Size of the model file that this engine opens."),
    ("Fit s", f"Seconds of training: {_MEANINGS['fit_seconds']}."),
)


def share_text(value: float | None) -> str:
    """Give `0.912`; `0.9996` and not 1.000 where it is not quite one."""
    if value is None:
        return NOT_MEASURED
    text = f"{value:.3f}"
    if text == "1.000" and value < 1:
        text = f"{value:.4f}"
        return "> 0.9999" if text == "1.0000" else text
    return text


def interval_text(interval: Sequence[float] | None) -> str:
    """Give `0.880 to 0.941`; nothing where there is none."""
    if not interval:
        return ""
    return f"{share_text(interval[0])} to {share_text(interval[1])}"


def small(value: float | None) -> str:
    """Give a difference or a distance with two digits: `3.1e-06`, `0.42`."""
    return NOT_MEASURED if value is None else f"{value:.2g}"


def milliseconds(value: float | None) -> str:
    """Give a time with three digits."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def megabytes(value: float | None) -> str:
    """Give a size, with a decimal below ten."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
