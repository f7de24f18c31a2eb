"""Per-position statistics of smoothed intensity and gradient, for fixed cameras.

No weights and no training: where every part lies in the same place, each position
has its own normal range of colour and edge strength. The score is a z-score, the
oldest method there is (a golden template with tolerances). Colours are taken relative
to the picture's own brightness, so that the light may drift; the variance is smoothed
over neighbours and shrunk towards the picture's mean variance, so that few images do
not give false certainty.
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
from .layers import GaussianSmooth, MapOutput, PixelInput

PRIOR_IMAGES = 4.0  # weight of the mean variance, in images
NOISE_FLOOR = 1.0  # grey levels: below it a difference is sensor noise


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelStatsConfig:
    """Hyper-parameters of pixel_stats."""

    image_size: tuple[int, int] = option(
        (128, 128), "model size [height, width] in pixels", low=16, high=4096
    )
    geometry: str = option(
        "letterbox",
        '"stretch": both axes scaled on their own; "letterbox": aspect ratio kept, the '
        "rest filled with the picture's border pixels",
        choices=("stretch", "letterbox"),
    )
    smoothing_px: float = option(
        1.0, "Gaussian on the pixels before the statistics", low=0.0, high=32.0
    )
    spread_px: float = option(
        3.0, "Gaussian on the variance: how far positions may shift", low=0.0, high=32.0
    )
    sigma_px: float = option(
        2.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )


class PixelStats(FeatureDetector):
    """z-score of colour and gradient at each position."""

    name = "pixel_stats"
    Config: ClassVar[type[Any]] = PixelStatsConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"image_size": (64, 64)},
        "fine": {"image_size": (256, 256)},
    }

    config: PixelStatsConfig

    def __init__(
        self, config: PixelStatsConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        self.pixels = PixelInput(config.image_size, geometry=config.geometry)
        self.blur = GaussianSmooth(config.image_size, config.smoothing_px)
        self.spread = GaussianSmooth(config.image_size, config.spread_px)
        self.map_output = MapOutput(
            config.image_size, config.sigma_px, grid=config.image_size
        )
        height, width = config.image_size
        self.register_buffer("mean", torch.zeros(4, height, width))
        self.register_buffer("inverse_std", torch.zeros(4, height, width))
        self.mean: Tensor  # (4, h, w) red, green, blue, gradient; grey levels
        self.inverse_std: Tensor  # (4, h, w) 1 / grey levels

    def features(self, images_u8: Tensor) -> Tensor:
        """Give (N, 4, h, w): red, green, blue minus brightness, and the gradient."""
        colour = self.blur(self.pixels(images_u8))
        grey = colour.mean(dim=1, keepdim=True)  # (N, 1, h, w)
        padded = torch.nn.functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
        down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
        gradient = (across.square() + down.square() + 1e-6).sqrt()  # (N, 1, h, w)
        # Rows first, then columns: one sum over all pixels loses digits, and each
        # engine loses others.
        brightness = grey.mean(dim=3, keepdim=True).mean(dim=2, keepdim=True)
        return torch.cat([colour - brightness, gradient], dim=1)

    @torch.no_grad()
    def fit_features(self, features: FeatureSet, *, context: FitContext) -> Self:
        """Estimate mean and shrunk variance of each position in one pass."""
        n = len(features)
        shift = features.image(0).double()  # keeps digits in the sum of squares
        total = torch.zeros_like(shift)
        squares = torch.zeros_like(shift)
        for batch in features.batches():
            centred = batch.double() - shift
            total += centred.sum(dim=0)
            squares += centred.square().sum(dim=0)
        mean = total / n
        deviation = (squares - n * mean.square()).clamp(min=0)  # sum of squares
        # Pooled over positions per channel: the prior of a position not yet seen often.
        pooled = deviation.mean(dim=(1, 2), keepdim=True) / max(n - 1, 1)
        spread = self.spread.cpu()(deviation.float()[None])[0].double()
        self.spread.to(context.device)
        variance = (spread + PRIOR_IMAGES * pooled) / (n - 1 + PRIOR_IMAGES)
        self.mean = (mean + shift).float().to(context.device)
        floor = NOISE_FLOOR**2
        self.inverse_std = (variance + floor).rsqrt().float().to(context.device)
        return self

    def score_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Give score (N,) and map (N, map_h, map_w), in standard deviations."""
        z = (features - self.mean) * self.inverse_std  # (N, 4, h, w)
        strength = z.square().mean(dim=1).add(1e-12).sqrt()  # (N, h, w)
        anomaly_map = self.map_output(strength)
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return [*self.pixels.describe(), self.blur.describe()]

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size
