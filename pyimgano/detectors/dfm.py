"""DFM: what the principal components of normal features cannot rebuild.

Ahuja, Ndiour, Kalyanpur, Tickoo, "Probabilistic modeling of deep features for
out-of-distribution and adversarial detection", arXiv:1909.11786, 2019: principal
components of deep features; and the feature reconstruction error as the score, from the
follow-up of Ndiour, Ahuja, Tickoo, "Out-of-distribution detection with subspace
techniques and probabilistic modeling of features", arXiv:2012.04250, 2020.

We leave the papers in two places. Their features are a whole picture's; here each
patch is scored, with one set of components for all patches, which gives a map and finds
small defects. The error is not taken as the difference of two long vectors: the axes
that are left out are stored instead of those that are kept, and the error is the length
of the patch along them. It is the same number, of fewer operations where most axes are
kept, and with all its digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option

from .deep_features import DeepFeatures
from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .interface import FitContext
from .layers import MapOutput
from .principal_components import Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class DfmConfig:
    """Hyper-parameters of DFM."""

    backbone: str = option("efficientnet_lite0", "feature extractor")
    taps: tuple[str, ...] = option(
        ("stage5", "stage6"), "where features are read: stage names, or stride8 etc."
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
    retained_variance: float = option(
        0.95,
        "share of the normal patches' variance that the components explain; what they "
        "do not explain is the score",
        low=0.0,
        high=0.9999,
    )
    n_components: int = option(
        0, "principal components; 0: as many as retained_variance needs", low=0
    )
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class Dfm(FeatureDetector):
    """Length of each patch's feature along the axes that normal patches do not use."""

    name = "dfm"
    Config: ClassVar[type[Any]] = DfmConfig
    needs_weights = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"taps": ("stage5",), "image_size": (224, 224)},
        "fine": {"taps": ("stage3", "stage5", "stage6"), "image_size": (384, 384)},
    }

    config: DfmConfig
    backbone: Backbone

    def __init__(self, config: DfmConfig, *, backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.deep_features = DeepFeatures(
            backbone, config.image_size, geometry=config.geometry
        )
        self.map_output = MapOutput(
            config.image_size,
            config.sigma_px,
            grid=self.deep_features.grid_of(backbone),
        )
        channels = self.deep_features.channels
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("unused_axes", torch.zeros(channels, 0))
        self.center: Tensor  # (C,) mean feature
        self.unused_axes: Tensor  # (C, R) the axes beyond the components, orthonormal

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w) features on the finest tap's grid."""
        features: Tensor = self.deep_features(images_u8, self.backbone)
        return features

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Find the components of all patches: one pass, one symmetric eigenproblem."""
        channels = features.shape[0]
        moments = Moments()
        done = 0
        for batch in features.batches():  # (B, C, h, w)
            moments.update(batch.permute(0, 2, 3, 1).reshape(-1, channels))
            done += len(batch)
            context.progress("covariance", done, len(features))
        variances, axes = moments.axes()
        kept = self.config.n_components or _components_for(
            self.config.retained_variance, variances
        )
        # At least one axis is left to measure along.
        unused = axes[:, min(kept, channels - 1) :]  # (C, R)
        self.center = moments.mean.float().to(context.device)
        self.unused_axes = unused.float().contiguous().to(context.device)
        return self

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w) by reconstruction error."""
        n, channels, height, width = features.shape
        patches = features.permute(0, 2, 3, 1).reshape(-1, channels)
        # |x - P P^T x| = |Q^T x| for the axes P and their complement Q.
        along = (patches - self.center) @ self.unused_axes  # (N*h*w, R)
        error = along.square().sum(dim=1).sqrt()
        anomaly_map = self.map_output(error.reshape(n, height, width))
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


def _components_for(share: float, variances: Tensor) -> int:
    """Give the fewest components that explain `share` of the variance, at least one."""
    explained = variances.cumsum(dim=0)  # (C,) falling variances
    return int((explained < share * explained[-1]).sum()) + 1
