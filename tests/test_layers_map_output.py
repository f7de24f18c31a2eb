"""The map: upsampled and smoothed by one matrix for each side."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pyimgano.detectors.layers import GaussianSmooth, MapOutput

# Two float32 matrix products against a resize and two convolutions: measured 4e-7.
CLOSE = 2e-6


@pytest.mark.parametrize(
    ("grid", "map_size", "sigma_px"),
    [
        ((32, 32), (256, 256), 4.0),
        ((48, 24), (96, 192), 8.0),
        ((7, 9), (56, 71), 1.5),
        ((8, 8), (8, 8), 3.0),
        ((5, 4), (40, 32), 0.0),
        ((4, 4), (16, 16), 60.0),  # the kernel is wider than the map
    ],
)
def test_the_matrices_upsample_and_smooth(
    grid: tuple[int, int], map_size: tuple[int, int], sigma_px: float
) -> None:
    x = torch.rand(3, *grid, generator=torch.Generator().manual_seed(0))
    upsampled = F.interpolate(x.unsqueeze(1), size=map_size, mode="bilinear")
    expected = GaussianSmooth(map_size, sigma_px)(upsampled).squeeze(1)
    found = MapOutput(map_size, sigma_px, grid=grid)(x)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE)


def test_a_constant_stays_constant() -> None:
    found = MapOutput((64, 96), 5.0, grid=(8, 12))(torch.full((1, 8, 12), 3.0))
    torch.testing.assert_close(found, torch.full((1, 64, 96), 3.0))
