"""AnomalyDINO: cosine distance of each patch to the nearest normal patch of a ViT.

Damm, Laszkiewicz, Lederer, Fischer, "AnomalyDINO: boosting patch-based few-shot anomaly
detection with DINOv2", WACV 2025, section 3.

We leave the paper in three places. Its masking of the background, chosen for each kind
of object, is left out. Training pictures are turned only where the training asks for
it, because a turned part can be a defect. A bank of more than `bank_size` patches is
thinned by the greedy coreset of PatchCore; up to that, nine pictures at the default
size, all patches are kept as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option
from pyimgano_runtime.errors import ConfigError

from .covering_bank import covering_bank
from .feature_detector import FeatureDetector
from .feature_set import FeatureSet
from .interface import FitContext
from .layers import MapOutput, PixelInput
from .nearest_neighbour import half_precision, nearest, sampled_patches

# Below this length a feature is no direction.
LEAST_LENGTH = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class AnomalyDinoConfig:
    """Hyper-parameters of AnomalyDINO."""

    backbone: str = option(
        "dinov2_vits14",
        "feature extractor; dinov2_* need weights_file, timm:vit_small_patch14_dinov2 "
        "needs timm",
    )
    taps: tuple[str, ...] = option(
        ("stride14",), "where features are read: names, or stride14, the last one"
    )
    image_size: tuple[int, int] = option(
        (448, 448),
        "model size [height, width] in pixels, multiples of the tap's stride",
        low=32,
        high=4096,
    )
    geometry: str = option(
        "letterbox",
        '"stretch": both axes scaled on their own; "letterbox": aspect ratio kept, the '
        "rest filled with the picture's border pixels",
        choices=("stretch", "letterbox"),
    )
    bank_size: int = option(
        10_000, "normal patches kept; of more, a greedy coreset", low=1, high=1_000_000
    )
    candidates: int = option(
        30_000,
        "patches held in memory while the bank is picked; of more, a sample gives the "
        "first picks and all of them the last",
        low=1,
    )
    score_share: float = option(
        0.01,
        "the score is the mean of this share of the patches, the most distant ones",
        low=0.0,
        high=1.0,
    )
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); dinov2_* need it"
    )


class AnomalyDino(FeatureDetector):
    """Memory bank of a vision transformer's patches, compared by direction."""

    name = "anomaly_dino"
    Config: ClassVar[type[Any]] = AnomalyDinoConfig
    needs_weights = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"image_size": (280, 280), "bank_size": 4000},
        "fine": {"image_size": (672, 672), "bank_size": 20_000},
    }

    config: AnomalyDinoConfig
    backbone: Backbone

    def __init__(
        self, config: AnomalyDinoConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        _check_one_grid(backbone, config.image_size)
        self.pixels = PixelInput(
            config.image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=config.geometry,
        )
        height, width = config.image_size
        stride = backbone.taps[0].stride
        self.map_output = MapOutput(
            config.image_size, config.sigma_px, grid=(height // stride, width // stride)
        )
        channels = sum(tap.channels for tap in backbone.taps)
        self.register_buffer("bank", torch.zeros(0, channels))
        self.bank: Tensor  # (M, C) of length one

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, C, h, w): the patches' features, of length one."""
        levels = self.backbone(self.pixels(images_u8))
        stacked = torch.cat(levels, dim=1)
        length = stacked.square().sum(dim=1, keepdim=True).sqrt()  # (N, 1, h, w)
        return stacked / length.clamp_min(LEAST_LENGTH)

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Keep the normal patches; of too many, a greedy coreset."""
        patches = sampled_patches(
            features, self.config.candidates, generator=context.generator
        ).to(context.device)  # (P, C)
        n_picks = min(self.config.bank_size, len(patches))
        bank = covering_bank(
            features,
            patches,
            n_picks,
            place=lambda patches: patches,
            generator=context.generator,
            progress=lambda done: context.progress("coreset", done, n_picks),
        )
        self.bank = half_precision(bank).contiguous()
        return self

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w), in cosine distance."""
        n, channels, height, width = features.shape
        queries = features.permute(0, 2, 3, 1).reshape(-1, channels)
        squared, _ = nearest(queries, self.bank)  # (N*h*w,)
        # 1 - q.b = |q - b|^2 / 2 for vectors of length one, and keeps the digits of
        # patches that are almost alike.
        distance = (squared / 2).reshape(n, height * width)
        n_highest = max(round(self.config.score_share * height * width), 1)
        highest = distance.topk(n_highest, dim=1).values  # (N, n_highest)
        anomaly_map = self.map_output(distance.reshape(n, height, width))
        return highest.mean(dim=1), anomaly_map

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.pixels.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size


def _check_one_grid(backbone: Backbone, image_size: tuple[int, int]) -> None:
    """Refuse taps of several strides, and a size that is no whole number of patches."""
    strides = {tap.stride for tap in backbone.taps}
    if len(strides) > 1:
        raise ConfigError(
            f"anomaly_dino: taps have the strides {sorted(strides)}, expected one: the "
            "patches of all taps are compared together"
        )
    stride = strides.pop()
    if any(side % stride for side in image_size):
        nearest_size = [max(round(side / stride), 1) * stride for side in image_size]
        raise ConfigError(
            f"anomaly_dino: image_size is {list(image_size)}, expected multiples of "
            f"{stride}, the side of a patch of {backbone.name}; take {nearest_size}"
        )
