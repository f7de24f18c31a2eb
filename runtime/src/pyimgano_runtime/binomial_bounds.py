"""What a counted rate leaves open: exact binomial bounds, without scipy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from .infer_config import RateBounds

CONFIDENCE: Final = 0.95


def clopper_pearson(
    count: int, n: int, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Give the two-sided bounds of a rate of which `count` of n were seen.

    They hold the true rate with at least the confidence, for any n: the low one is the
    rate at which `count` or more has probability (1 - confidence) / 2, the high one
    that of `count` or fewer (Clopper & Pearson, "The use of confidence or fiducial
    limits illustrated in the case of the binomial", Biometrika 26, 1934).

    Raises:
        ValueError: not 0 <= count <= n, or the confidence is outside of (0, 1).
    """
    if not 0 <= count <= n:
        raise ValueError(f"count is {count}, expected 0 to {n}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected 0 to 1, both excluded")
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else _rate_with_tail(n, count, n, tail)
    high = 1.0 if count == n else _rate_with_tail(n, 0, count, tail)
    return low, high


def count_bounds(
    scores: npt.NDArray[np.float32], groups: Sequence[str], threshold: float
) -> RateBounds:
    """Count the scores that reach a threshold, and bound the rate they stand for.

    Pictures of one part are alike, so the bounds by images are too narrow where parts
    have several; the bounds by groups count a part once, if any of its pictures is
    above.

    Args:
        scores: (n,) of normals.
        groups: (n,) which part each picture shows.
        threshold: compared as float32, as labels are.
    """
    above = np.asarray(scores, dtype=np.float32) >= np.float32(threshold)
    n_above, n_groups = int(above.sum()), len(set(groups))
    groups_above = len(
        {g for g, is_above in zip(groups, above, strict=True) if is_above}
    )
    return RateBounds(
        confidence=CONFIDENCE,
        n_images=len(above),
        images_above=n_above,
        by_images=clopper_pearson(n_above, len(above)),
        n_groups=n_groups,
        groups_above=groups_above,
        by_groups=clopper_pearson(groups_above, n_groups),
    )


def _rate_with_tail(n: int, first: int, last: int, tail: float) -> float:
    """Give the rate at which `first` to `last` of n has the probability `tail`.

    One end of the range is 0 or n, so that probability rises or falls throughout.
    """
    counts = np.arange(first, last + 1, dtype=np.float64)
    log_choose = np.array(
        [
            math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
            for k in range(first, last + 1)
        ]
    )
    rises = last == n
    low, high = 0.0, 1.0
    while True:
        rate = (low + high) / 2
        if rate in (low, high):  # neighbouring numbers: nothing lies between them
            return rate
        terms = log_choose + counts * math.log(rate) + (n - counts) * math.log1p(-rate)
        too_high = bool(np.exp(terms).sum() > tail) == rises
        low, high = (low, rate) if too_high else (rate, high)
