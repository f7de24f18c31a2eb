"""Ceilings of image metrics: what thresholds chosen on the test labels would reach.

Nobody can deploy such a threshold. Beside the numbers at the calibrated one it tells a
weak detector (the ceiling is low) from a poor threshold (the ceiling is far away).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .image import check_scores_and_labels


def oracle_image_metrics(
    scores: ArrayLike, labels: ArrayLike, *, promised_false_alarm_rate: float | None
) -> dict[str, Any]:
    """The ceilings under their report keys, and `reasons` for those that are None.

    `oracle_image_f1` is the best F1 of any threshold and `oracle_threshold` the
    highest that reaches it. `oracle_recall_at_promise` is the recall at the lowest
    threshold that flags at most the promised share of these normals. An image is
    flagged when `score >= threshold`, both float32, so tied images go together.

    Args:
        scores: (n,) finite, higher means more anomalous; read as float32.
        labels: (n,) 0 for normal, 1 for anomalous.
        promised_false_alarm_rate: of the calibrated threshold, 0..1; None where it
            promises nothing.

    Raises:
        ValueError: shapes differ, a score is not finite, a label is neither 0 nor 1,
            or the rate is outside 0..1.
    """
    scores_f32, anomalous = check_scores_and_labels(scores, labels)
    rate = promised_false_alarm_rate
    if rate is not None and not 0 <= rate <= 1:
        raise ValueError(f"promised_false_alarm_rate must be in 0..1: found {rate!r}")

    n_anomalous = int(anomalous.sum())
    n_normal = len(anomalous) - n_anomalous
    report: dict[str, Any] = {
        "oracle_image_f1": None,
        "oracle_threshold": None,
        "oracle_recall_at_promise": None,
    }
    if n_normal == 0 or n_anomalous == 0:
        reason = (
            "needs images of both classes: "
            f"found {n_normal} normal and {n_anomalous} anomalous"
        )
        return report | {"reasons": dict.fromkeys(report, reason)}

    best_f1, threshold = _best_f1(scores_f32, anomalous)
    report["oracle_image_f1"], report["oracle_threshold"] = best_f1, threshold
    if rate is None:
        reason = "the calibrated threshold promises no false-alarm rate"
        return report | {"reasons": {"oracle_recall_at_promise": reason}}
    report["oracle_recall_at_promise"] = _recall_at(rate, scores_f32, anomalous)
    return report | {"reasons": {}}


def _best_f1(
    scores_f32: NDArray[np.float32], anomalous: NDArray[np.bool_]
) -> tuple[float, float]:
    """The best F1 and the highest threshold that reaches it."""
    thresholds = np.unique(scores_f32)  # rising
    n_flagged = _at_least(thresholds, scores_f32)
    n_hits = _at_least(thresholds, scores_f32[anomalous])
    f1 = 2 * n_hits / (n_flagged + int(anomalous.sum()))
    best = len(f1) - 1 - int(np.argmax(f1[::-1]))  # the last of equal ones
    return float(f1[best]), float(thresholds[best])


def _recall_at(
    rate: float, scores_f32: NDArray[np.float32], anomalous: NDArray[np.bool_]
) -> float:
    """Recall at the lowest threshold that flags at most this share of the normals."""
    normals, anomalies = scores_f32[~anomalous], scores_f32[anomalous]
    levels = np.unique(normals)  # rising
    # Compared as shares: 0.29 * 100 is below 29 in float64, 29 / 100 is 0.29.
    forbidden = levels[_at_least(levels, normals) / len(normals) > rate]
    if forbidden.size == 0:
        return 1.0
    # Just above the highest level that flags too many: a float32 further.
    return float((anomalies > forbidden[-1]).mean())


def _at_least(
    thresholds: NDArray[np.float32], scores_f32: NDArray[np.float32]
) -> NDArray[np.int64]:
    """How many scores are at or above each threshold."""
    below: NDArray[np.int64] = np.searchsorted(
        np.sort(scores_f32), thresholds, side="left"
    )
    return len(scores_f32) - below
