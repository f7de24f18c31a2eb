"""Judges a category's test pictures: metrics, a row for each, and the false alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.calibration import small_n_message
from pyimgano_runtime.infer_config import RateBounds, Thresholds
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import scored_row

from ..calibration import promise_warning
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from ..inference.evaluation import Evaluation, PixelTruth
from .config import WorkbenchConfig


def _by_regions(
    policy: str, rows: Sequence[ManifestRow], labels: list[str], n_regions: list[int]
) -> dict[str, Any]:
    """Give what regions say of the test pictures, and what the labels by them say."""
    found: dict[str, Any] = {"policy": policy}
    for name, label in (("normals", 0), ("anomalies", 1)):
        at = [index for index, row in enumerate(rows) if row.label == label]
        found[name] = len(at)
        found[f"{name}_with_region"] = sum(n_regions[index] > 0 for index in at)
        found[f"{name}_labelled_anomaly"] = sum(labels[i] == "anomaly" for i in at)
    return found


@dataclass(frozen=True, slots=True)
class Tested:
    """What the test pictures of a category said."""

    metrics: dict[str, Any]
    per_image: list[dict[str, Any]]
    achieved: RateBounds | None  # of false alarms; None: no test normals

    def facts(self, thresholds: Thresholds) -> dict[str, Any]:
        """Give them as a category's report lists them.

        Args:
            thresholds: those that judged.
        """
        messages = (
            small_n_message(thresholds),
            promise_warning(thresholds.provenance["image"], self.achieved),
        )
        warnings = [*self.metrics["warnings"], *(text for text in messages if text)]
        bounds = None if self.achieved is None else asdict(self.achieved)
        return self.metrics | {
            "warnings": warnings,
            "image_threshold": thresholds.image,
            "pixel_threshold": thresholds.pixel,
            "false_alarm_rate_bounds": bounds,
        }


def evaluate_test(
    config: WorkbenchConfig,
    split: CategorySplit,
    predictor: Predictor,
    progress: Callable[[str, int, int], None],
) -> Tested:
    """Judge the test pictures of a category with a predictor and its thresholds."""
    rows = split.test
    truth = PixelTruth(
        rows,
        wanted=config.evaluation.pixel_metrics,
        has_map=predictor.engine.has_map,
    )
    evaluation = Evaluation(
        truth,
        predictor.settings.thresholds,
        n_resamples=config.evaluation.bootstrap_resamples,
        seed=config.seed,
    )
    per_image = []
    n_regions = []
    images = read_ahead(rows, predictor.rules)
    for done, (row, image) in enumerate(zip(rows, images, strict=True), start=1):
        prediction = predictor.predict(image)
        evaluation.add(row, prediction, truth.mask(row, image, predictor.rules))
        if prediction.found is not None:
            n_regions.append(len(prediction.found.regions))
        per_image.append(
            scored_row(row.image, predictor, prediction, prediction.ms)
            | {"label_true": row.label, "group_id": row.group_id, "meta": row.meta}
        )
        progress("evaluation", done, len(rows))
    metrics = evaluation.report()
    metrics["warnings"] = truth.warnings()
    metrics["pixel_metrics"] = truth.to_json()
    rules = predictor.settings.regions
    if rules is not None and n_regions:
        labels = [str(line["label"]) for line in per_image]
        metrics["regions"] = _by_regions(rules.policy, rows, labels, n_regions)
    normals = [index for index, row in enumerate(rows) if row.label == 0]
    achieved = None
    if normals:
        achieved = count_bounds(
            np.asarray([evaluation.scores[i] for i in normals], dtype=np.float32),
            [rows[i].group for i in normals],
            predictor.threshold,
        )
    return Tested(metrics, per_image, achieved)
