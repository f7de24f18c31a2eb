"""A detector for tests that trains by gradient, in a second and in few lines.

It learns a mean colour and one weight; it takes real defects, and writes down what it
was given.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pyimgano.detectors.interface import Detector, FitContext, TrainingData
from pyimgano.detectors.training_loop import (
    LoopPlan,
    draw_batch,
    initialize,
    train_by_gradient,
)
from pyimgano.option_fields import option

HOME = "learning_detector:Learning"


def pause(seconds: float) -> None:
    """Wait within each step; a test may do something else here."""
    time.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningConfig:
    """How long, and how slow."""

    steps: int = option(40, "training steps", low=1)
    save_every: int = option(5, "steps between two states", low=1)
    sleep_ms: int = option(0, "waits in each step, to be killed in", low=0)


class Learning(Detector):
    """|pixel - mean| times a learned weight."""

    name = "learning"
    Config: ClassVar[type[Any]] = LearningConfig
    trains = True
    uses_defects = True
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    given: ClassVar[list[dict[str, Any]]] = []  # one entry a fit

    def __init__(self, config: LearningConfig, *, backbone: Any = None) -> None:
        super().__init__(config, backbone=backbone)
        self.layer = nn.Linear(3, 3)

    def forward(self, images_u8: Tensor) -> tuple[Tensor, Tensor]:
        """Score a batch by the largest of a few cells."""
        pixels = images_u8.float().permute(0, 3, 1, 2) / 255
        cells = nn.functional.adaptive_avg_pool2d(pixels, (8, 8)).permute(0, 2, 3, 1)
        anomaly_map = (self.layer(cells) - cells).abs().sum(dim=-1)
        return anomaly_map.amax(dim=(1, 2)), anomaly_map

    def fit(self, data: TrainingData, *, context: FitContext) -> Self:
        """Learn to give every pixel back."""
        normals = torch.cat([batch.float() for batch in data.normals()]) / 255
        tuning = [batch.float() / 255 for batch in data.tuning_normals()]
        self.given.append(
            {
                "normals": normals,
                "tuning": torch.cat(tuning) if tuning else None,
                "defects": list(data.defects()),
            }
        )
        colours = normals.mean(dim=(1, 2))  # (N, 3)
        initialize(self, context.generator)
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)

        def step() -> Tensor:
            pause(self.config.sleep_ms / 1000)
            batch = colours[draw_batch(len(colours), 4, context.generator)]
            noisy = batch + torch.randn(batch.shape, generator=context.generator) / 10
            return (self.layer(noisy) - batch).square().mean()

        train_by_gradient(
            self,
            optimizer,
            step,
            plan=LoopPlan(steps=self.config.steps, save_every=self.config.save_every),
            context=context,
            name="training",
        )
        return self.eval()

    def preprocess_steps(self) -> list[dict[str, Any]]:
        """See `Detector.preprocess_steps`."""
        return []

    def map_size(self) -> tuple[int, int]:
        """See `Detector.map_size`."""
        return (8, 8)
