"""k-NN on pooled features: how far a whole picture lies from the nearest normal ones.

Bergman, Cohen, Hoshen, "Deep nearest neighbor anomaly detection", arXiv:2002.10445,
2020: one feature vector a picture, mean distance to the k nearest normals. The k-th
distance of Sun, Ming, Zhu, Li, "Out-of-distribution detection with deep nearest
neighbors", ICML 2022, is the same idea for other data; its normalization to unit length
is an option.

We leave the papers in three places. The largest value of each channel is taken instead
of its mean: a defect covers a few cells, and the mean dilutes it. Channels are
divided by their spread over the normals, because a channel that varies much would
otherwise decide alone. The distance is not squared, so that it has the unit of the
features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option

from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .interface import FitContext
from .layers import PixelInput
from .nearest_neighbour import half_precision, k_nearest

PRIOR_IMAGES = 4.0  # weight of the mean variance of all channels, in images
# Below this length a pooled vector is no direction: a black picture, and no features.
LEAST_LENGTH = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class KnnConfig:
    """Hyper-parameters of knn."""

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
    pooling: str = option(
        "max",
        'what a picture keeps of each channel: "max", its largest value; "mean", its '
        'mean, as in the paper; "mean_max", both',
        choices=("max", "mean", "mean_max"),
    )
    standardize: bool = option(
        True, "divide each channel by its spread over the normals"
    )
    unit_length: bool = option(
        False, "scale each picture's vector to length one (Sun et al. 2022)"
    )
    neighbours: int = option(
        3, "normal pictures whose mean distance is the score", low=1, high=1000
    )
    bank_size: int = option(
        5000, "normal pictures kept; more are sampled down", low=1, high=1_000_000
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class Knn(FeatureDetector):
    """Mean distance of one vector a picture to its nearest normals. No map."""

    name = "knn"
    Config: ClassVar[type[Any]] = KnnConfig
    needs_weights = True
    has_map = False
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"image_size": (224, 224), "taps": ("stage5",)},
        "fine": {"image_size": (384, 384)},
    }

    config: KnnConfig
    backbone: Backbone

    def __init__(self, config: KnnConfig, *, backbone: Backbone | None = None) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.pixels = PixelInput(
            config.image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=config.geometry,
        )
        channels = sum(tap.channels for tap in backbone.taps)
        channels *= 2 if config.pooling == "mean_max" else 1
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("inverse_spread", torch.ones(channels))
        self.register_buffer("bank", torch.zeros(0, channels))
        self.center: Tensor  # (C,) mean vector of the normals
        self.inverse_spread: Tensor  # (C,)
        self.bank: Tensor  # (M, C) as `_placed` gives them

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, 1, 1): each tap's channels, pooled over the picture."""
        pooled: list[Tensor] = []
        for level in self.backbone(self.pixels(images_u8)):  # (N, c, h, w)
            if self.config.pooling != "max":
                # Rows first, then columns: one long sum loses digits, and each engine
                # loses others.
                pooled.append(level.mean(dim=3).mean(dim=2))
            if self.config.pooling != "mean":
                pooled.append(level.amax(dim=(2, 3)))
        return torch.cat(pooled, dim=1).unsqueeze(2).unsqueeze(3)

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Keep the normals' vectors, and the spread of each channel."""
        chosen = torch.randperm(len(features), generator=context.generator)
        chosen = chosen[: self.config.bank_size].sort().values
        vectors = self._pooled(features.images(chosen).to(context.device))  # (M, C)
        mean, spread = _mean_and_spread(vectors)
        self.center = mean
        if self.config.standardize:
            self.inverse_spread = 1 / spread
        else:
            self.inverse_spread = torch.ones_like(spread)
        self.bank = half_precision(self._placed(vectors)).contiguous()
        context.progress("bank", len(self.bank), len(self.bank))
        return self

    def _pooled(self, features: Tensor) -> Tensor:
        """Give one vector a picture (N, C), of length one where that is asked."""
        vectors = features.flatten(1)
        if not self.config.unit_length:
            return vectors
        length = vectors.square().sum(dim=1, keepdim=True).sqrt()
        return vectors / length.clamp_min(LEAST_LENGTH)

    def _placed(self, vectors: Tensor) -> Tensor:
        """Move vectors to where distances are taken: (N, C) -> (N, C)."""
        return (vectors - self.center) * self.inverse_spread

    def score_features(self, features: Tensor) -> tuple[Tensor, None]:
        """Give score (N,): the mean distance to the k nearest normals."""
        queries = self._placed(self._pooled(features))  # (N, C)
        k = min(self.config.neighbours, self.bank.shape[0])
        return k_nearest(queries, self.bank, k).sqrt().mean(dim=1), None

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.pixels.describe()

    def map_size(self) -> None:
        """None: there is no map."""
        return None


def _mean_and_spread(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Give mean (C,) and standard deviation (C,) of vectors (M, C), shrunk.

    A few imagined pictures vary in each channel as the channels do on average: ten
    pictures give no certainty, and a channel that never varied gets no infinite weight.
    """
    points = vectors.double()
    count = len(points)
    variance = points.var(dim=0, correction=0)  # (C,)
    shrunk = (count * variance + PRIOR_IMAGES * variance.mean()) / (
        count + PRIOR_IMAGES
    )
    # One picture, or equal ones: nothing is known of the spread.
    spread = torch.where(shrunk > 0, shrunk, 1.0).sqrt()
    return points.mean(dim=0).float(), spread.float()
