"""Fits the detector of one category, and scores normals that it has not seen.

Detectors that are fitted on features score every normal out of fold and are fitted on
all of them; the others hold a fifth out. Rows of split "val" replace both. Detectors
that train by gradient keep a tenth of what is left to stop early on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyimgano_runtime.calibration import HeldOutScores
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.predictor import Predictor

from .. import calibration as calibrating
from ..datasets.augmentation import Augmentation
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.spared_normals import held_out_part, tuning_part
from ..datasets.splits import CategorySplit, folds
from ..detectors import create_detector
from ..detectors.feature_detector import FeatureDetector
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
class CategoryFitter:
    """What a fit of one category depends on."""

    config: WorkbenchConfig
    split: CategorySplit
    rules: InputRules
    context: FitContext
    predictor_of: Callable[[Detector], Predictor]  # whose thresholds do not matter

    def fit(self) -> Fitted:
        """Fit, and score normals that the scoring model has not seen."""
        config, split, context = self.config, self.split, self.context
        detector: Detector = create_detector(
            config.model.name, config.model.options, preset=config.model.preset
        )
        detector.to(context.device).eval()
        normals = split.train_normals()
        held_out_normals = self._needs_held_out(detector)
        if held_out_normals and not split.val and isinstance(detector, FeatureDetector):
            return self._fit_on_features(detector, normals)

        rows: Sequence[ManifestRow] = split.val
        source = "val"
        if held_out_normals and not split.val:
            # Detectors that train cannot be fitted five times: hold a fifth out.
            rows, normals = held_out_part(normals, seed=config.split_seed)
            source = "holdout"
        tuning: Sequence[ManifestRow] = ()
        if detector.trains:
            tuning, normals = tuning_part(normals, seed=config.split_seed)
        defects = split.train_defects() if detector.uses_defects else ()
        data = self._data(normals, tuning=tuning, defects=defects)
        with plugin_call(detector, "fit"):
            detector.fit(data, context=context)
        if not held_out_normals:
            return Fitted(detector, None, (), data.facts())
        held_out = self.score(detector.eval(), rows, source)
        return Fitted(detector, held_out, rows, data.facts())

    def _fit_on_features(
        self, detector: FeatureDetector, normals: Sequence[ManifestRow]
    ) -> Fitted:
        config, context = self.config, self.context
        data = self._data(normals)
        with plugin_call(detector, "features"):
            features = detector.extract(data, context=context)
        groups = [row.group for row in normals]
        samples = data.picture_samples()
        part_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        parts_of_rows = np.asarray([part_of[group] for group in groups], dtype=np.int64)
        features = features.with_parts(parts_of_rows[samples.pictures])
        parts = folds(groups, n_folds=config.calibration.folds, seed=config.split_seed)
        with plugin_call(detector, "fit_features"):
            held_out = calibrating.out_of_fold_scores(
                *(detector, features, parts, groups),
                context=context,
                pixel_quantile=config.calibration.pooled_quantile,
                samples=samples,
            )
            context.generator.manual_seed(config.seed)
            fitted = detector.fit_features(features, context=context)
        return Fitted(fitted, held_out, normals, data.facts())

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

    def _needs_held_out(self, detector: Detector) -> bool:
        """Whether a threshold comes from normals that the model was not fitted on."""
        method = self.config.calibration.method
        return method != "fixed" and (method != "best_f1" or detector.has_map)

    def score(
        self, detector: Detector, rows: Sequence[ManifestRow], source: str
    ) -> HeldOutScores:
        """Score pictures with the fitted detector, to set thresholds on them."""
        predictor = self.predictor_of(detector)
        scores, maxima = [], []
        quantile = self.config.calibration.pooled_quantile
        pixels = None
        if quantile is not None and detector.has_map:
            pixels = calibrating.TopPixels(quantile, len(rows))
        images = read_ahead(rows, self.rules)
        for done, image in enumerate(images, start=1):
            prediction = predictor.predict(image)
            scores.append(prediction.score)
            if prediction.anomaly_map is not None:
                maxima.append(float(prediction.anomaly_map.max()))
                if pixels is not None:
                    pixels.add(prediction.anomaly_map)
            self.context.progress("calibration", done, len(rows))
        return HeldOutScores(
            image=np.asarray(scores, dtype=np.float32),
            map_max=np.asarray(maxima, dtype=np.float32) if maxima else None,
            groups=tuple(row.group for row in rows),
            source=source,
            pixels=None if pixels is None else pixels.result(),
        )
