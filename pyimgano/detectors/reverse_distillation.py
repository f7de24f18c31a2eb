"""Reverse distillation: a decoder rebuilds the teacher's levels from a narrow code.

Deng & Li, "Anomaly detection via reverse distillation from one-class embedding", CVPR
2022. The levels are fused and squeezed (section 3.3, "one-class bottleneck embedding");
the decoder, which has only seen normal parts, gives them back from the deepest to the
finest (section 3.2). What it cannot rebuild was not there in training.

We leave the paper in these places, because a step must be cheap on a CPU: the decoder
is a few convolutions instead of a mirrored ResNet, and the embedding is two
convolutions instead of a residual stage. Both see only the teacher's levels, which are
computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone
from pyimgano.option_fields import option

from .interface import Detector, FitContext, TrainingData
from .layers import MapOutput, PixelInput
from .teacher_levels import (
    LevelDistances,
    LevelSet,
    finest_grid,
    mean_of_levels,
    sum_on_finest,
    tuning_levels,
)
from .training_loop import LoopPlan, draw_batch, initialize, train_by_gradient


@dataclass(frozen=True, slots=True, kw_only=True)
class ReverseDistillationConfig:
    """Hyper-parameters of reverse distillation."""

    backbone: str = option("efficientnet_lite0", "the frozen teacher")
    taps: tuple[str, ...] = option(
        ("stage2", "stage3", "stage5"),
        "levels that are rebuilt, finest first: stage names, or stride8 etc.",
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
    width: int = option(64, "channels within the decoder", low=8, high=1024)
    code: int = option(64, "channels of the code: the bottleneck", low=2, high=1024)
    steps: int = option(1500, "training steps at most", low=1, high=1_000_000)
    batch_size: int = option(8, "pictures per step", low=1, high=1024)
    learning_rate: float = option(2e-3, "of the Adam optimizer", low=1e-7, high=1.0)
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class Decoder(nn.Module):
    """Levels (finest first) to a code at half the coarsest grid, and back to levels."""

    def __init__(self, channels: Sequence[int], *, width: int, code: int) -> None:
        super().__init__()
        self.fuse = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width))
            for c in channels
        )
        self.embed = nn.Sequential(
            nn.Conv2d(width * len(channels), 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.Conv2d(2 * width, code, 1),
        )
        self.grow = nn.ModuleList(
            _block(code if i == 0 else width, width) for i in range(len(channels))
        )
        self.answer = nn.ModuleList(nn.Conv2d(width, c, 1) for c in reversed(channels))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Give the rebuilt levels, finest first."""
        coarsest = (levels[-1].shape[-2], levels[-1].shape[-1])
        fused = [
            F.adaptive_avg_pool2d(F.relu(layer(level)), coarsest)
            for layer, level in zip(self.fuse, levels, strict=True)
        ]
        x = self.embed(torch.cat(fused, dim=1))  # (N, code, h/2, w/2)
        rebuilt = []
        deepest_first = list(reversed(levels))
        for grow, answer, level in zip(
            self.grow, self.answer, deepest_first, strict=True
        ):
            x = F.interpolate(
                x, size=level.shape[-2:], mode="bilinear", align_corners=False
            )
            x = grow(x)  # (N, width, h, w)
            rebuilt.append(answer(x))
        return rebuilt[::-1]


def _block(channels_in: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


class ReverseDistillation(Detector):
    """Decoder that gives back the backbone's levels of normal parts."""

    name = "reverse_distillation"
    Config: ClassVar[type[Any]] = ReverseDistillationConfig
    needs_weights = True
    trains = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"steps": 500},
        "fine": {"image_size": (384, 384), "steps": 2000},
    }

    config: ReverseDistillationConfig
    backbone: Backbone

    def __init__(
        self, config: ReverseDistillationConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.pixels = PixelInput(
            config.image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=config.geometry,
        )
        channels = [tap.channels for tap in backbone.taps]
        self.decoder = Decoder(channels, width=config.width, code=config.code)
        self.distances = LevelDistances()
        self.map_output = MapOutput(
            config.image_size,
            config.sigma_px,
            grid=finest_grid(self.pixels, backbone),
        )
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: `fit` alone switches the decoder."""
        del mode
        return super().train(False)

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch; see `Detector.forward`."""
        levels = self.backbone(self.pixels(images_u8))
        distances = self.distances(levels, self.decoder(levels))
        anomaly_map = self.map_output(sum_on_finest(distances))
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Train embedding and decoder on the teacher's levels of the normals."""
        self.eval().to(context.device)
        known = LevelSet.collect(
            data.normals(),
            self.pixels,
            self.backbone,
            n_images=data.n_normals,
            context=context,
        )
        tuning = tuning_levels(
            data.tuning_normals(), self.pixels, self.backbone, context=context
        )
        config, generator = self.config, context.generator
        initialize(self.decoder, generator)
        optimizer = torch.optim.AdamW(
            self.decoder.parameters(), lr=config.learning_rate, weight_decay=1e-4
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)

        def step() -> Tensor:
            self.decoder.train()
            picks = draw_batch(len(known), config.batch_size, generator)
            levels = known.images(picks, context.device)
            return mean_of_levels(self.distances(levels, self.decoder(levels)))

        def tuning_loss() -> float:
            self.decoder.eval()
            total = 0.0
            for levels in tuning:
                loss = mean_of_levels(self.distances(levels, self.decoder(levels)))
                total += float(loss) * len(levels[0])
            return total / sum(len(levels[0]) for levels in tuning)

        train_by_gradient(
            self.decoder,
            optimizer,
            step,
            plan=LoopPlan(steps=config.steps),
            context=context,
            name="decoder",
            scheduler=scheduler,
            tuning_loss=tuning_loss if tuning else None,
        )
        return self.eval()

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return self.pixels.describe()

    def postprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.postprocess_steps`."""
        return self.map_output.describe()

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return self.map_output.map_size
