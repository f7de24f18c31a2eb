"""The keys under which reports carry numbers: which way is better, and what each is.

One table for all who print, compare or gate: leaderboards, `runs compare`,
`bundle accept`, and the docs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pyimgano_runtime._reader import closest
from pyimgano_runtime.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ReportKey:
    """One number of a report."""

    name: str  # dots lead into objects: "latency_ms.p95"
    better: Literal["higher", "lower"]
    meaning: str


REPORT_KEYS: Final = (
    ReportKey(
        "image_auroc",
        "higher",
        "chance that an anomalous picture scores above a normal one",
    ),
    ReportKey("image_ap", "higher", "average precision of the image scores"),
    ReportKey("image_f1", "higher", "F1 at the calibrated image threshold"),
    ReportKey(
        "recall",
        "higher",
        "share of anomalies found at the calibrated threshold, that is at the promised "
        "false-alarm rate",
    ),
    ReportKey(
        "false_alarm_rate",
        "lower",
        "share of test normals called anomalous at the calibrated threshold",
    ),
    ReportKey("pixel_auroc", "higher", "AUROC of all pixels, at mask resolution"),
    ReportKey(
        "aupro_0.3", "higher", "mean overlap of defect regions, up to 30 % false pixels"
    ),
    ReportKey(
        "aupro_0.05", "higher", "mean overlap of defect regions, up to 5 % false pixels"
    ),
    ReportKey("seg_f1", "higher", "F1 of all pixels at the calibrated pixel threshold"),
    ReportKey(
        "label_flips", "lower", "pictures that this engine labels otherwise than torch"
    ),
    ReportKey(
        "max_abs_score_diff", "lower", "largest difference of a score from torch"
    ),
    ReportKey(
        "max_abs_map_diff", "lower", "largest difference of a map pixel from torch"
    ),
    ReportKey("latency_ms.p50", "lower", "median time of a picture, decoding excluded"),
    ReportKey("latency_ms.p95", "lower", "19 of 20 pictures take at most this"),
    ReportKey("latency_ms.p99", "lower", "99 of 100 pictures take at most this"),
    ReportKey("fit_seconds", "lower", "time of fit and out-of-fold scores"),
    ReportKey(
        "peak_rss_mb", "lower", "largest memory of a process that does only this"
    ),
)
_BY_NAME: Final = {key.name: key for key in REPORT_KEYS}


def report_key(name: str, where: str) -> ReportKey:
    """Give a key by its name.

    Raises:
        ConfigError: there is no such key; names the closest and all.
    """
    key = _BY_NAME.get(name)
    if key is None:
        raise ConfigError(
            f'{where}: no report key is called "{name}" ({closest(name, _BY_NAME)}); '
            f"known: {', '.join(_BY_NAME)}"
        )
    return key


def value_of(report: Mapping[str, Any], name: str) -> float | None:
    """Give the number that stands under a key; None where it was not measured."""
    # "aupro_0.3" is one key, "latency_ms.p95" leads into an object.
    value: Any = report.get(name)
    if name not in report and "." in name:
        outer, inner = name.rsplit(".", 1)
        nested = report.get(outer)
        value = nested.get(inner) if isinstance(nested, Mapping) else None
    return None if value is None else float(value)


def parse_assignment(text: str, option: str) -> tuple[ReportKey, float]:
    """Give key and number of an option such as `--min recall=0.9`.

    Raises:
        ConfigError: no such key, or no finite number.
    """
    name, sign, number = text.partition("=")
    if not sign:
        raise ConfigError(
            f'{option}: found "{text}", expected KEY=NUMBER such as recall=0.9'
        )
    key = report_key(name.strip(), option)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(
            f'{option} {key.name}: found "{number}", expected a finite number'
        )
    return key, value
