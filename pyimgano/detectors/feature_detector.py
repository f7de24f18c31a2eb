"""Detectors that are a frozen feature extractor and a fitted scorer.

Features are computed once; the final model and every fold of the calibration are
fitted on them (`FeatureSet.subset`), and `forward` is the two halves in a row.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Self

from torch import Tensor

from .feature_set import FeatureSet
from .interface import Detector, FitContext, TrainingData


class FeatureDetector(Detector):
    """A detector whose `forward` is `score_features(features(images))`."""

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w) float32 features of (N, H, W, 3) uint8 images."""
        raise NotImplementedError

    def features_key(self) -> Hashable | None:
        """Give what makes two detectors' features equal; None: never equal.

        An ensemble computes equal features once.
        """
        return None

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """Give score (N,) and map (N, map_h, map_w) of (N, C, h, w) features."""
        raise NotImplementedError

    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Fit the scorer on the features of normals."""
        raise NotImplementedError

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor | None]:
        """Score a batch; see `Detector.forward`."""
        return self.score_features(self.features(images_u8))

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Compute the features of the normals, then fit the scorer on them."""
        return self.fit_features(self.extract(data, context=context), context=context)

    def extract(self, data: TrainingData, *, context: FitContext) -> FeatureSet:
        """Compute the features of all normals once; on disk past the memory budget."""
        self.eval().to(context.device)
        return FeatureSet.collect(
            data.normals(), self.features, n_images=data.n_normals, context=context
        )
