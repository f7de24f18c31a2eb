"""Pixel metrics over any number of anomaly maps, in bounded memory.

Every pixel's score goes into a histogram, of normal pixels, of defect pixels, and of
region weights: a pixel of a defect region R (8-connected) adds 1/|R|. The share of R
at or above a threshold is the sum of its weights there, so the mean overlap over all
regions (PRO) is one tail sum of that third histogram, and no map has to be kept.

Bins are as narrow as float32 itself until the scores span too many
(`score_histogram`). What a bin's width can hide is computed from its contents and
stated beside each metric. SegF1 needs no bins: pixels at or above the one threshold
are counted as they come.

AUPRO: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection
Dataset", IJCV 129 (2021) 1038-1059, section on evaluation metrics. SegF1: Heckler-Kram
et al., "The MVTec AD 2 Dataset", 2025.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .binned_curves import binned_aupro, binned_auroc, binned_best_f1
from .image import check_threshold
from .score_histogram import ScoreHistogram, ordered_codes

__all__ = ["PixelMetrics", "PixelResult"]

_MAX_BINS = 2**20  # 3 histograms of 8 bytes: 25 MB at most
_NORMAL, _DEFECT, _REGION = range(3)  # rows of the histogram
AUPRO_LIMITS = {"aupro_0.3": 0.3, "aupro_0.05": 0.05}
_BINNED = ("pixel_auroc", *AUPRO_LIMITS, "oracle_seg_f1")  # metrics with a bound
_BLOCK_PIXELS = 2**20  # counted at a time: keeps temporaries small for any map


@dataclass(frozen=True, slots=True)
class PixelResult:
    """Pixel metrics in 0..1; None where the data cannot define one.

    `seg_f1` is the F1 of all pixels at the given threshold and exact. `oracle_seg_f1`
    is the best F1 that any one threshold reaches on these very pixels, a ceiling that
    no calibration sees; the true one is never smaller, and larger by its bound at most.

    `error_bounds` holds for each metric that is a number how far binning can have
    moved it at most from the value of the unbinned scores (float64 rounding, about
    1e-12, aside), and `reasons` for each that is None one sentence, both under the
    metric's report key. True ties cannot be told from scores that merely share a bin,
    so maps with many equal scores have a bound far above their error.
    """

    pixel_auroc: float | None
    aupro_0_3: float | None
    aupro_0_05: float | None
    seg_f1: float | None
    oracle_seg_f1: float | None
    n_images: int
    n_defect_regions: int
    error_bounds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, float | int | None]:
        """Metrics under their report keys, binned ones with `<key>_error_bound`."""
        metrics = {
            "pixel_auroc": self.pixel_auroc,
            "aupro_0.3": self.aupro_0_3,
            "aupro_0.05": self.aupro_0_05,
            "oracle_seg_f1": self.oracle_seg_f1,
        }
        report: dict[str, float | int | None] = {}
        for key, value in metrics.items():
            report[key] = value
            report[f"{key}_error_bound"] = self.error_bounds.get(key)
        report["seg_f1"] = self.seg_f1
        report["n_images"] = self.n_images
        report["n_defect_regions"] = self.n_defect_regions
        return report


class PixelMetrics:
    """Gathers anomaly maps and masks one image at a time.

    The order of the images does not matter (beyond float64 rounding), nor does their
    number: memory stays below 100 MB plus some twice the map being added.

    Args:
        threshold: the calibrated pixel threshold, read as float32; a pixel is called
            defective where its score is >= it. Without one there is no `seg_f1`.

    Raises:
        ValueError: the threshold is not finite as float32.
    """

    def __init__(self, threshold: float | None = None) -> None:
        self._threshold = None if threshold is None else check_threshold(threshold)
        self._histogram = ScoreHistogram(3, max_bins=_MAX_BINS)
        self._n_images = 0
        self._n_defect_regions = 0
        self._n_defect = self._n_flagged = self._n_hits = 0  # pixels, for SegF1

    def add(
        self, anomaly_map_f32: NDArray[np.float32], mask: NDArray[np.bool_]
    ) -> None:
        """Add one image; a refused image leaves nothing behind.

        Args:
            anomaly_map_f32: (H, W) finite, higher means more anomalous, at the
                resolution of the mask.
            mask: (H, W) True on defects; all False for a normal image.

        Raises:
            TypeError: the map is not float32 or the mask not bool.
            ValueError: the shapes are not one (H, W), there is no pixel, or a score
                is NaN or infinite.
        """
        _check_image(anomaly_map_f32, mask)
        regions, weights = region_weights(mask)
        extremes = np.stack([anomaly_map_f32.min(), anomaly_map_f32.max()])
        low_code, high_code = ordered_codes(extremes).tolist()
        self._histogram.cover(low_code, high_code)
        self._n_images += 1
        self._n_defect_regions += len(weights) - 1

        for rows in _row_blocks(*mask.shape):
            self._count_flagged(anomaly_map_f32[rows], mask[rows])
            codes, defect = ordered_codes(anomaly_map_f32[rows]), mask[rows]
            self._histogram.add(_NORMAL, codes[~defect])
            self._histogram.add(_DEFECT, codes[defect])
            self._histogram.add(_REGION, codes[defect], weights[regions[rows][defect]])

    def _count_flagged(
        self, scores_f32: NDArray[np.float32], defect: NDArray[np.bool_]
    ) -> None:
        self._n_defect += int(np.count_nonzero(defect))
        if self._threshold is None:
            return
        flagged = scores_f32 >= self._threshold
        self._n_flagged += int(np.count_nonzero(flagged))
        self._n_hits += int(np.count_nonzero(flagged & defect))

    def result(self) -> PixelResult:
        """The metrics of all images added so far; more may be added afterwards."""
        values: dict[str, float] = {}
        bounds: dict[str, float] = {}
        reasons: dict[str, str] = {}
        rows = self._histogram.occupied()[:, ::-1]  # (3, bins), score falling
        normal, defect, region = rows

        reason = self._why_no_curve(n_normal_pixels=float(normal.sum()))
        if reason is None:
            values["pixel_auroc"], bounds["pixel_auroc"] = binned_auroc(normal, defect)
            for key, limit in AUPRO_LIMITS.items():
                values[key], bounds[key] = binned_aupro(normal, region, limit)
            best_f1, hidden = binned_best_f1(normal, defect)
            values["oracle_seg_f1"], bounds["oracle_seg_f1"] = best_f1, hidden
        else:
            reasons = dict.fromkeys(_BINNED, reason)
        if self._histogram.is_exact:
            bounds = dict.fromkeys(bounds, 0.0)

        reason = self._why_no_seg_f1()
        if reason is None:
            # 2 TP / (2 TP + FP + FN), with TP + FP flagged and TP + FN defective.
            values["seg_f1"] = 2 * self._n_hits / (self._n_flagged + self._n_defect)
        else:
            reasons["seg_f1"] = reason
        return PixelResult(
            pixel_auroc=values.get("pixel_auroc"),
            aupro_0_3=values.get("aupro_0.3"),
            aupro_0_05=values.get("aupro_0.05"),
            seg_f1=values.get("seg_f1"),
            oracle_seg_f1=values.get("oracle_seg_f1"),
            n_images=self._n_images,
            n_defect_regions=self._n_defect_regions,
            error_bounds=bounds,
            reasons=reasons,
        )

    def _why_no_curve(self, *, n_normal_pixels: float) -> str | None:
        reason = self._why_no_defect()
        if reason is None and n_normal_pixels == 0:
            reason = f"no normal pixel in the masks of {self._n_images} images"
        return reason

    def _why_no_seg_f1(self) -> str | None:
        # Defined without a normal pixel, too: it still falls with each defect missed.
        if self._threshold is None:
            return "no pixel threshold was given"
        return self._why_no_defect()

    def _why_no_defect(self) -> str | None:
        if self._n_images == 0:
            return "no image was added"
        if self._n_defect_regions == 0:
            return f"no defect pixel in the masks of {self._n_images} images"
        return None


def _check_image(anomaly_map_f32: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
    if anomaly_map_f32.dtype != np.float32 or mask.dtype != np.bool_:
        raise TypeError(
            "expected a float32 anomaly map and a bool mask: "
            f"found {anomaly_map_f32.dtype} and {mask.dtype}"
        )
    if anomaly_map_f32.ndim != 2 or anomaly_map_f32.shape != mask.shape:
        raise ValueError(
            "anomaly map and mask must have the same shape (H, W): "
            f"found {anomaly_map_f32.shape} and {mask.shape}"
        )
    if anomaly_map_f32.size == 0:
        raise ValueError(f"the anomaly map has no pixel: shape {mask.shape}")
    n_bad = anomaly_map_f32.size - int(np.isfinite(anomaly_map_f32).sum())
    if n_bad:
        raise ValueError(
            f"{n_bad} of {mask.size} scores in the anomaly map are NaN or infinite"
        )


def region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The region number of each pixel (H, W) int32, and 1/|R| of each region R.

    Number 0 is what is no defect; its weight is never used.
    """
    import cv2

    _, regions, stats, _ = cv2.connectedComponentsWithStats(
        mask.view(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA]  # (n_regions + 1,)
    return regions, 1.0 / np.maximum(areas, 1)  # areas[0] is 0 where all is defective


def _row_blocks(height: int, width: int) -> Iterator[slice]:
    """Slices of whole rows that cover the image, about _BLOCK_PIXELS each."""
    step = max(1, _BLOCK_PIXELS // width)
    for start in range(0, height, step):
        yield slice(start, start + step)
