"""95 % intervals of pixel metrics, in bounded memory.

The Poisson bootstrap (Chamandy, Muralidharan, Najmi, Naidu, "Estimating uncertainty for
massive data streams", Google, 2012): instead of drawing n pictures out of n, each
picture counts a Poisson(1) number of times in every resample, on its own. So pictures
can pass by once. The percentiles of the resampled metric are the interval, as for image
metrics (`bootstrap`). Pictures are resampled, not pixels, which depend on each other;
pictures of one group count together.

Each resample has three histograms, as in `pixel`, of far fewer bins. What wide bins
hide moves all resamples alike, and the metric itself too where it is counted in the
same bins; so an interval is moved by what the bins took from the metric.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .binned_curves import binned_aupro, binned_auroc
from .bootstrap import MIN_RESAMPLES
from .pixel import AUPRO_LIMITS, region_weights
from .score_histogram import ScoreHistogram, ordered_codes

__all__ = ["PixelIntervals"]

MAX_BINS = 2048
MAX_RESAMPLES = 200  # 3 histograms each: 10 MB in all
_TAILS = (0.025, 0.975)


class PixelIntervals:
    """Gathers anomaly maps and masks one picture at a time.

    The order of the pictures does not matter: a picture's draws follow from its group.

    Args:
        threshold: the calibrated pixel threshold; None: no interval of `seg_f1`.
        n_resamples: more than 200 count as 200; 0 gives no interval.
    """

    def __init__(
        self, threshold: float | None, *, n_resamples: int, seed: int = 0
    ) -> None:
        self._threshold = None if threshold is None else np.float32(threshold)
        self._n = min(n_resamples, MAX_RESAMPLES)
        self._seed = seed
        # The first counts each picture once; the others are the resamples.
        self._histogram = ScoreHistogram(3 * (1 + self._n), max_bins=MAX_BINS)
        self._flags = np.zeros((1 + self._n, 3))  # flagged, hits, defect pixels
        self._groups_with_defect: set[str] = set()

    def add(
        self,
        anomaly_map_f32: NDArray[np.float32],
        mask: NDArray[np.bool_],
        *,
        group: str,
    ) -> None:
        """Add one picture that `PixelMetrics.add` takes.

        Args:
            group: pictures of one part have the same; else a name of the picture's own.
        """
        if self._n < MIN_RESAMPLES:
            return
        times = np.append(1.0, self._draws(group))  # (1 + n,)
        codes = ordered_codes(anomaly_map_f32)
        self._histogram.cover(int(codes.min()), int(codes.max()))
        normal, defect, region = self._rows_of_each()
        any_defect = bool(mask.any())
        if any_defect:
            self._groups_with_defect.add(group)
            regions, weights = region_weights(mask)
            self._histogram.add_times(normal, times, codes[~mask])
            self._histogram.add_times(defect, times, codes[mask])
            shares = weights[regions[mask]]
            self._histogram.add_times(region, times, codes[mask], shares)
        else:
            self._histogram.add_times(normal, times, codes)
        if self._threshold is not None:
            flagged = anomaly_map_f32 >= self._threshold
            counts = [np.count_nonzero(p) for p in (flagged, flagged & mask, mask)]
            self._flags += np.outer(times, np.asarray(counts, dtype=np.float64))

    def to_json(self, metrics: Mapping[str, float | None]) -> dict[str, list[float]]:
        """Give `<key>_ci95: [low, high]`; without a key where none can be given.

        Two groups with a defect are the least that differ from each other.

        Args:
            metrics: what `PixelMetrics` found, by key.
        """
        if len(self._groups_with_defect) < 2:
            return {}
        found = self._resampled()
        intervals = {}
        for key, (counted_once, *values) in found.items():
            exact = metrics[key]
            if exact is not None and len(values) >= MIN_RESAMPLES:
                hidden = exact - counted_once
                ends = np.quantile(np.asarray(values), _TAILS) + hidden
                intervals[f"{key}_ci95"] = np.clip(ends, 0.0, 1.0).tolist()
        return intervals

    def _resampled(self) -> dict[str, list[float]]:
        """Give each metric, of the pictures once and of each resample that has it."""
        found: dict[str, list[float]] = {}
        falling = self._histogram.rows()[:, ::-1]  # (3 (1 + n), bins)
        kinds = [falling[rows] for rows in self._rows_of_each()]
        for normal, defect, region in zip(*kinds, strict=True):
            if not normal.any() or not defect.any():
                continue
            found.setdefault("pixel_auroc", []).append(binned_auroc(normal, defect)[0])
            for key, limit in AUPRO_LIMITS.items():
                value = binned_aupro(normal, region, limit)[0]
                found.setdefault(key, []).append(value)
        if self._threshold is not None:
            flagged, hits, wanted = self._flags[self._flags[:, 2] > 0].T
            found["seg_f1"] = (2 * hits / (flagged + wanted)).tolist()
        return found

    def _rows_of_each(self) -> list[slice]:
        """Give the histogram's rows of normal pixels, defect pixels, region weights."""
        n = 1 + self._n
        return [slice(kind * n, (kind + 1) * n) for kind in range(3)]

    def _draws(self, group: str) -> NDArray[np.float64]:
        digest = hashlib.sha256(group.encode()).digest()[:8]
        generator = np.random.default_rng([self._seed, int.from_bytes(digest, "big")])
        return generator.poisson(1.0, self._n).astype(np.float64)
