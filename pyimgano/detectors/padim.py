"""PaDiM: Mahalanobis distance of each position's features to its own Gaussian.

Defard, Setkov, Loesch, Audigier, "PaDiM: a patch distribution modeling framework for
anomaly detection and localization", ICPR 2021. We leave the paper in the covariance: a
full one per position takes 95 MB at the default size, so each position keeps the
directions in which it varies more than the part as a whole (`gaussian.py`); no feature
is dropped at random (paper, section III-D) for that reason.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option

from .deep_features import DeepFeatures
from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .gaussian import PositionGaussian, PositionMoments
from .interface import FitContext
from .layers import MapOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class PaDiMConfig:
    """Hyper-parameters of PaDiM."""

    backbone: str = option("efficientnet_lite0", "feature extractor")
    taps: tuple[str, ...] = option(
        ("stage3", "stage5"), "where features are read: stage names, or stride8 etc."
    )
    image_size: tuple[int, int] = option(
        (256, 256), "model size [height, width] in pixels", low=32, high=4096
    )
    geometry: str = option(
        "letterbox",
        '"stretch": both axes scaled on their own; "letterbox": aspect ratio kept, the '
        "rest filled with the picture's border pixels",
        choices=("stretch", "letterbox"),
    )
    rank: int = option(
        16,
        "directions kept per position beyond the part's common ones",
        low=0,
        high=512,
    )
    prior_images: float = option(
        16.0, "weight of the part's common covariance, in images", low=0.0
    )
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class PaDiM(FeatureDetector):
    """One low-rank Gaussian per position, for parts in a fixed pose."""

    name = "padim"
    Config: ClassVar[type[Any]] = PaDiMConfig
    needs_weights = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"rank": 8, "image_size": (224, 224)},
        "fine": {"image_size": (384, 384)},
    }

    config: PaDiMConfig
    backbone: Backbone

    def __init__(
        self, config: PaDiMConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.deep_features = DeepFeatures(
            backbone, config.image_size, geometry=config.geometry
        )
        channels, height, width = self.deep_features.shape_of(backbone)
        self.map_output = MapOutput(
            config.image_size, config.sigma_px, grid=(height, width)
        )
        self.gaussian = PositionGaussian(
            channels=channels, grid=(height, width), rank=min(config.rank, channels)
        )

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w) features on the finest tap's grid."""
        features: Tensor = self.deep_features(images_u8, self.backbone)
        return features

    def features_key(self) -> Hashable:
        """See `FeatureDetector.features_key`."""
        return self.deep_features.key(self.backbone)

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Estimate the Gaussian of each position in one pass."""
        channels, height, width = features.shape
        moments = PositionMoments.empty(
            channels, (height, width), device=context.device
        )
        done = 0
        for batch in features.batches(32):
            moments.update(batch.to(context.device))
            done += len(batch)
            context.progress("statistics", done, len(features))
        self.gaussian = PositionGaussian.fit(
            moments,
            rank=min(self.config.rank, channels),
            prior_images=self.config.prior_images,
        )
        return self

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w), in standard deviations."""
        squared = self.gaussian(features) / features.shape[1]  # (N, h, w), normal: ~1
        anomaly_map = self.map_output((squared + 1e-12).sqrt())
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.deep_features.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size
