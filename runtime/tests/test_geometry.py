"""Maps resized to their images, against the definition written out."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from pyimgano_runtime.geometry import map_to_image

# One float32 rounding a step: measured 1.2e-7 of the range.
TOLERANCE = 5e-7
BUDGET_MS = 25.0  # 256 x 256 to 1024 x 1024; measured 7 ms of CPU time


def draw_map(height: int, width: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).random((height, width), dtype=np.float32)


def by_definition(
    source: npt.NDArray[np.float32], size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Bilinear with half-pixel centres and clamped edges, pixel by pixel."""
    h, w = source.shape
    result = np.empty(size)
    for i in range(size[0]):
        y = min(max((i + 0.5) * h / size[0] - 0.5, 0), h - 1)
        for j in range(size[1]):
            x = min(max((j + 0.5) * w / size[1] - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = source[y0, x0] * (x0 + 1 - x) + source[y0, x1] * (x - x0)
            low = source[y1, x0] * (x0 + 1 - x) + source[y1, x1] * (x - x0)
            result[i, j] = top * (y0 + 1 - y) + low * (y - y0)
    return result


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((8, 8), (32, 32)),
        ((8, 6), (31, 47)),
        ((1, 1), (5, 7)),
        ((1, 9), (4, 20)),
        ((16, 16), (16, 16)),
        ((16, 12), (5, 7)),
        ((16, 12), (1, 1)),
    ],
)
def test_every_pixel_is_the_one_of_the_definition(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    map_f32 = draw_map(*source)
    resized = map_to_image(map_f32, size)
    assert resized.shape == size
    assert resized.dtype == np.float32
    assert np.abs(resized - by_definition(map_f32, size)).max() <= TOLERANCE


def test_the_same_size_gives_the_same_map() -> None:
    map_f32 = draw_map(16, 12)
    assert np.array_equal(map_to_image(map_f32, (16, 12)), map_f32)


def test_a_constant_map_stays_constant_to_the_last_bit() -> None:
    map_f32 = np.full((7, 9), 0.1, np.float32)
    assert np.unique(map_to_image(map_f32, (100, 133))).tolist() == [np.float32(0.1)]


def test_corners_keep_the_corner_values() -> None:
    map_f32 = draw_map(4, 4)
    large = map_to_image(map_f32, (64, 64))
    assert large[0, 0] == map_f32[0, 0]
    assert large[-1, -1] == map_f32[-1, -1]


def test_a_map_of_another_layout_or_type_is_taken_and_left_unchanged() -> None:
    map_f32 = draw_map(8, 6)
    before = map_f32.copy()
    other = np.asfortranarray(map_f32, dtype=np.float64)
    assert np.array_equal(
        map_to_image(other, (16, 12)), map_to_image(map_f32, (16, 12))
    )
    assert np.array_equal(map_f32, before)


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 1), (4, 4)), ((0, 3), (4, 4)), ((2, 3), (0, 4))]
)
def test_impossible_shapes_are_value_errors(
    shape: tuple[int, ...], size: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        map_to_image(np.zeros(shape, np.float32), size)


def test_a_megapixel_map_takes_less_than_its_budget() -> None:
    map_f32 = draw_map(256, 256)
    times = []
    for _ in range(7):
        start = time.process_time()  # other processes do not count
        map_to_image(map_f32, (1024, 1024))
        times.append((time.process_time() - start) * 1000)
    assert min(times) < BUDGET_MS
