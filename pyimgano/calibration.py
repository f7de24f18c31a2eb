"""Thresholds from held-out normals, each with its provenance.

Split-conformal calibration: with n exchangeable normal scores, the k-th smallest,
k = ceil((n + 1) (1 - alpha)), is exceeded by a new normal with probability at most
alpha (Vovk, Gammerman, Shafer 2005, section 4.1; Lei et al., "Distribution-free
predictive inference for regression", JASA 2018, section 2.2).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import Calibration, ThresholdProvenance, Thresholds

from .detectors.feature_detector import FeatureDetector, FeatureSet
from .detectors.interface import FitContext

Scores = npt.NDArray[np.float32]

# Engines may differ by this share of a score; the threshold stands above it, so that
# no calibration image flags itself in any of them. Also the parity tolerance.
SCORE_TOLERANCE_REL: Final = 1e-5
MAP_TOLERANCE_OF_RANGE: Final = 1e-4
EXACT_SCORES: Final = 10_000  # calibration scores kept as they are up to this number

SMALL_N: Final = "CALIBRATION_SMALL_N"


@dataclass(frozen=True, slots=True)
class HeldOutScores:
    """Scores of normals that the scoring model was not fitted on."""

    image: Scores  # (n,)
    map_max: Scores | None  # (n,) largest value of each normal's map
    groups: tuple[str, ...]  # (n,) which part each picture shows
    source: str  # "val", "kfold_pooled" or "holdout"

    @property
    def n_groups(self) -> int:
        """How many different parts there are."""
        return len(set(self.groups))


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


def threshold_above(score: float, tolerance: float = SCORE_TOLERANCE_REL) -> float:
    """Give the next float32 above a score plus the (relative) parity tolerance."""
    raised = np.float32(score + abs(score) * tolerance)
    return float(np.nextafter(raised, np.float32(np.inf), dtype=np.float32))


def conformal_threshold(
    scores: Scores, requested_rate: float, tolerance: float = SCORE_TOLERANCE_REL
) -> tuple[float, ConformalRank]:
    """Give the threshold that a new normal reaches with at most the used rate."""
    rank = conformal_rank(len(scores), requested_rate)
    ordered = np.sort(scores.astype(np.float32))
    return threshold_above(float(ordered[rank.k - 1]), tolerance), rank


def calibrate(
    held_out: HeldOutScores,
    *,
    target_false_alarm_rate: float,
    fingerprint: str,
    set_by: str,
    set_at: str,
) -> tuple[Thresholds, Calibration]:
    """Give image and pixel thresholds with provenance, and the scores for p-values.

    The pixel threshold bounds the rate of normals with *any* pixel at or above it: it
    is calibrated on the largest value of each normal's map.
    """

    def one(
        scores: Scores, what: str, tolerance: float
    ) -> tuple[float, ThresholdProvenance]:
        threshold, rank = conformal_threshold(
            scores, target_false_alarm_rate, tolerance
        )
        provenance = ThresholdProvenance(
            method="conformal",
            source=held_out.source,
            approximate=held_out.source == "kfold_pooled",
            parameters={"rank": rank.k, "of": len(scores), "statistic": what},
            requested_false_alarm_rate=rank.requested_rate,
            used_false_alarm_rate=rank.used_rate,
            n_images=len(scores),
            n_groups=held_out.n_groups,
            fingerprint=fingerprint,
            score_summary=_summary(scores),
            warnings=(SMALL_N,) if rank.small_n else (),
            set_by=set_by,
            set_at=set_at,
        )
        return threshold, provenance

    image, image_provenance = one(held_out.image, "image score", SCORE_TOLERANCE_REL)
    provenance = {"image": image_provenance}
    pixel = None
    if held_out.map_max is not None:
        pixel, provenance["pixel"] = one(
            held_out.map_max, "largest map value per image", MAP_TOLERANCE_OF_RANGE
        )
    return (
        Thresholds(image=image, pixel=pixel, compare=">=", provenance=provenance),
        Calibration(stored_scores(held_out.image), n_images=len(held_out.image)),
    )


def fixed_thresholds(
    image: float, pixel: float | None, *, set_by: str, set_at: str
) -> tuple[Thresholds, Calibration]:
    """Give thresholds that a person chose; there are no scores and no p-values."""

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


@torch.no_grad()
def out_of_fold_scores(
    detector: FeatureDetector,
    features: FeatureSet,
    folds: Sequence[Sequence[int]],
    groups: Sequence[str],
    *,
    context: FitContext,
) -> HeldOutScores:
    """Score every normal by a model fitted on the folds that do not hold it.

    The final model is fitted on all normals and is a little better than these, so the
    promise is approximate; `tests/test_calibration_false_alarm_rate.py` simulates it.
    """
    n = len(features)
    image = np.empty(n, dtype=np.float32)
    map_max = np.empty(n, dtype=np.float32) if detector.has_map else None
    for number, fold in enumerate(folds):
        context.progress("calibration folds", number, len(folds))
        held_out = np.asarray(fold, dtype=np.int64)
        fitted_on = np.setdiff1d(np.arange(n, dtype=np.int64), held_out)
        twin = detector.blank().to(context.device).eval()
        twin.fit_features(features.subset(fitted_on), context=context)
        done = 0
        for batch in features.subset(held_out).batches(8):
            scores, maps = twin.score_features(batch.to(context.device))
            place = held_out[done : done + len(batch)]
            image[place] = scores.cpu().numpy()
            if map_max is not None and maps is not None:
                map_max[place] = maps.amax(dim=(1, 2)).cpu().numpy()
            done += len(batch)
        context.progress("calibration folds", number + 1, len(folds))
    return HeldOutScores(image, map_max, tuple(groups), "kfold_pooled")


def _summary(scores: Scores) -> dict[str, float]:
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


def as_json(thresholds: Thresholds, calibration: Calibration) -> dict[str, Any]:
    """Give both as the JSON that a run keeps in calibration.json."""
    from dataclasses import asdict

    return {
        "schema_version": "1.0",
        "thresholds": asdict(thresholds),
        "calibration": asdict(calibration),
    }
