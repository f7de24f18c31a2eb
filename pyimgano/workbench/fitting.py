"""Fits the detector of one category, and scores normals that it has not seen.

Detectors that are fitted on features score every normal out of fold and are fitted on
all of them; detectors that train hold a fifth out. Rows of split "val" replace both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pyimgano_runtime.calibration import HeldOutScores
from pyimgano_runtime.infer_config import InputRules

from .. import calibration as calibrating
from ..datasets.images import read_ahead
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit, folds
from ..detectors import create_detector
from ..detectors.feature_detector import FeatureDetector
from ..detectors.interface import Detector, FitContext
from .config import WorkbenchConfig
from .training_data import RowTrainingData


@dataclass(frozen=True, slots=True)
class CategoryFitter:
    """What a fit of one category depends on."""

    config: WorkbenchConfig
    split: CategorySplit
    rules: InputRules
    context: FitContext

    def fit(
        self,
    ) -> tuple[Detector, HeldOutScores | None, Sequence[ManifestRow]]:
        """Fit, and score normals that the scoring model has not seen."""
        config, split, context = self.config, self.split, self.context
        detector: Detector = create_detector(
            config.model.name, config.model.options, preset=config.model.preset
        )
        detector.to(context.device).eval()
        normals = split.train_normals()
        held_out_normals = self._needs_held_out(detector)
        if held_out_normals and not split.val and isinstance(detector, FeatureDetector):
            data = RowTrainingData(normals, self.rules)
            features = detector.extract(data, context=context)
            parts = folds(
                [row.group for row in normals],
                n_folds=config.calibration.folds,
                seed=config.split_seed,
            )
            held_out = calibrating.out_of_fold_scores(
                detector,
                features,
                parts,
                [r.group for r in normals],
                context=context,
                pixel_quantile=config.calibration.pooled_quantile,
            )
            context.generator.manual_seed(config.seed)
            return detector.fit_features(features, context=context), held_out, normals

        rows: Sequence[ManifestRow] = split.val
        source = "val"
        if held_out_normals and not split.val:
            # Detectors that train cannot be fitted five times: hold a fifth out.
            parts = folds([r.group for r in normals], n_folds=5, seed=config.split_seed)
            held = set(parts[0])
            rows = [row for i, row in enumerate(normals) if i in held]
            normals = [row for i, row in enumerate(normals) if i not in held]
            source = "holdout"
        defects = split.train_defects()
        data = RowTrainingData(normals, self.rules, defect_rows=defects)
        detector.fit(data, context=context)
        if not held_out_normals:
            return detector, None, ()
        return detector, self.score(detector.eval(), rows, source), rows

    def _needs_held_out(self, detector: Detector) -> bool:
        """Whether a threshold comes from normals that the model was not fitted on."""
        method = self.config.calibration.method
        return method != "fixed" and (method != "best_f1" or detector.has_map)

    def score(
        self, detector: Detector, rows: Sequence[ManifestRow], source: str
    ) -> HeldOutScores:
        """Score pictures with the fitted detector, to set thresholds on them."""
        scores, maxima = [], []
        quantile = self.config.calibration.pooled_quantile
        pixels = None
        if quantile is not None and detector.has_map:
            pixels = calibrating.TopPixels(quantile, len(rows))
        images = read_ahead(rows, self.rules)
        for done, image in enumerate(images, start=1):
            with torch.inference_mode():
                batch = torch.from_numpy(image[None]).to(self.context.device)
                score, anomaly_map = detector(batch)
            scores.append(float(score[0]))
            if anomaly_map is not None:
                maxima.append(float(anomaly_map.max()))
                if pixels is not None:
                    pixels.add(anomaly_map.cpu().numpy())
            self.context.progress("calibration", done, len(rows))
        return HeldOutScores(
            image=np.asarray(scores, dtype=np.float32),
            map_max=np.asarray(maxima, dtype=np.float32) if maxima else None,
            groups=tuple(row.group for row in rows),
            source=source,
            pixels=None if pixels is None else pixels.result(),
        )
