"""Fits the detector of one category, and scores normals that it has not seen.

Detectors that are fitted on features score every normal out of fold and are fitted on
all of them; the others hold a fifth out. Rows of split "val" replace both. Detectors
that train by gradient keep a tenth of what is left to stop early on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from pyimgano_runtime.calibration import HeldOutScores
from pyimgano_runtime.infer_config import InputRules, MapGeometry
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.regions import judged_values

from .. import calibration as calibrating
from ..calibration import AnomalyMap, Judged
from ..datasets.augmentation import Augmentation
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.spared_normals import held_out_part, tuning_part
from ..datasets.splits import CategorySplit, folds
from ..detectors import create_detector
from ..detectors.feature_detector import FeatureDetector
from ..detectors.feature_set import FeatureSet
from ..detectors.interface import Detector, FitContext
from ..detectors.plugins import plugin_call
from .config import WorkbenchConfig
from .training_data import RowTrainingData


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted detector, and which pictures did what."""

    detector: Detector
    held_out: HeldOutScores | None  # None: nobody asked for any
    calibrated_on: Sequence[ManifestRow]
    learned_from: dict[str, Any]  # counts and settings, for the report


@dataclass(frozen=True, slots=True)
class HeldOutPlan:
    """Which normals set the thresholds, and which are left to fit on."""

    rows: Sequence[ManifestRow]
    source: str | None  # "val", "holdout", "kfold_pooled"; None: nobody asks for any
    fitted_on: Sequence[ManifestRow]


def held_out_plan(
    config: WorkbenchConfig, split: CategorySplit, detector: Detector
) -> HeldOutPlan:
    """Give which normals set the thresholds of a detector."""
    normals = split.train_normals()
    method = config.calibration.method
    if method == "fixed" or (method == "best_f1" and not detector.has_map):
        return HeldOutPlan((), None, normals)
    if split.val:
        return HeldOutPlan(split.val, "val", normals)
    if isinstance(detector, FeatureDetector):
        return HeldOutPlan(normals, "kfold_pooled", normals)
    # Detectors that train cannot be fitted five times: hold a fifth out.
    rows, fitted_on = held_out_part(normals, seed=config.split_seed)
    return HeldOutPlan(rows, "holdout", fitted_on)


@dataclass(frozen=True, slots=True)
class CategoryFitter:
    """What a fit of one category depends on."""

    config: WorkbenchConfig
    split: CategorySplit
    rules: InputRules
    context: FitContext

    def fit(self, predictor_of: Callable[[Detector], Predictor]) -> Fitted:
        """Fit, and score normals that the scoring model has not seen.

        Args:
            predictor_of: gives what scores pictures by a detector; its thresholds do
                not matter.
        """
        config, split, context = self.config, self.split, self.context
        detector: Detector = create_detector(
            config.model.name, config.model.options, preset=config.model.preset
        )
        detector.to(context.device).eval()
        plan = held_out_plan(self.config, self.split, detector)
        if isinstance(detector, FeatureDetector) and plan.source == "kfold_pooled":
            return self._fit_on_features(detector, plan)
        normals = plan.fitted_on
        tuning: Sequence[ManifestRow] = ()
        if detector.trains:
            tuning, normals = tuning_part(normals, seed=config.split_seed)
        defects = split.train_defects() if detector.uses_defects else ()
        data = self._data(normals, tuning=tuning, defects=defects)
        with plugin_call(detector, "fit"):
            detector.fit(data, context=context)
        if plan.source is None:
            return Fitted(detector, None, (), data.facts())
        scorer = predictor_of(detector.eval())
        held_out = self.score(scorer, plan.rows, plan.source)
        return Fitted(detector, held_out, plan.rows, data.facts())

    def _fit_on_features(self, detector: FeatureDetector, plan: HeldOutPlan) -> Fitted:
        data, features = self._extract(detector, plan)
        held_out = self._out_of_fold(detector, plan, data, features)
        self.context.generator.manual_seed(self.config.seed)
        with plugin_call(detector, "fit_features"):
            fitted = detector.fit_features(features, context=self.context)
        return Fitted(fitted, held_out, plan.rows, data.facts())

    def score_again(
        self,
        detector: Detector,
        predictor: Predictor,
        features_of: Callable[[Tensor], Tensor] | None,
    ) -> HeldOutScores | None:
        """Score the same normals by another form of a fitted detector, as its graph is.

        Out of fold, the folds are fitted as they were, on the detector's own features,
        and score the features of the other form.

        Args:
            detector: fitted by `fit`.
            predictor: scores pictures by the other form.
            features_of: features by the other form, as `FeatureDetector.features` gives
                them. None for detectors that have none.
        """
        plan = held_out_plan(self.config, self.split, detector)
        if plan.source is None:
            return None
        if plan.source != "kfold_pooled":
            return self.score(predictor, plan.rows, plan.source)
        assert isinstance(detector, FeatureDetector)
        assert features_of is not None
        data, features = self._extract(detector, plan)
        # The detector's own features hold half of the budget already.
        budget = self.context.memory_budget // 2
        others = FeatureSet.collect(
            *(data.normals(), features_of),
            n_images=data.n_normals,
            context=replace(self.context, memory_budget=budget),
        )
        return self._out_of_fold(detector, plan, data, features, others)

    def _extract(
        self, detector: FeatureDetector, plan: HeldOutPlan
    ) -> tuple[RowTrainingData, FeatureSet]:
        """Give the features of the normals, each with the part that it shows."""
        data = self._data(plan.fitted_on)
        with plugin_call(detector, "features"):
            features = detector.extract(data, context=self.context)
        groups = [row.group for row in plan.rows]
        part_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        parts_of_rows = np.asarray([part_of[group] for group in groups], dtype=np.int64)
        pictures = data.picture_samples().pictures
        return data, features.with_parts(parts_of_rows[pictures])

    def _out_of_fold(
        self,
        detector: FeatureDetector,
        plan: HeldOutPlan,
        data: RowTrainingData,
        features: FeatureSet,
        scored: FeatureSet | None = None,
    ) -> HeldOutScores:
        config = self.config
        groups = [row.group for row in plan.rows]
        parts = folds(groups, n_folds=config.calibration.folds, seed=config.split_seed)
        with plugin_call(detector, "fit_features"):
            return calibrating.out_of_fold_scores(
                *(detector, features, parts, groups),
                context=self.context,
                pixel_quantile=config.calibration.pooled_quantile,
                samples=data.picture_samples(),
                scored=scored,
                judged=self._judged(detector, data),
            )

    def _judged(self, detector: Detector, data: RowTrainingData) -> Judged | None:
        """Give the values of a map that the pixel threshold is set on; None: all."""
        defects = self.config.defects
        geometry = MapGeometry.of(detector, self.config.tiles)
        if defects is None or geometry is None:
            return None
        rules = defects.rules(None)

        def judged(picture: int, anomaly_map: AnomalyMap) -> AnomalyMap:
            return judged_values(
                *(anomaly_map, data.size(picture)),
                mode=geometry.mode,
                rules=rules,
                roi=defects.roi,
            )

        return judged

    def _data(
        self,
        normals: Sequence[ManifestRow],
        *,
        tuning: Sequence[ManifestRow] = (),
        defects: Sequence[ManifestRow] = (),
    ) -> RowTrainingData:
        return RowTrainingData(
            *(normals, self.rules, tuning, defects),
            augmentation=Augmentation.of(self.config.augmentation),
            seed=self.config.seed,
            tiling=self.config.tiles,
        )

    def score(
        self, predictor: Predictor, rows: Sequence[ManifestRow], source: str
    ) -> HeldOutScores:
        """Score pictures, to set thresholds on them."""
        scores, maxima = [], []
        quantile = self.config.calibration.pooled_quantile
        pixels = None
        if quantile is not None and predictor.engine.has_map:
            pixels = calibrating.TopPixels(quantile, len(rows))
        images = read_ahead(rows, self.rules)
        for done, image in enumerate(images, start=1):
            prediction = predictor.predict(image)
            scores.append(prediction.score)
            if prediction.anomaly_map is not None:
                size = (image.shape[0], image.shape[1])
                values = predictor.judged_values(prediction.anomaly_map, size)
                maxima.append(float(values.max()))
                if pixels is not None:
                    pixels.add(values)
            self.context.progress("calibration", done, len(rows))
        return HeldOutScores(
            image=np.asarray(scores, dtype=np.float32),
            map_max=np.asarray(maxima, dtype=np.float32) if maxima else None,
            groups=tuple(row.group for row in rows),
            source=source,
            pixels=None if pixels is None else pixels.result(),
            map_statistic=predictor.map_statistic,
        )
