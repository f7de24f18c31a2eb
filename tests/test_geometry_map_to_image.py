"""`map_to_image` is torch's bilinear interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pyimgano_runtime.geometry import map_to_image

# Float32 arithmetic: measured 6.3e-7 of the value.
RELATIVE = 1e-6
SIZES = [
    ((256, 256), (1024, 1024)),
    ((256, 256), (1000, 777)),
    ((224, 224), (1080, 1920)),
    ((64, 48), (333, 517)),
    ((1, 1), (20, 30)),
    ((256, 256), (100, 90)),
]


@pytest.mark.parametrize(("source", "size"), SIZES)
def test_map_to_image_equals_torch_with_exact_coordinates(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    map_f32 = 0.1 + np.random.default_rng(0).random(source, dtype=np.float32)
    # In float32, torch rounds the coordinates too (up to 2e-4 of the value, on noise).
    wide = torch.from_numpy(map_f32).double()[None, None]
    expected = torch.nn.functional.interpolate(
        wide, size, mode="bilinear", align_corners=False
    )
    relative = np.abs(map_to_image(map_f32, size) / expected[0, 0].numpy() - 1)
    assert relative.max() <= RELATIVE


def test_map_to_image_equals_torch_in_float32_where_the_ratio_is_a_power_of_two() -> (
    None
):
    map_f32 = 0.1 + np.random.default_rng(0).random((256, 256), dtype=np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(map_f32)[None, None],
        (1024, 1024),
        mode="bilinear",
        align_corners=False,
    )
    relative = np.abs(map_to_image(map_f32, (1024, 1024)) / expected[0, 0].numpy() - 1)
    assert relative.max() <= RELATIVE
