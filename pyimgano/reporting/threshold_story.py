"""Where a threshold comes from and what it promises, for a person who buys parts.

`pyimgano_runtime.threshold_words` says the same for engineers, in one line.
"""

from __future__ import annotations

import math
from typing import Final

from pyimgano_runtime.calibration import GROUPED, PIXEL_STATISTIC, SMALL_N
from pyimgano_runtime.infer_config import RateBounds, ThresholdProvenance
from pyimgano_runtime.region_rules import RegionRules

from .overview_facts import percent

_RULES: Final = {
    "image_threshold": "A picture that scores the image threshold or more is called "
    "anomalous.",
    "any_region": "A picture in which a defect region is found is called anomalous, "
    "whatever its score: a region is a part of the heat map that reaches the pixel "
    "threshold and passes the filters, which lower the promised rate further.",
    "both": "A picture is called anomalous where it scores the image threshold or "
    "more and a defect region is found in it; that lowers the promised rate further.",
}


def label_rule(regions: RegionRules | None) -> str:
    """Say what makes a picture anomalous."""
    return _RULES["image_threshold" if regions is None else regions.policy]


def origin_words(origin: ThresholdProvenance, many: str) -> str:
    """Give how the threshold was got, in sentences.

    Args:
        many: what is inspected: "parts", "pictures".
    """
    if origin.method == "conformal":
        return _conformal(origin, many)
    if origin.method in ("quantile", "contamination"):
        return _share(origin, many)
    if origin.method == "best_f1":
        return _labelled(origin, many)
    return (
        f"The threshold was chosen by hand (method {origin.method}); it follows from "
        "no scores."
    )


def _conformal(origin: ThresholdProvenance, many: str) -> str:
    rank, of, statistic = map(origin.parameters.get, ("rank", "of", "statistic"))
    what = "heat map peaks" if "map" in str(statistic) else "scores"
    if isinstance(rank, int) and isinstance(of, int):
        place = "highest" if rank == of else f"{_ordinal(of - rank + 1)} highest"
        words = (
            f"The threshold lies just above the {place} of {of} {what} of "
            f"{_source(origin, many)}."
        )
    else:
        words = (
            f"The threshold follows from {origin.n_images} {what} of "
            f"{_source(origin, many)}."
        )
    return words + (_why_approximate(origin, many) if origin.approximate else "")


def asked_words(origin: ThresholdProvenance, many: str) -> str:
    """Give that less was asked for than can be promised; empty where it can."""
    if not origin.warnings or origin.requested_false_alarm_rate is None:
        return ""
    asked = percent(origin.requested_false_alarm_rate)
    return f" Asked for were {asked}: that takes more good {many}."


def _why_approximate(origin: ThresholdProvenance, many: str) -> str:
    if GROUPED in origin.warnings:
        return f" Several of these {many} are alike, so the promise is approximate."
    return " The final model has seen all of them, so the promise is approximate."


def _share(origin: ThresholdProvenance, many: str) -> str:
    quantile = origin.parameters.get("quantile")
    if not isinstance(quantile, (int, float)):
        return f"The threshold was set by method {origin.method}."
    source = _source(origin, many)
    if origin.parameters.get("statistic") == PIXEL_STATISTIC:
        return (
            f"{100 * quantile:.6g}\u00a0% of all heat map pixels of {origin.n_images} "
            f"{source} lie below the threshold."
        )
    return (
        f"The threshold was set so that {percent(1 - quantile, 2)} of "
        f"{origin.n_images} scores of {source} lie above it. A share of these "
        f"{many} is no promise for others."
    )


def _labelled(origin: ThresholdProvenance, many: str) -> str:
    facts = origin.parameters
    return (
        f"The threshold stands where it tells {facts.get('normals')} good from "
        f"{facts.get('defects')} defective labelled {many} best; they were neither "
        "learned from nor tested on. It promises no rate of false alarms."
    )


def _source(origin: ThresholdProvenance, many: str) -> str:
    known = {
        "kfold_pooled": f"good training {many}, each judged by a model that had not "
        "seen it",
        "device": f"good {many} measured on the device",
    }
    return known.get(origin.source, f"good {many} that the model had not seen")


def promise_sentence(origin: ThresholdProvenance, many: str) -> str:
    """Give the promised false-alarm rate, and how many more it takes for the asked."""
    used, asked = origin.used_false_alarm_rate, origin.requested_false_alarm_rate
    if used is None:
        return f"It promises nothing about how many good {many} will be flagged."
    about = "about" if origin.approximate else "at most"
    words = (
        f"It promises that {about} {percent(used, 2)} of good {many} will be flagged "
        f"by mistake: {about} {_in_thousand(used)} of 1,000."
    )
    if SMALL_N in origin.warnings and asked is not None:
        needed = math.ceil(1 / asked - 1e-9) - 1
        words += (
            f" {percent(asked, 2)} was asked for. {origin.n_images} good {many} cannot "
            f"promise that little; it takes {needed}."
        )
    return words


def _in_thousand(rate: float) -> str:
    count = 1000 * rate
    return f"{count:.0f}" if count >= 1 else f"{count:.1g}"


def achieved_sentence(
    origin: ThresholdProvenance, achieved: RateBounds | None, many: str
) -> str:
    """Give what the test counted, what that leaves open, and whether it agrees.

    Args:
        achieved: of test normals; None: it was not counted.
    """
    if achieved is None or achieved.n_images == 0:
        return f"No good {many} were tested, so nothing is known of its false alarms."
    low, high = achieved.by_images
    count, total = achieved.images_above, achieved.n_images
    words = (
        f"In the test {count} of {total} good {many} were flagged "
        f"({percent(count / total)}). From {total} {many} the true rate cannot be told "
        f"closer than {percent(low)} to {percent(high)} (95\u00a0% interval)"
    )
    groups = achieved.n_groups
    if groups != total:
        by_low, by_high = achieved.by_groups
        words += (
            f"; these {many} show {groups} parts, and counted by parts it is "
            f"{percent(by_low)} to {percent(by_high)}"
        )
    promised = origin.used_false_alarm_rate
    if promised is None:
        return f"{words}."
    if promised < low:
        return f"{words}. That is more than promised."
    if high - promised > promised and promised > 0:
        return f"{words}. That agrees with the promise, and does not prove it."
    return f"{words}. That agrees with the promise."


def _ordinal(place: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    teens = place % 100 in (11, 12, 13)
    return f"{place}{'th' if teens else endings.get(place % 10, 'th')}"
