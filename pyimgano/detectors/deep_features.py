"""Locally averaged features of several taps on one grid.

PatchCore, section 3.1 (Roth et al., "Towards total recall in industrial anomaly
detection", CVPR 2022): features of several depths, each averaged over its
neighbourhood, are brought to the finest tap's grid and stacked. On the coarsest tap's
grid there are fewer patches: a quarter for strides 8 and 16.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyimgano.backbones.interface import Backbone

from .layers import LocalAverage, PixelInput

GRIDS: Final = ("finest", "coarsest")


class DeepFeatures(nn.Module):
    """(N, H, W, 3) uint8 images -> (N, C, h, w) float32 features.

    C is the sum of the taps' channels.

    Args:
        grid: of `GRIDS`: which tap's grid (h, w) is taken. Coarser taps are
            interpolated to it, finer ones averaged over its cells.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_size: tuple[int, int],
        *,
        geometry: str = "stretch",
        grid: str = "finest",
    ) -> None:
        super().__init__()
        self.grid = grid
        self.pixels = PixelInput(
            image_size,
            mean=backbone.pixel_mean,
            std=backbone.pixel_std,
            geometry=geometry,
        )
        self.average = LocalAverage()
        self.channels = sum(tap.channels for tap in backbone.taps)

    def forward(self, images_u8: Tensor, backbone: Backbone) -> Tensor:
        levels = [self.average(level) for level in backbone(self.pixels(images_u8))]
        sizes = [(level.shape[2], level.shape[3]) for level in levels]
        pick = {"finest": max, "coarsest": min}[self.grid]
        grid = pick(sizes, key=lambda size: size[0])
        on_grid = [_on_grid(level, grid) for level in levels]
        return torch.cat(on_grid, dim=1)  # (N, C, h, w)

    def key(self, backbone: Backbone) -> Hashable:
        """Give what makes the features of two instances equal."""
        several = len({tap.stride for tap in backbone.taps}) > 1
        grid = self.grid if several else None  # of one stride there is one grid
        return (id(backbone), self.pixels.image_size, self.pixels.geometry, grid)

    @torch.no_grad()
    def shape_of(self, backbone: Backbone) -> tuple[int, int, int]:
        """Give (C, h, w) of one picture's features, by running an empty picture."""
        device = next(backbone.parameters()).device
        empty = torch.zeros(1, 8, 8, 3, dtype=torch.uint8, device=device)
        _, channels, height, width = self.to(device)(empty, backbone).shape
        return channels, height, width

    def grid_of(self, backbone: Backbone) -> tuple[int, int]:
        """Give (h, w) of one picture's features; see `shape_of`."""
        _, height, width = self.shape_of(backbone)
        return height, width

    def describe(self) -> list[dict[str, Any]]:
        """Give the steps as infer_config.json lists them."""
        return self.pixels.describe()


def _on_grid(level: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring a tap (N, C, H, W) to a grid (h, w)."""
    height, width = level.shape[2:]
    if (height, width) == grid:
        return level
    if height < grid[0]:
        return F.interpolate(level, size=grid, mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(level, grid)
