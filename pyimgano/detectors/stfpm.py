"""STFPM: a student learns to answer like the backbone, on normal parts only.

Wang, Han, Ding, Huang, "Student-teacher feature pyramid matching for anomaly
detection", BMVC 2021. Where the student answers otherwise (section 3.2, equation 1),
the part is not one of those it has learnt.

We leave the paper in these places:

- The backbone's batch norms are folded into its convolutions, so the student has none.
  Layer-sequential unit variance (Mishkin & Matas, "All you need is a good init", ICLR
  2016) gives it the scale that batch norm would; Adam trains it instead of SGD.
- The maps of the levels are added, not multiplied (section 3.3): a product of three
  small numbers multiplies what engines differ by, and one level that agrees by chance
  hides the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyimgano.backbones import create_backbone
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
class STFPMConfig:
    """Hyper-parameters of STFPM."""

    backbone: str = option("efficientnet_lite0", "teacher, and shape of the student")
    taps: tuple[str, ...] = option(
        ("stage2", "stage3", "stage5"),
        "levels that are compared: stage names, or stride8 etc.",
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
    steps: int = option(600, "training steps at most", low=1, high=1_000_000)
    batch_size: int = option(8, "pictures per step", low=1, high=1024)
    learning_rate: float = option(1e-3, "of the Adam optimizer", low=1e-7, high=1.0)
    sigma_px: float = option(
        4.0, "Gaussian smoothing of the map, in map pixels", low=0.0, high=64.0
    )
    weights_file: str | None = option(
        None, "local weights file of the backbone (absolute path); null: its package"
    )


class STFPM(Detector):
    """Student of the backbone's own shape, compared with it level by level."""

    name = "stfpm"
    Config: ClassVar[type[Any]] = STFPMConfig
    needs_weights = True
    trains = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fast": {"image_size": (192, 192), "steps": 300},
        "fine": {"image_size": (384, 384), "steps": 1000},
    }

    config: STFPMConfig
    backbone: Backbone

    def __init__(
        self, config: STFPMConfig, *, backbone: Backbone | None = None
    ) -> None:
        super().__init__(config, backbone=backbone)
        assert backbone is not None
        self.pixels = PixelInput(
            config.image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=config.geometry,
        )
        taps = [tap.name for tap in backbone.taps]
        self.student = create_backbone(config.backbone, taps=taps, pretrained=False)
        self.distances = LevelDistances()
        self.map_output = MapOutput(
            config.image_size,
            config.sigma_px,
            grid=finest_grid(self.pixels, backbone),
        )

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch; see `Detector.forward`."""
        x = self.pixels(images_u8)  # (N, 3, h, w)
        distances = self.distances(self.backbone(x), self.student(x))
        anomaly_map = self.map_output(sum_on_finest(distances))
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Train the student on the teacher's levels of the normals."""
        self.eval().to(context.device)
        known = LevelSet.collect(
            data.normals(),
            self.pixels,
            self.backbone,
            n_images=data.n_normals,
            context=context,
            with_pixels=True,
        )
        tuning = tuning_levels(
            data.tuning_normals(),
            self.pixels,
            self.backbone,
            context=context,
            with_pixels=True,
        )
        config, generator = self.config, context.generator
        self.student.requires_grad_(True)
        initialize(self.student, generator)
        first = known.images(torch.arange(min(len(known), 8)), context.device)
        _to_unit_variance(self.student, first[0])
        optimizer = torch.optim.AdamW(
            self.student.parameters(), lr=config.learning_rate, weight_decay=1e-4
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.steps)

        def loss_of(levels: list[Tensor]) -> Tensor:
            x, *teacher = levels
            return mean_of_levels(self.distances(teacher, self.student(x)))

        def step() -> Tensor:
            picks = draw_batch(len(known), config.batch_size, generator)
            return loss_of(known.images(picks, context.device))

        def tuning_loss() -> float:
            losses = [float(loss_of(levels)) * len(levels[0]) for levels in tuning]
            return sum(losses) / sum(len(levels[0]) for levels in tuning)

        train_by_gradient(
            self.student,
            optimizer,
            step,
            plan=LoopPlan(steps=config.steps),
            context=context,
            name="student",
            scheduler=scheduler,
            tuning_loss=tuning_loss if tuning else None,
        )
        self.student.requires_grad_(False)
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


@torch.no_grad()
def _to_unit_variance(network: nn.Module, pixels: Tensor) -> None:
    """Scale each convolution, in the order of the data, to outputs of variance 1."""

    def rescale(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        del inputs
        scale = output.std().clamp_min(1e-6)
        layer.weight.div_(scale)  # type: ignore[operator]
        return output / scale

    hooks = [
        layer.register_forward_hook(rescale)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    network(pixels)
    for hook in hooks:
        hook.remove()
