"""How far a second engine's scores and maps lie from those of the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.check import difference_of_range, relative_difference
from pyimgano_runtime.thresholds import is_anomaly

Output: TypeAlias = tuple[float, npt.NDArray[np.float32] | None]  # score and map


class EngineDifferences:
    """Compares two engines picture by picture; keeps a few numbers of each.

    Every difference is a finite number, as JSON needs: a score or map that is not
    finite is refused, for against NaN no difference is large, and two maps are
    subtracted in float64, where no float32 difference overflows.

    Args:
        threshold: the deployed image threshold, read as float32.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = float(np.float32(threshold))
        self._scores: list[tuple[float, float]] = []  # reference, candidate
        self._flips: list[dict[str, Any]] = []
        self._map_diffs: list[float] = []  # largest of each picture
        self._map_diffs_of_range: list[float] = []
        self._map_rank_correlations: list[float] = []

    def add(self, name: str, reference: Output, candidate: Output) -> None:
        """Compare one picture; a refused one leaves nothing behind.

        Maps are compared where both engines give one.

        Raises:
            ValueError: a score or map is NaN or infinite, or the maps' shapes differ.
        """
        (score, anomaly_map), (other, other_map) = reference, candidate
        score, other = float(score), float(other)
        _check_finite(name, "reference", score, anomaly_map)
        _check_finite(name, "candidate", other, other_map)
        if anomaly_map is not None and other_map is not None:
            self._add_maps(name, anomaly_map, other_map)

        self._scores.append((score, other))
        if is_anomaly(score, self._threshold) != is_anomaly(other, self._threshold):
            distance = abs(score - self._threshold)
            self._flips.append(
                {
                    "input": name,
                    "reference": score,
                    "score": other,
                    "distance": distance,
                }
            )

    def _add_maps(
        self,
        name: str,
        anomaly_map: npt.NDArray[np.float32],
        other_map: npt.NDArray[np.float32],
    ) -> None:
        if anomaly_map.shape != other_map.shape:
            raise ValueError(
                f"{name}: the engines' maps must have the same shape: found "
                f"{anomaly_map.shape} and {other_map.shape}"
            )
        difference = np.abs(anomaly_map.astype(np.float64) - other_map)
        self._map_diffs.append(float(difference.max()))
        self._map_diffs_of_range.append(difference_of_range(other_map, anomaly_map))
        correlation = _spearman(anomaly_map.ravel(), other_map.ravel())
        if correlation is not None:
            self._map_rank_correlations.append(correlation)

    def to_json(self) -> dict[str, Any]:
        """Give the differences under their report keys; null where nothing says one.

        `distance` of a flip and `min_threshold_distance` are of the reference's score
        to the threshold. `p99_abs_map_diff` is over the largest difference of each
        picture, `map_spearman` the lowest of any picture.
        """
        pairs = np.asarray(self._scores, np.float64).reshape(-1, 2)
        score_diffs = np.abs(pairs[:, 0] - pairs[:, 1]).tolist()
        distances = np.abs(pairs[:, 0] - self._threshold).tolist()
        relative = [relative_difference(other, score) for score, other in self._scores]
        few = len(pairs) < 3  # two pictures are in order or not: that says little
        return {
            "label_flips": len(self._flips),
            "flipped_images": [flip["input"] for flip in self._flips],
            "flips": [dict(flip) for flip in self._flips],
            "min_threshold_distance": min(distances, default=None),
            "max_abs_score_diff": max(score_diffs, default=None),
            "p99_abs_score_diff": _p99(score_diffs),
            "max_rel_score_diff": max(relative, default=None),
            "score_spearman": None if few else _spearman(pairs[:, 0], pairs[:, 1]),
            "max_abs_map_diff": max(self._map_diffs, default=None),
            "p99_abs_map_diff": _p99(self._map_diffs),
            "max_map_diff_of_range": max(self._map_diffs_of_range, default=None),
            "map_spearman": min(self._map_rank_correlations, default=None),
        }


def _check_finite(
    name: str, side: str, score: float, anomaly_map: npt.NDArray[np.float32] | None
) -> None:
    if not math.isfinite(score):
        raise ValueError(f"{name}: the {side} score is not finite: found {score!r}")
    if anomaly_map is None:
        return
    if anomaly_map.size == 0:
        raise ValueError(f"{name}: the {side} map has no pixel")
    n_bad = anomaly_map.size - int(np.isfinite(anomaly_map).sum())
    if n_bad:
        raise ValueError(
            f"{name}: {n_bad} of {anomaly_map.size} pixels of the {side} map are NaN "
            "or infinite"
        )


def _spearman(reference: npt.NDArray[Any], candidate: npt.NDArray[Any]) -> float | None:
    """Rank correlation of two (n,); None where both are constant.

    Where one alone is constant, there is an order and the other has lost it: 0. Left
    out, such a picture would make the lowest correlation look better.
    """
    # Comes with scikit-learn; slow to import.
    from scipy.stats import spearmanr

    constant = [bool((side == side[0]).all()) for side in (reference, candidate)]
    if all(constant):
        return None
    if any(constant):
        return 0.0
    value = float(spearmanr(reference, candidate).statistic)
    return min(1.0, max(-1.0, value))  # its sums may end a rounding error outside


def _p99(values: Sequence[float]) -> float | None:
    """The 99th percentile, interpolated; None of nothing."""
    return float(np.percentile(values, 99)) if values else None
