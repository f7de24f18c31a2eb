"""What student-teacher detectors share: a frozen teacher's levels, computed once.

The teacher is the backbone; its taps are the levels. `LevelSet` keeps all levels of
all pictures (`FeatureSet`), so that a training step runs the trained part alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone

from .feature_set import FeatureSet
from .interface import FitContext
from .layers import PixelInput

Shape = tuple[int, int, int]  # (C, h, w) of one picture


@dataclass(frozen=True, slots=True)
class LevelSet:
    """The levels of many pictures, and, where asked for, their pixels."""

    everything: FeatureSet  # (n, D, 1, 1), one level behind the other
    shapes: tuple[Shape, ...]

    @classmethod
    def collect(
        cls,
        batches: Iterable[Tensor],
        pixels: PixelInput,
        backbone: Backbone,
        *,
        n_images: int,
        context: FitContext,
        name: str = "features",
        with_pixels: bool = False,
    ) -> Self:
        """Compute the levels of uint8 batches (B, H, W, 3).

        Args:
            with_pixels: put the normalized pixels (3, h, w) before the levels.
        """
        shapes: list[Shape] = []

        def compute(images_u8: Tensor) -> Tensor:
            x = pixels(images_u8)  # (B, 3, h, w)
            levels = [x, *backbone(x)] if with_pixels else list(backbone(x))
            shapes[:] = [(v.shape[1], v.shape[2], v.shape[3]) for v in levels]
            flat = torch.cat([v.flatten(1) for v in levels], dim=1)
            return flat[:, :, None, None]

        everything = FeatureSet.collect(
            batches, compute, n_images=n_images, context=context, name=name
        )
        return cls(everything, tuple(shapes))

    def __len__(self) -> int:
        return len(self.everything)

    def images(self, indices: Tensor, device: torch.device) -> list[Tensor]:
        """Give the levels (B, C, h, w) of some pictures."""
        rest = self.everything.images(indices).flatten(1).to(device)  # (B, D)
        levels = []
        for channels, height, width in self.shapes:
            size = channels * height * width
            levels.append(rest[:, :size].reshape(-1, channels, height, width))
            rest = rest[:, size:]
        return levels


def tuning_levels(
    batches: Iterable[Tensor],
    pixels: PixelInput,
    backbone: Backbone,
    *,
    context: FitContext,
    with_pixels: bool = False,
) -> list[list[Tensor]]:
    """Give the levels of each batch of tuning normals; few, so kept in memory."""
    found = []
    with torch.no_grad():
        for batch in batches:
            x = pixels(batch.to(context.device))
            found.append([x, *backbone(x)] if with_pixels else list(backbone(x)))
    return found


class LevelDistances(nn.Module):
    """Teacher's and student's levels to one anomaly map per level.

    Half the squared distance of the features at unit length, per cell (STFPM, Wang et
    al. 2021, equation 1); it equals 1 - cosine similarity (reverse distillation, Deng
    & Li 2022, equation 1), and keeps its digits where the two agree.
    """

    def forward(
        self, teacher: Sequence[Tensor], student: Sequence[Tensor]
    ) -> list[Tensor]:
        """Give (N, 1, h, w) per level, each within 0..2."""
        return [
            0.5
            * (F.normalize(t, dim=1) - F.normalize(s, dim=1))
            .square()
            .sum(dim=1, keepdim=True)
            for t, s in zip(teacher, student, strict=True)
        ]


def mean_of_levels(distances: Sequence[Tensor]) -> Tensor:
    """Give the training loss: the mean over cells, summed over levels."""
    return torch.stack([distance.mean() for distance in distances]).sum()


@torch.no_grad()
def finest_grid(pixels: PixelInput, backbone: Backbone) -> tuple[int, int]:
    """Give (h, w) of the finest level, by running an empty picture."""
    device = next(backbone.parameters()).device
    empty = torch.zeros(1, 8, 8, 3, dtype=torch.uint8, device=device)
    levels = backbone(pixels.to(device)(empty))
    height, width = max((v.shape[-2:] for v in levels), key=lambda size: size[0])
    return height, width


def sum_on_finest(distances: Sequence[Tensor]) -> Tensor:
    """Give (N, h, w): the levels' maps, each brought to the finest grid, added."""
    grid = max((d.shape[-2:] for d in distances), key=lambda size: size[0])
    on_grid = [
        F.interpolate(d, size=grid, mode="bilinear", align_corners=False)
        if d.shape[-2:] != grid
        else d
        for d in distances
    ]
    return torch.cat(on_grid, dim=1).sum(dim=1)
