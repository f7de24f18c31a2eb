"""Thresholds from held-out normals, each with its provenance.

Split-conformal calibration: with n exchangeable normal scores, the k-th smallest,
k = ceil((n + 1) (1 - alpha)), is exceeded by a new normal with probability at most
alpha (Vovk, Gammerman, Shafer 2005, section 4.1; Lei et al., "Distribution-free
predictive inference for regression", JASA 2018, section 2.2).

Training and `pyimgano-runtime calibrate` set thresholds by this one module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .binomial_bounds import count_bounds
from .errors import ConfigError
from .infer_config import (
    FLOAT32_MAX,
    Calibration,
    ThresholdProvenance,
    Thresholds,
)

Scores = npt.NDArray[np.float32]

# Engines may differ by this share of a score; the threshold stands above it, so that
# no calibration image flags itself in any of them. Also the parity tolerance.
SCORE_TOLERANCE_REL: Final = 1e-5
MAP_TOLERANCE_OF_RANGE: Final = 1e-4
EXACT_SCORES: Final = 10_000  # calibration scores kept as they are up to this number

SMALL_N: Final = "CALIBRATION_SMALL_N"
GROUPED: Final = "CALIBRATION_GROUPED"  # several pictures of one part
PIXEL_STATISTIC: Final = "pixels of normal maps"
MAP_MAXIMUM: Final = "largest map value per image"
JUDGED_MAXIMUM: Final = "largest judged map value per image"  # smoothed, in the ROI


@dataclass(frozen=True, slots=True)
class PooledPixels:
    """A quantile over the pixels of all held-out normal maps."""

    quantile: float  # in (0, 1)
    value: float  # the ceil(quantile * n_pixels)-th smallest
    n_pixels: int  # of all maps together
    largest: float


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Scores of normals that the scoring model was not fitted on."""

    image: Scores  # (n,)
    map_max: Scores | None  # (n,) largest value of each normal's map
    groups: tuple[str, ...]  # (n,) which part each picture shows
    source: str  # "val", "kfold_pooled", "holdout" or "device"
    pixels: PooledPixels | None = None  # where the pixel threshold is made of them
    map_statistic: str = MAP_MAXIMUM  # what map_max is, in words
    warnings: tuple[str, ...] = ()  # codes that every provenance repeats

    @property
    def n_groups(self) -> int:
        """How many different parts there are."""
        return len(set(self.groups))


@dataclass(frozen=True, slots=True)
class Origin:
    """Who set a threshold, when, and on which pictures."""

    fingerprint: str  # sha256 over names and bytes; empty where there were none
    set_by: str
    set_at: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Rule:
    """How thresholds follow from scores of held-out normals."""

    method: str = "conformal"  # or "quantile", "contamination"
    # "conformal": target false-alarm rate; "quantile": share of normals below;
    # "contamination": share of normals at or above
    value: float = 0.01


@dataclass(frozen=True, slots=True)
class ConformalRank:
    """Which order statistic bounds the false-alarm rate, and which rate that is."""

    k: int  # 1-based, ascending
    requested_rate: float
    used_rate: float
    small_n: bool


def conformal_rank(n: int, requested_rate: float) -> ConformalRank:
    """Give the rank for n scores; with too few, the smallest rate they can promise.

    n scores can promise no rate below 1 / (n + 1). If fewer than ceil(1 / alpha) - 1
    are there, that rate is used instead, and `small_n` says so.

    Raises:
        ConfigError: no scores, or a rate outside of (0, 1).
    """
    if n < 1:
        raise ConfigError(
            "calibration: no held-out normals; add normals, or set "
            'calibration.method to "fixed" and name a threshold'
        )
    if not 0 < requested_rate < 1:
        raise ConfigError(
            f"calibration.target_false_alarm_rate: found {requested_rate}, expected a "
            "number between 0 and 1"
        )
    # A rate such as 0.1 is not exact in binary: 9 scores do promise it.
    small_n = n < math.ceil(1 / requested_rate - 1e-9) - 1
    rate = 1 / (n + 1) if small_n else requested_rate
    k = min(n, math.ceil((n + 1) * (1 - rate) - 1e-9))
    return ConformalRank(k, requested_rate, rate, small_n)


def quantile_rank(n: int, quantile: float) -> int:
    """Give ceil(quantile * n), the 1-based rank of a quantile of n scores.

    The quantile is taken as the decimal number that it is written as: 0.07 of 100
    scores are 7, though the binary number nearest to 0.07 is a little more.

    Raises:
        ConfigError: no scores, or a quantile outside of (0, 1).
    """
    if n < 1:
        raise ConfigError(
            "calibration: no held-out normals; add normals, or set "
            'calibration.method to "fixed" and name a threshold'
        )
    if not 0 < quantile < 1:
        raise ConfigError(
            f"calibration.quantile: found {quantile}, expected a number between 0 and 1"
        )
    return math.ceil(Fraction(repr(float(quantile))) * n)


class TopPixels:
    """The largest pixels of many maps: enough for their exact pooled quantile.

    Of N pixels in all, the quantile q is the (N - ceil(q N) + 1)-th largest: as many
    values are kept, at most twice as many at a time, whatever the number of maps.
    """

    def __init__(self, quantile: float, n_maps: int) -> None:
        self._quantile = quantile
        self._n_maps = n_maps
        self._n_seen = 0
        self._n_pixels = 0  # of all maps, known from the first one on
        self._n_kept = 0
        self._largest = np.empty(0, dtype=np.float32)

    def add(self, anomaly_map: npt.NDArray[np.float32]) -> None:
        """Count one map (h, w), or the values (n,) of it that are judged.

        Raises:
            ConfigError: it is of another size than the first one.
        """
        values = np.asarray(anomaly_map, dtype=np.float32).ravel()
        if self._n_seen and self._n_maps * values.size != self._n_pixels:
            raise ConfigError(
                f"calibration.pixel_method: found maps of {values.size} and of "
                f"{self._n_pixels // self._n_maps} pixels; a pooled quantile would "
                "count the larger ones more: crop the pictures to one size, or set it "
                'to "image_max"'
            )
        if not self._n_seen:
            self._n_pixels = self._n_maps * values.size
            rank = quantile_rank(self._n_pixels, self._quantile)
            self._n_kept = self._n_pixels - rank + 1
        self._n_seen += 1
        self._largest = np.concatenate([self._largest, self._top(values)])
        if len(self._largest) > 2 * self._n_kept:
            self._largest = self._top(self._largest)

    def result(self) -> PooledPixels:
        """Give the quantile of all maps.

        Raises:
            ValueError: not as many maps were added as were announced.
        """
        if self._n_seen != self._n_maps:
            raise ValueError(f"{self._n_seen} of {self._n_maps} maps were added")
        kept = self._top(self._largest)
        return PooledPixels(
            quantile=self._quantile,
            value=float(kept.min()),
            n_pixels=self._n_pixels,
            largest=float(kept.max()),
        )

    def _top(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if len(values) <= self._n_kept:
            return values
        return np.partition(values, len(values) - self._n_kept)[-self._n_kept :]


def threshold_above(score: float, tolerance: float = SCORE_TOLERANCE_REL) -> float:
    """Give the next float32 above a score plus the (relative) parity tolerance."""
    raised = np.float32(score + abs(score) * tolerance)
    return float(np.nextafter(raised, np.float32(np.inf), dtype=np.float32))


def conformal_threshold(
    scores: Scores, requested_rate: float, tolerance: float = SCORE_TOLERANCE_REL
) -> tuple[float, ConformalRank]:
    """Give the threshold that a new normal reaches with at most the used rate."""
    rank = conformal_rank(len(scores), requested_rate)
    return threshold_above(_ranked(scores, rank.k), tolerance), rank


def calibrate(
    held_out: HeldOutScores, *, rule: Rule, origin: Origin
) -> tuple[Thresholds, Calibration]:
    """Give image and pixel thresholds with provenance, and the scores for p-values.

    The pixel threshold follows from the largest value of each normal's map, by the same
    rule: with "conformal" it bounds the rate of normals with *any* pixel at or above
    it. Where `held_out.pixels` is there, it is that quantile of all pixels instead.
    """
    image, provenance = threshold_of(
        held_out.image, held_out, "image score", SCORE_TOLERANCE_REL, rule, origin
    )
    by_kind = {"image": provenance}
    pixel = pixel_threshold(held_out, rule=rule, origin=origin)
    if pixel is not None:
        by_kind["pixel"] = pixel[1]
    return (
        Thresholds(image, None if pixel is None else pixel[0], ">=", by_kind),
        Calibration(stored_scores(held_out.image), n_images=len(held_out.image)),
    )


def pixel_threshold(
    held_out: HeldOutScores, *, rule: Rule, origin: Origin
) -> tuple[float, ThresholdProvenance] | None:
    """Give the pixel threshold and its provenance; None where there are no maps."""
    if held_out.map_max is None:
        return None
    pixels = held_out.pixels
    if pixels is None:
        maxima, statistic = held_out.map_max, held_out.map_statistic
        return threshold_of(
            maxima, held_out, statistic, MAP_TOLERANCE_OF_RANGE, rule, origin
        )
    threshold = threshold_above(pixels.value, MAP_TOLERANCE_OF_RANGE)
    return threshold, _provenance(
        "quantile",
        held_out.map_max,
        held_out,
        threshold,
        origin,
        parameters={
            "statistic": PIXEL_STATISTIC,
            "quantile": pixels.quantile,
            "pixels": pixels.n_pixels,
        },
        summary={"quantile": pixels.value, "max": pixels.largest},
    )


def threshold_of(
    scores: Scores,
    held_out: HeldOutScores,
    statistic: str,
    tolerance: float,
    rule: Rule,
    origin: Origin,
) -> tuple[float, ThresholdProvenance]:
    """Give the threshold of one statistic of the held-out normals by a rule.

    Args:
        scores: (n,) the statistic of each normal.
        held_out: where the scores come from.
        statistic: what the scores are, in words.
        tolerance: by which share of a score engines may differ.
    """
    if rule.method == "conformal":
        threshold, rank = conformal_threshold(scores, rule.value, tolerance)
        return threshold, _provenance(
            "conformal",
            scores,
            held_out,
            threshold,
            origin,
            parameters={"rank": rank.k, "of": len(scores), "statistic": statistic},
            rank=rank,
        )
    parameters: dict[str, Any] = {"quantile": rule.value}
    if rule.method == "contamination":
        quantile = float(1 - Fraction(repr(float(rule.value))))
        parameters = {"contamination": rule.value, "quantile": quantile}
    k = quantile_rank(len(scores), parameters["quantile"])
    threshold = threshold_above(_ranked(scores, k), tolerance)
    parameters |= {"rank": k, "of": len(scores), "statistic": statistic}
    return threshold, _provenance(
        rule.method, scores, held_out, threshold, origin, parameters=parameters
    )


def _ranked(scores: Scores, k: int) -> float:
    """Give the k-th smallest score, k from 1."""
    return float(np.sort(scores.astype(np.float32))[k - 1])


def _provenance(
    method: str,
    scores: Scores,
    held_out: HeldOutScores,
    threshold: float,
    origin: Origin,
    *,
    parameters: dict[str, Any],
    rank: ConformalRank | None = None,
    summary: dict[str, float] | None = None,
) -> ThresholdProvenance:
    return ThresholdProvenance(
        method=method,
        source=held_out.source,
        # Conformal counts pictures as exchangeable, and those of one part are not.
        approximate=held_out.source == "kfold_pooled" or GROUPED in held_out.warnings,
        parameters=parameters,
        requested_false_alarm_rate=rank.requested_rate if rank else None,
        used_false_alarm_rate=rank.used_rate if rank else None,
        n_images=len(scores),
        n_groups=held_out.n_groups,
        fingerprint=origin.fingerprint,
        score_summary=score_summary(scores) if summary is None else summary,
        warnings=(*((SMALL_N,) if rank and rank.small_n else ()), *held_out.warnings),
        set_by=origin.set_by,
        set_at=origin.set_at,
        bounds=count_bounds(scores, held_out.groups, threshold),
    )


def fixed_thresholds(
    image: float, pixel: float | None, *, set_by: str, set_at: str
) -> tuple[Thresholds, Calibration]:
    """Give thresholds that a person chose; there are no scores and no p-values.

    Raises:
        ConfigError: a number that float32 cannot hold.
    """
    for key, number in (("threshold", image), ("pixel_threshold", pixel)):
        if number is not None and not abs(number) <= FLOAT32_MAX:
            raise ConfigError(
                f"calibration.{key}: found {number}, expected a finite number that "
                "float32 can hold: scores are compared as float32"
            )

    def one() -> ThresholdProvenance:
        return ThresholdProvenance(
            method="fixed",
            source="user",
            approximate=False,
            parameters={},
            requested_false_alarm_rate=None,
            used_false_alarm_rate=None,
            n_images=0,
            n_groups=0,
            fingerprint="",
            score_summary={},
            warnings=(),
            set_by=set_by,
            set_at=set_at,
        )

    provenance = {"image": one()} | ({"pixel": one()} if pixel is not None else {})
    as_float32 = None if pixel is None else float(np.float32(pixel))
    return (
        Thresholds(float(np.float32(image)), as_float32, ">=", provenance),
        Calibration((), n_images=0),
    )


def stored_scores(scores: Scores) -> tuple[float, ...]:
    """Give ascending scores for the bundle: all up to 10,000, above that quantiles.

    Quantiles are upper ones, so that a p-value computed from them never falls below
    the one of all scores.
    """
    ordered = np.sort(scores.astype(np.float32))
    n = len(ordered)
    if n > EXACT_SCORES:
        ranks = np.ceil(np.arange(1, EXACT_SCORES + 1) * n / EXACT_SCORES) - 1
        ordered = ordered[ranks.astype(np.int64)]
    return tuple(float(score) for score in ordered)


def score_summary(scores: Scores) -> dict[str, float]:
    """Give what a person wants to know of a set of scores, (n,), n at least 1."""
    values = scores.astype(np.float64)
    return {
        "min": float(values.min()),
        "median": float(np.median(values)),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "max": float(values.max()),
    }


def small_n_message(thresholds: Thresholds) -> str | None:
    """One sentence for the user where too few normals were there for the rate."""
    image = thresholds.provenance["image"]
    if SMALL_N not in image.warnings or image.requested_false_alarm_rate is None:
        return None
    needed = math.ceil(1 / image.requested_false_alarm_rate - 1e-9) - 1
    return (
        f"{SMALL_N}: {image.n_images} held-out normals can promise no "
        f"false-alarm rate below {image.used_false_alarm_rate:.2%}, not the requested "
        f"{image.requested_false_alarm_rate:.2%}; that takes {needed} normals"
    )
