"""PatchCore: distance of each patch to the nearest normal patch.

Roth, Pemula, Zepeda, Schoelkopf, Brox, Gehler, "Towards total recall in industrial
anomaly detection", CVPR 2022.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option
from pyimgano_runtime.errors import ConfigError

from .covering_bank import covering_bank
from .deep_features import GRIDS, DeepFeatures
from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .interface import FitContext
from .layers import MapOutput, TopMean
from .nearest_neighbour import half_precision, nearest, sampled_patches
from .principal_components import principal_axes


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCoreConfig:
    """Hyper-parameters of PatchCore."""

    backbone: str = option("efficientnet_lite2", "feature extractor")
    taps: tuple[str, ...] = option(
        ("stage3", "stage5"), "where features are read: stage names, or stride8 etc."
    )
    image_size: tuple[int, int] = option(
        (384, 384), "model size [height, width] in pixels", low=32, high=4096
    )
    geometry: str = option(
        "letterbox",
        '"stretch": both axes scaled on their own; "letterbox": aspect ratio kept, the '
        "rest filled with the picture's border pixels",
        choices=("stretch", "letterbox"),
    )
    grid: str = option(
        "finest",
        '"finest": patches lie on the grid of the finest tap; "coarsest": on that of '
        "the coarsest, over whose cells the others are averaged: fewer patches to "
        "search for (a quarter, for strides 8 and 16), and a coarser map",
        choices=GRIDS,
    )
    bank_size: int = option(2000, "normal patches kept", low=1, high=1_000_000)
    candidates: int = option(
        30_000,
        "patches held in memory while the bank is picked; of more, a sample gives the "
        "first picks and all of them the last",
        low=1,
    )
    pca_dims: int = option(
        0,
        "principal components the patches are projected to before the bank is picked; "
        "0: no projection",
        low=0,
        high=4096,
    )
    neighbours: int = option(
        1,
        "1: the score is the largest value of the map; b > 1: the largest patch "
        "distance, re-weighted by the b bank patches around its nearest one (paper, "
        "equation 7)",
        low=1,
        high=50,
    )
    sigma_px: float = option(
        8.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    score_share: float = option(
        0.01,
        "the score is the mean of this share of the map, its highest values; 0: its "
        "largest value alone",
        low=0.0,
        high=1.0,
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )

    def __post_init__(self) -> None:
        if self.neighbours > 1 and self.neighbours >= self.bank_size:
            raise ValueError(
                f"neighbours: found {self.neighbours}, expected fewer than bank_size "
                f"({self.bank_size})"
            )


class PatchCore(FeatureDetector):
    """Memory bank of normal patches and exact nearest-neighbour distance."""

    name = "patchcore"
    Config: ClassVar[type[Any]] = PatchCoreConfig
    needs_weights = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {
            "backbone": "efficientnet_lite0",
            "image_size": (256, 256),
            "grid": "coarsest",
            "sigma_px": 4.0,
        },
        "fine": {"bank_size": 4000, "image_size": (512, 512)},
    }

    config: PatchCoreConfig
    backbone: Backbone

    def __init__(
        self, config: PatchCoreConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.deep_features = DeepFeatures(
            backbone,
            config.image_size,
            geometry=config.geometry,
            grid=config.grid,
        )
        self.map_output = MapOutput(
            config.image_size,
            config.sigma_px,
            grid=self.deep_features.grid_of(backbone),
        )
        self.top_mean = TopMean(config.image_size, config.score_share)
        channels = self.deep_features.channels
        if config.pca_dims > channels:
            raise ConfigError(
                f"patchcore: pca_dims is {config.pca_dims}, expected at most "
                f"{channels}, the channels of its taps; 0 switches the projection off"
            )
        dims = config.pca_dims or channels
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("projection", torch.zeros(channels, config.pca_dims))
        self.register_buffer("bank", torch.zeros(0, dims))
        self.register_buffer("bank_neighbours", torch.zeros(0, 1, dtype=torch.int64))
        self.center: Tensor  # (C,) mean feature: keeps digits in |q|^2 + |b|^2 - 2qb
        self.projection: Tensor  # (C, D) principal axes; D = pca_dims
        self.bank: Tensor  # (M, D) centred and projected; (M, C) without projection
        self.bank_neighbours: Tensor  # (M, b) nearest bank patches of each bank patch

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w) features on the grid of `config.grid`."""
        features: Tensor = self.deep_features(images_u8, self.backbone)
        return features

    def features_key(self) -> Hashable:
        """See `FeatureDetector.features_key`."""
        return self.deep_features.key(self.backbone)

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Pick the bank: greedy coreset of the normal patches."""
        patches = sampled_patches(
            features, self.config.candidates, generator=context.generator
        ).to(context.device)  # (P, C)
        self.center = patches.mean(dim=0)
        if self.config.pca_dims:
            axes = principal_axes(patches)[1][:, : self.config.pca_dims]
            self.projection = axes.float().contiguous()
        bank = covering_bank(
            features,
            self._reduced(patches),
            min(self.config.bank_size, len(patches)),
            place=self._reduced,
            generator=context.generator,
            progress=lambda done: context.progress(
                "coreset", done, self.config.bank_size
            ),
        )
        self.bank = half_precision(bank).contiguous()
        n_neighbours = min(self.config.neighbours, len(self.bank))
        self.bank_neighbours = _nearest_in_bank(self.bank, n_neighbours)
        return self

    def _reduced(self, patches: Tensor) -> Tensor:
        """Centre and project patches: (P, C) -> (P, D)."""
        centred = patches - self.center
        return centred @ self.projection if self.config.pca_dims else centred

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w) by nearest-neighbour distance."""
        n, channels, height, width = features.shape
        patches = features.permute(0, 2, 3, 1).reshape(-1, channels)
        queries = self._reduced(patches)
        squared, row = nearest(queries, self.bank)  # (N*h*w,)
        distance = squared.sqrt()
        per_image = distance.reshape(n, height * width)  # (N, h*w)
        anomaly_map = self.map_output(per_image.reshape(n, height, width))
        if self.config.neighbours > 1:
            weight = self._weight(queries, row, per_image)
            return weight * per_image.amax(dim=1), anomaly_map
        # The paper takes the largest patch distance; see ADR 7.
        return self.top_mean(anomaly_map), anomaly_map

    def _weight(self, queries: Tensor, bank_row: Tensor, per_image: Tensor) -> Tensor:
        """1 - softmax weight of the winning patch's distance (paper, equation 7)."""
        n, n_patches = per_image.shape
        top = per_image.argmax(dim=1)  # (N,)
        row = top + torch.arange(n, device=top.device) * n_patches
        query = queries[row]  # (N, C)
        around = self.bank[self.bank_neighbours[bank_row[row]]]  # (N, b, C)
        distances = (query.unsqueeze(1) - around).square().sum(dim=2).sqrt()  # (N, b)
        own = per_image.amax(dim=1)
        # exp(own) / sum exp(distances), written so that large distances do not
        # overflow.
        return 1 - 1 / (distances - own.unsqueeze(1)).exp().sum(dim=1)

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.deep_features.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return [*self.map_output.describe(), self.top_mean.describe()]

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size


def _nearest_in_bank(bank: Tensor, k: int) -> Tensor:
    """Give the k nearest bank rows of each bank row, itself first: (M, k) int64."""
    if k == 1:
        return torch.arange(len(bank), device=bank.device).unsqueeze(1)
    chunks = [
        torch.cdist(chunk, bank).topk(k, dim=1, largest=False).indices
        for chunk in torch.split(bank, 1024)
    ]
    return torch.cat(chunks)
