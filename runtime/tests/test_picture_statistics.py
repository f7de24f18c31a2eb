"""Brightness and sharpness against pictures whose numbers are known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_bundle import grey

from pyimgano_runtime.picture_statistics import (
    LONGEST_SIDE,
    picture_statistics,
    shrunk_size,
)

TEXTURE = np.random.default_rng(3).integers(0, 256, (48, 64), dtype=np.uint8)


def rgb(image: object) -> np.ndarray:
    return np.repeat(np.asarray(image, np.uint8)[:, :, None], 3, axis=2)


def enlarged(image: np.ndarray, times: int) -> np.ndarray:
    return image.repeat(times, axis=0).repeat(times, axis=1)


def test_a_flat_picture_has_its_grey_level_and_no_sharpness() -> None:
    found = picture_statistics(grey(37))
    assert (found.brightness, found.sharpness) == (37.0, 0.0)


@pytest.mark.parametrize(
    ("channel", "weight"), [(0, 0.299), (1, 0.587), (2, 0.114)], ids="RGB"
)
def test_a_channel_counts_as_in_bt_601(channel: int, weight: float) -> None:
    image = grey(0)
    image[:, :, channel] = 200
    assert picture_statistics(image).brightness == pytest.approx(200 * weight)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    image = rgb([[0, 0, 0, 0], [0, 10, 0, 0], [0, 0, 0, 0]])
    # Its two inner points: -4 x 10, and 10 from its left neighbour.
    assert picture_statistics(image).sharpness == np.var([-40, 10])


def test_the_laplacian_of_a_texture_is_that_of_numpy() -> None:
    values = TEXTURE.astype(float)
    inner = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] - 4 * inner
    laplacian += values[1:-1, :-2] + values[1:-1, 2:]
    found = picture_statistics(rgb(TEXTURE))
    assert found.sharpness == pytest.approx(laplacian.var(), rel=1e-12)
    assert found.brightness == pytest.approx(values.mean(), rel=1e-12)


def test_another_resolution_of_the_camera_gives_the_same_numbers() -> None:
    cells = np.tile(TEXTURE, (8, 6))  # 384 x 384
    assert max(cells.shape) == LONGEST_SIDE
    once = picture_statistics(rgb(cells))
    for times in (2, 3):
        found = picture_statistics(rgb(enlarged(cells, times)))
        assert found.brightness == pytest.approx(once.brightness)
        assert found.sharpness == pytest.approx(once.sharpness)


def test_a_blurred_picture_is_less_sharp_and_as_bright() -> None:
    sharp = np.tile(TEXTURE, (2, 2)).astype(float)
    blurred = (sharp + np.roll(sharp, 1, 0) + np.roll(sharp, 1, 1)) / 3
    before, after = (picture_statistics(rgb(x.round())) for x in (sharp, blurred))
    assert after.sharpness < before.sharpness / 3
    assert after.brightness == pytest.approx(before.brightness, abs=0.5)


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (900, 2), (1, 5000), (3, 3)])
def test_tiny_and_thin_pictures_have_numbers_too(size: tuple[int, int]) -> None:
    found = picture_statistics(grey(90, *size))
    assert (found.brightness, found.sharpness) == (90.0, 0.0)


def test_the_largest_numbers_are_exact() -> None:
    board = np.indices((LONGEST_SIDE, LONGEST_SIDE)).sum(axis=0) % 2 * 255
    found = picture_statistics(rgb(board))
    assert found.brightness == 127.5
    assert found.sharpness == (4 * 255) ** 2  # +1020 and -1020, as often


@pytest.mark.parametrize(
    ("size", "cells"),
    [
        ((300, 200), (300, 200)),
        ((1080, 1920), (216, 384)),
        ((4000, 6000), (256, 384)),
        ((10, 100_000), (1, 384)),
    ],
)
def test_the_longer_side_is_shrunk_to_384_cells(
    size: tuple[int, int], cells: tuple[int, int]
) -> None:
    assert shrunk_size(size) == cells
