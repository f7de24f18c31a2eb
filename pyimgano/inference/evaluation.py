"""Measures one engine on labelled pictures, one prediction at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.infer_config import InputRules, Thresholds
from pyimgano_runtime.predictor import Prediction

from ..datasets.images import Image, Mask, read_mask
from ..datasets.rows import ManifestRow
from ..metrics import (
    PixelIntervals,
    PixelMetrics,
    image_metric_intervals,
    image_metrics,
)
from ..metrics.oracle import oracle_image_metrics

PIXEL_KEYS: Final = (
    *("pixel_auroc", "aupro_0.3", "aupro_0.05", "seg_f1"),
    "oracle_seg_f1",
)


class PixelTruth:
    """Which test pictures count for pixel metrics, and why the others do not.

    Anomalies without a mask, or with one that marks nothing, are left out; without any
    mask, or without anomalies, pixel metrics are off and `reason` says why.
    """

    def __init__(
        self, rows: Sequence[ManifestRow], *, wanted: bool, has_map: bool
    ) -> None:
        anomalies = [row for row in rows if row.label == 1]
        self.n_with_mask = sum(row.mask_path is not None for row in anomalies)
        self.n_without_mask = len(anomalies) - self.n_with_mask
        self._empty: set[str] = set()  # anomalies whose mask marks nothing
        self.reason: str | None = None
        if not wanted:
            self.reason = "evaluation.pixel_metrics is false"
        elif not has_map:
            self.reason = "DETECTOR_HAS_NO_MAP: this detector gives image scores only"
        elif not anomalies:
            self.reason = "the test rows hold no anomalies"
        elif not self.n_with_mask:
            self.reason = f"none of the {len(anomalies)} test anomalies has a mask"

    @property
    def enabled(self) -> bool:
        """Whether pixel metrics are measured at all."""
        return self.reason is None

    def mask(self, row: ManifestRow, image: Image, rules: InputRules) -> Mask | None:
        """Give the row's mask at the picture's size; None if it does not count."""
        height, width = image.shape[:2]
        if not self.enabled:
            return None
        if row.label == 0:
            return np.zeros((height, width), dtype=np.bool_)
        size = (height, width)
        mask = read_mask(row.mask_path, size, rules, above=row.mask_above)
        if mask is None and row.mask is not None:
            self._empty.add(row.image)
            if len(self._empty) == self.n_with_mask:
                self.reason = (
                    f"all {self.n_with_mask} masks of test anomalies are empty"
                )
        return mask

    def warnings(self) -> list[str]:
        """Say which anomalies did not count although they have a mask."""
        if not self._empty:
            return []
        some = ", ".join(sorted(self._empty)[:3])
        more = f" and {len(self._empty) - 3} more" if len(self._empty) > 3 else ""
        return [
            f"MASK_EMPTY: {len(self._empty)} anomalies are left out of pixel metrics, "
            f"for their masks mark nothing ({some}{more}); make the defect 255, or "
            "state mask_above in the manifest"
        ]

    def to_json(self) -> dict[str, Any]:
        """Give what the report says about pixel metrics."""
        return {
            "enabled": self.enabled,
            "reason": self.reason,
            "anomalies_with_mask": self.n_with_mask - len(self._empty),
            "anomalies_without_mask": self.n_without_mask,
            "anomalies_with_empty_mask": len(self._empty),
        }


class Evaluation:
    """Collects predictions of one engine and gives the report keys.

    Args:
        thresholds: the calibrated ones, by which F1, recall and false alarms count.
        n_resamples: of each interval; 0 gives none. Pixel metrics take 200 at most.
        seed: of the resampling.
    """

    def __init__(
        self, truth: PixelTruth, thresholds: Thresholds, *, n_resamples: int, seed: int
    ) -> None:
        self._truth = truth
        self._thresholds = thresholds
        self._n_resamples, self._seed = n_resamples, seed
        self._pixels = PixelMetrics(thresholds.pixel)
        self._pixel_intervals = PixelIntervals(
            thresholds.pixel, n_resamples=n_resamples, seed=seed
        )
        self.scores: list[float] = []
        self.labels: list[int] = []
        self.infer_ms: list[float] = []

    def add(self, row: ManifestRow, prediction: Prediction, mask: Mask | None) -> None:
        """Count one picture; `mask` is None where it does not count for pixels."""
        self.scores.append(prediction.score)
        self.labels.append(row.label)
        self.infer_ms.append(prediction.ms["infer"])
        if mask is not None and prediction.anomaly_map is not None:
            height, width = mask.shape
            on_mask = map_to_image(
                prediction.anomaly_map, (height, width), mode=prediction.map_mode
            )
            self._pixels.add(on_mask, mask)
            self._pixel_intervals.add(on_mask, mask, group=row.group)

    def report(self) -> dict[str, Any]:
        """Give the metrics under their report keys, intervals as `<key>_ci95`."""
        threshold = self._thresholds.image
        promised = self._thresholds.provenance["image"].used_false_alarm_rate
        scores = np.asarray(self.scores, dtype=np.float32)
        labels = np.asarray(self.labels, dtype=np.int64)
        image = image_metrics(scores, labels, threshold=threshold)
        oracle = oracle_image_metrics(
            scores, labels, promised_false_alarm_rate=promised
        )
        report: dict[str, Any] = dict(image.to_json())
        reasons = dict(image.reasons) | oracle.pop("reasons")
        report |= oracle
        if self._n_resamples > 0:
            intervals = image_metric_intervals(
                scores,
                labels,
                threshold=threshold,
                generator=np.random.default_rng(self._seed),
                n_resamples=self._n_resamples,
            )
            report |= {key: value for key, value in intervals.items() if value}
        for key in PIXEL_KEYS:
            report[key] = None
            if not self._truth.enabled:
                reasons[key] = str(self._truth.reason)
        if self._truth.enabled:
            pixels = self._pixels.result()
            values = pixels.to_json()
            report["pixel_images"] = values.pop("n_images")
            report["defect_regions"] = values.pop("n_defect_regions")
            report |= values | self._pixel_intervals.to_json(values)
            reasons |= pixels.reasons
        report["latency_ms"] = latency(self.infer_ms)
        report["reasons"] = reasons
        return report


def latency(infer_ms: Sequence[float]) -> dict[str, float] | None:
    """Give p50, p95 and p99 of per-picture times in milliseconds."""
    if not infer_ms:
        return None
    p50, p95, p99 = np.percentile(np.asarray(infer_ms), [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}
