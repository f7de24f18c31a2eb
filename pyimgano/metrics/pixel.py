"""Pixel metrics over any number of anomaly maps, in bounded memory.

Every pixel's score goes into a histogram, of normal pixels, of defect pixels, and of
region weights: a pixel of a defect region R (8-connected) adds 1/|R|. The share of R
at or above a threshold is the sum of its weights there, so the mean overlap over all
regions (PRO) is one tail sum of that third histogram, and no map has to be kept.

Bins are runs of neighbouring float32 numbers, equal in relative width, so neither a
score range nor a unit has to be known. They start as narrow as float32 itself and
double in width only when the scores seen span more than 2**20 of them; the width
depends on the lowest and the highest score alone, not on the order of the maps. What
a bin's width can hide is computed from its contents and stated beside each metric.

AUPRO: Bergmann, Batzner, Fauser, Sattlegger, Steger, "The MVTec Anomaly Detection
Dataset", IJCV 129 (2021) 1038-1059, section on evaluation metrics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["PixelMetrics", "PixelResult"]

_MAX_BINS = 2**20  # 3 histograms of 8 bytes: 25 MB at most
_NORMAL, _DEFECT, _REGION = range(3)  # rows of the histogram
_AUPRO_LIMITS = {"aupro_0.3": 0.3, "aupro_0.05": 0.05}
_SIGN_BIT = np.uint32(0x80000000)


@dataclass(frozen=True, slots=True)
class PixelResult:
    """Pixel metrics in 0..1; None where the data cannot define one.

    `error_bounds` holds for each metric that is a number how far binning can have
    moved it at most from the value of the unbinned scores (float64 rounding, about
    1e-12, aside), and `reasons` for each that is None one sentence, both under the
    metric's report key. True ties cannot be told from scores that merely share a bin,
    so maps with many equal scores have a bound far above their error.
    """

    pixel_auroc: float | None
    aupro_0_3: float | None
    aupro_0_05: float | None
    n_images: int
    n_defect_regions: int
    error_bounds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, float | int | None]:
        """Metrics under their report keys, each with `<key>_error_bound` beside it."""
        metrics = {
            "pixel_auroc": self.pixel_auroc,
            "aupro_0.3": self.aupro_0_3,
            "aupro_0.05": self.aupro_0_05,
        }
        report: dict[str, float | int | None] = {}
        for key, value in metrics.items():
            report[key] = value
            report[f"{key}_error_bound"] = self.error_bounds.get(key)
        report["n_images"] = self.n_images
        report["n_defect_regions"] = self.n_defect_regions
        return report


class PixelMetrics:
    """Gathers anomaly maps and masks one image at a time.

    The order of the images does not matter (beyond float64 rounding), nor does their
    number: memory stays below 100 MB plus some ten times the map being added.
    """

    def __init__(self) -> None:
        self._histogram = _Histogram()
        self._n_images = 0
        self._n_defect_regions = 0

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
        codes = _ordered_codes(anomaly_map_f32)  # (H, W)
        self._histogram.cover(int(codes.min()), int(codes.max()))
        self._n_images += 1

        if not mask.any():
            self._histogram.add(_NORMAL, codes)
            return
        weights, n_regions = _region_weights(mask)
        self._histogram.add(_NORMAL, codes[~mask])
        self._histogram.add(_DEFECT, codes[mask])
        self._histogram.add(_REGION, codes[mask], weights)
        self._n_defect_regions += n_regions

    def result(self) -> PixelResult:
        """The metrics of all images added so far; more may be added afterwards."""
        rows = self._histogram.occupied()[:, ::-1]  # (3, bins), score falling
        normal, defect, region = rows
        reason = self._why_undefined(float(normal.sum()))
        if reason is not None:
            return PixelResult(
                pixel_auroc=None,
                aupro_0_3=None,
                aupro_0_05=None,
                n_images=self._n_images,
                n_defect_regions=self._n_defect_regions,
                reasons=dict.fromkeys(("pixel_auroc", *_AUPRO_LIMITS), reason),
            )

        values, bounds = {}, {}
        values["pixel_auroc"], bounds["pixel_auroc"] = _auroc(normal, defect)
        for key, limit in _AUPRO_LIMITS.items():
            values[key], bounds[key] = _aupro(normal, region, limit)
        if self._histogram.is_exact:
            bounds = dict.fromkeys(bounds, 0.0)
        return PixelResult(
            pixel_auroc=values["pixel_auroc"],
            aupro_0_3=values["aupro_0.3"],
            aupro_0_05=values["aupro_0.05"],
            n_images=self._n_images,
            n_defect_regions=self._n_defect_regions,
            error_bounds=bounds,
        )

    def _why_undefined(self, n_normal_pixels: float) -> str | None:
        if self._n_images == 0:
            return "no image was added"
        if self._n_defect_regions == 0:
            return f"no defect pixel in the masks of {self._n_images} images"
        if n_normal_pixels == 0:
            return f"no normal pixel in the masks of {self._n_images} images"
        return None


class _Histogram:
    """Three histograms over ordered codes with common bins, `code >> shift`.

    Counts are float64 like the weights: exact up to 2**53 pixels.
    """

    def __init__(self) -> None:
        self._low_code, self._high_code = 2**32, -1  # nothing covered yet
        self._shift = 0
        self._first_bin = 0
        self._rows: NDArray[np.float64] = np.zeros((3, 0))  # (3, bins)

    def cover(self, low_code: int, high_code: int) -> None:
        """Make bins for these codes; all get wider if they would be too many."""
        if self._low_code <= low_code and high_code <= self._high_code:
            return
        self._low_code = low_code = min(low_code, self._low_code)
        self._high_code = high_code = max(high_code, self._high_code)

        shift = self._shift
        while (high_code >> shift) - (low_code >> shift) >= _MAX_BINS:
            shift += 1
        first_bin = low_code >> shift
        n_bins = (high_code >> shift) - first_bin + 1

        # An old bin lies in one new bin, because both start at multiples of a power
        # of two; so the outcome is as if the final width had been used throughout.
        old_bins = np.arange(self._rows.shape[1]) + self._first_bin
        new_bins = (old_bins >> (shift - self._shift)) - first_bin
        rows = np.zeros((3, n_bins))
        if new_bins.size:
            for row, old_row in zip(rows, self._rows, strict=True):
                row[:] = np.bincount(new_bins, old_row, minlength=n_bins)
        self._rows = rows
        self._shift, self._first_bin = shift, first_bin

    def add(
        self,
        row: int,
        codes: NDArray[np.uint32],
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        """Add covered codes to a row, each with weight 1 unless given."""
        if codes.size == 0:
            return
        bins = (codes.ravel() >> self._shift) - self._first_bin
        # Counting from the lowest bin used spares a pass over all 2**20 an image.
        start = int(bins.min())
        sums = np.bincount(bins - start, weights)
        self._rows[row, start : start + len(sums)] += sums

    @property
    def is_exact(self) -> bool:
        """Whether each bin still is one float32 number."""
        return self._shift == 0

    def occupied(self) -> NDArray[np.float64]:
        """The rows without bins that are empty in all of them, scores rising."""
        return self._rows[:, self._rows.any(axis=0)]


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


def _ordered_codes(values_f32: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Integers in the order of the floats, equal where the floats are equal.

    The bits of floats >= 0 already rise with the value; those of negative floats
    fall, so they are inverted, and the sign bit puts them below.
    """
    bits = (values_f32 + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0
    inverted = (bits >> 31).view(np.uint32)  # all ones for negative floats, else 0
    codes: NDArray[np.uint32] = bits.view(np.uint32) ^ (inverted | _SIGN_BIT)
    return codes


def _region_weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """1/|R| for each defect pixel in row-major order, and the number of regions R."""
    import cv2

    # Label 0 is what is no defect.
    n_labels, regions = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    region_of_pixel = regions[mask]
    areas = np.bincount(region_of_pixel, minlength=n_labels)  # (n_labels,)
    return 1.0 / areas[region_of_pixel], n_labels - 1


def _auroc(
    normal: NDArray[np.float64], defect: NDArray[np.float64]
) -> tuple[float, float]:
    """AUROC and its error bound from counts (bins,), scores falling.

    Pairs within a bin count half, as ties do; in truth each may count 0 or 1.
    """
    pairs = normal.sum() * defect.sum()
    normal_below = normal.sum() - np.cumsum(normal)
    half_tied = 0.5 * (defect * normal).sum()
    return (
        float(((defect * normal_below).sum() + half_tied) / pairs),
        float(half_tied / pairs),
    )


def _aupro(
    normal: NDArray[np.float64], region: NDArray[np.float64], limit: float
) -> tuple[float, float]:
    """Area under mean overlap against FPR in [0, limit] over `limit`; error bound.

    Both curves, the binned and the exact, are non-decreasing and meet at the bin
    edges, so within a bin they stay in one rectangle. The binned one halves it.

    Args:
        normal: (bins,) counts of normal pixels, scores falling.
        region: (bins,) sums of 1/|R|; they add up to the number of regions.
        limit: largest FPR, 0 < limit < 1.
    """
    fpr = np.concatenate([[0.0], np.cumsum(normal)]) / normal.sum()
    pro = np.concatenate([[0.0], np.cumsum(region)])
    pro /= pro[-1]
    end = int(np.searchsorted(fpr, limit, side="right"))  # fpr[end - 1] <= limit
    share = (limit - fpr[end - 1]) / (fpr[end] - fpr[end - 1])
    pro_at_limit = pro[end - 1] + share * (pro[end] - pro[end - 1])

    fpr_steps = np.diff(np.append(fpr[:end], limit))
    pro_means = (pro[:end] + np.append(pro[1:end], pro_at_limit)) / 2
    # In the bin cut by the limit the exact curve may already have risen to pro[end].
    overshoots = np.maximum(pro[1 : end + 1] - pro_means, pro_means - pro[:end])
    return (
        float((fpr_steps * pro_means).sum() / limit),
        float((fpr_steps * overshoots).sum() / limit),
    )
