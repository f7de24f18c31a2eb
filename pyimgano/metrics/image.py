"""Image metrics: one score an image, one label an image.

Scores are float32 here as in every runtime, so a metric sees the ties that the
device sees; an image is called anomalous when `score >= threshold`, both float32.
Labels are 0 (normal) and 1 (anomalous). AUROC and average precision come from
scikit-learn, imported on use because it takes about a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ImageMetrics",
    "auroc",
    "average_precision",
    "check_scores_and_labels",
    "check_threshold",
    "f1_at_threshold",
    "image_metrics",
]


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """Image metrics of one category; None where the data cannot define one.

    All values lie in 0..1. `reasons` holds one sentence for each metric that is None,
    under the metric's name.
    """

    image_auroc: float | None
    image_ap: float | None
    image_f1: float | None
    recall: float | None
    false_alarm_rate: float | None
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, float | None]:
        """The metrics under their report keys."""
        return {
            "image_auroc": self.image_auroc,
            "image_ap": self.image_ap,
            "image_f1": self.image_f1,
            "recall": self.recall,
            "false_alarm_rate": self.false_alarm_rate,
        }


def image_metrics(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float | np.float32
) -> ImageMetrics:
    """Image metrics at the calibrated threshold.

    Recall needs an anomalous image, the false-alarm rate a normal one, the others
    both: with one class alone, average precision and F1 would say 1 of any detector.

    Args:
        scores: (n,) finite, higher means more anomalous; read as float32.
        labels: (n,) 0 for normal, 1 for anomalous.
        threshold: the calibrated threshold, read as float32.

    Raises:
        ValueError: shapes differ, a score or the threshold is not finite, or a label
            is neither 0 nor 1.
    """
    scores_f32, anomalous = check_scores_and_labels(scores, labels)
    limit = check_threshold(threshold)
    n_anomalous = int(anomalous.sum())
    n_normal = len(anomalous) - n_anomalous
    flagged = scores_f32 >= limit
    both = n_normal > 0 and n_anomalous > 0
    return ImageMetrics(
        image_auroc=auroc(scores_f32, anomalous) if both else None,
        image_ap=average_precision(scores_f32, anomalous) if both else None,
        image_f1=(
            f1_at_threshold(scores_f32, anomalous, threshold=limit) if both else None
        ),
        recall=float(flagged[anomalous].mean()) if n_anomalous else None,
        false_alarm_rate=float(flagged[~anomalous].mean()) if n_normal else None,
        reasons=_reasons(n_normal, n_anomalous),
    )


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Share of (anomalous, normal) pairs in the right order; a tie counts half.

    Raises:
        ValueError: one class is missing, or the input is malformed.
    """
    from sklearn.metrics import roc_auc_score

    scores_f32, anomalous = _both_classes(scores, labels)
    # float64, because scikit-learn subtracts neighbouring scores and float32
    # overflows on the way from -3e38 to 3e38.
    return float(roc_auc_score(anomalous, scores_f32.astype(np.float64)))


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Sum over thresholds of recall gained times precision there, not interpolated.

    Raises:
        ValueError: one class is missing, or the input is malformed.
    """
    from sklearn.metrics import average_precision_score

    scores_f32, anomalous = _both_classes(scores, labels)
    value = average_precision_score(anomalous, scores_f32.astype(np.float64))
    return min(1.0, float(value))  # its sum may end a rounding error above


def f1_at_threshold(
    scores: ArrayLike, labels: ArrayLike, *, threshold: float | np.float32
) -> float:
    """F1 of `score >= threshold`; 0 when no anomalous image is found.

    Counted here: scikit-learn's `f1_score` takes 2.5 ms a call, of which nearly all
    is checks, and a bootstrap calls this a thousand times.

    Raises:
        ValueError: one class is missing, or the input is malformed.
    """
    scores_f32, anomalous = _both_classes(scores, labels)
    flagged = scores_f32 >= check_threshold(threshold)
    hits = int((flagged & anomalous).sum())
    return 2 * hits / (int(flagged.sum()) + int(anomalous.sum()))


def check_scores_and_labels(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scores as float32 (n,) and labels as bool (n,), True for anomalous.

    Raises:
        ValueError: not one-dimensional, lengths differ, a score that is not finite
            as float32, or a label other than 0 and 1.
    """
    with np.errstate(over="ignore"):  # 1e300 becomes inf, and is refused below
        scores_f32 = np.asarray(scores).astype(np.float32)
    labels_any = np.asarray(labels)
    if scores_f32.ndim != 1 or scores_f32.shape != labels_any.shape:
        raise ValueError(
            "scores and labels must both have shape (n,): "
            f"found {scores_f32.shape} and {labels_any.shape}"
        )
    bad_scores = np.flatnonzero(~np.isfinite(scores_f32))
    if bad_scores.size:
        raise ValueError(
            f"{bad_scores.size} of {scores_f32.size} scores are NaN or infinite, "
            f"the first at index {bad_scores[0]}"
        )
    anomalous = labels_any == 1
    bad_labels = np.flatnonzero(~anomalous & (labels_any != 0))
    if bad_labels.size:
        first = bad_labels[0]
        raise ValueError(
            "labels must be 0 (normal) or 1 (anomalous): "
            f"found {labels_any[first]!r} at index {first}"
        )
    return scores_f32, anomalous


def check_threshold(threshold: float | np.float32) -> np.float32:
    """The threshold as float32.

    Raises:
        ValueError: it is not finite as float32.
    """
    with np.errstate(over="ignore"):
        limit = np.float32(threshold)
    if not np.isfinite(limit):
        raise ValueError(f"threshold must be finite as float32: found {threshold!r}")
    return limit


def _both_classes(
    scores: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Checked scores and labels with at least one image of each class."""
    scores_f32, anomalous = check_scores_and_labels(scores, labels)
    n_anomalous = int(anomalous.sum())
    if n_anomalous in (0, len(anomalous)):
        raise ValueError(
            "needs normal and anomalous images: "
            f"found {len(anomalous) - n_anomalous} and {n_anomalous}"
        )
    return scores_f32, anomalous


def _reasons(n_normal: int, n_anomalous: int) -> dict[str, str]:
    """One sentence for each report key that these class counts leave undefined."""
    found = f"found {n_normal} normal and {n_anomalous} anomalous"
    reasons = {}
    if n_normal == 0 or n_anomalous == 0:
        for key in ("image_auroc", "image_ap", "image_f1"):
            reasons[key] = f"needs images of both classes: {found}"
    if n_anomalous == 0:
        reasons["recall"] = f"needs an anomalous image: {found}"
    if n_normal == 0:
        reasons["false_alarm_rate"] = f"needs a normal image: {found}"
    return reasons
