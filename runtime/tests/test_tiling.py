"""Tiles: every pixel is covered, and what is joined lies where it was cut."""

from __future__ import annotations

import numpy as np
import pytest

from pyimgano_runtime.tiling import (
    Tiling,
    cut_tiles,
    merge_maps,
    merge_scores,
    merged_size,
    tile_origins,
)

SIZES = [(64, 64), (65, 64), (100, 257), (63, 200), (10, 11), (640, 64)]


def numbered(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng([height, width])
    return random.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_tiles_cover_every_pixel(size: tuple[int, int], overlap: float) -> None:
    tiling = Tiling(size=(64, 64), overlap=overlap)
    seen = np.zeros(size, dtype=bool)
    for top, left in tile_origins(size, tiling):
        seen[top : top + 64, left : left + 64] = True
    assert seen.all()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
def test_neighbours_share_at_least_the_overlap(overlap: float) -> None:
    tiling = Tiling(size=(64, 64), overlap=overlap)
    lefts = sorted({left for _, left in tile_origins((64, 1000), tiling)})
    steps = np.diff(lefts)
    assert (64 - steps >= int(64 * overlap)).all()
    assert lefts[-1] == 1000 - 64


def test_a_picture_of_one_tile_is_that_tile() -> None:
    image = numbered(64, 64)
    tiles = cut_tiles(image, Tiling(size=(64, 64)))
    assert np.array_equal(tiles, image[None])


def test_tiles_are_the_picture_at_their_origins() -> None:
    image, tiling = numbered(100, 150), Tiling(size=(64, 48))
    origins = tile_origins((100, 150), tiling)
    for tile, (top, left) in zip(cut_tiles(image, tiling), origins, strict=True):
        assert np.array_equal(tile, image[top : top + 64, left : left + 48])


def test_a_small_picture_is_continued_by_its_border() -> None:
    image = numbered(10, 20)
    (tile,) = cut_tiles(image, Tiling(size=(32, 32)))
    assert np.array_equal(tile[:10, :20], image)
    assert np.array_equal(tile[31, :20], image[9])
    assert np.array_equal(tile[:10, 31], image[:, 19])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("blend", ["max", "mean"])
def test_tiles_of_a_map_join_to_that_map(size: tuple[int, int], blend: str) -> None:
    """A seamless input: what each tile says of a place is the same."""
    tiling = Tiling(size=(64, 64), blend=blend)
    whole = np.random.default_rng(0).random((*size, 1)).astype(np.float32)
    image = np.repeat(whole, 3, axis=2)
    maps = cut_tiles(image, tiling)[..., 0]  # type: ignore[type-var]
    joined = merge_maps(maps, size, tiling)
    np.testing.assert_allclose(joined, whole[..., 0], rtol=1e-6)


def test_max_takes_the_largest_and_mean_the_mean() -> None:
    maps = np.stack([np.full((8, 8), 1.0), np.full((8, 8), 3.0)]).astype(np.float32)
    size = (8, 12)  # two tiles that share four columns
    largest = merge_maps(maps, size, Tiling(size=(8, 8), blend="max"))
    mean = merge_maps(maps, size, Tiling(size=(8, 8), blend="mean"))
    assert largest[0].tolist() == [1.0] * 4 + [3.0] * 8
    assert mean[0].tolist() == [1.0] * 4 + [2.0] * 4 + [3.0] * 4


def test_the_joined_map_has_the_tiles_resolution() -> None:
    tiling = Tiling(size=(64, 64))
    assert merged_size((128, 192), (16, 16), tiling) == (32, 48)
    maps = np.zeros((len(tile_origins((128, 192), tiling)), 16, 16), np.float32)
    assert merge_maps(maps, (128, 192), tiling).shape == (32, 48)


def test_a_peak_lies_where_its_tile_lay() -> None:
    tiling = Tiling(size=(64, 64), overlap=0.0)
    maps = np.zeros((6, 16, 16), np.float32)
    maps[4, 3, 5] = 1.0  # second row, second column: cell (16 + 3, 16 + 5)
    joined = merge_maps(maps, (128, 192), tiling)
    assert np.unravel_index(joined.argmax(), joined.shape) == (19, 21)


def test_scores_join_by_their_rule() -> None:
    scores = np.array([1.0, 4.0, 1.0], dtype=np.float32)
    assert merge_scores(scores, Tiling(size=(8, 8))) == np.float32(4.0)
    assert merge_scores(scores, Tiling(size=(8, 8), score="mean")) == np.float32(2.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 8)},
        {"size": (8, 8), "overlap": 0.9},
        {"size": (8, 8), "overlap": -0.1},
        {"size": (8, 8), "blend": "median"},
        {"size": (8, 8), "score": "sum"},
    ],
)
def test_a_tiling_that_cannot_be_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        Tiling(**wrong)


def test_another_number_of_maps_than_tiles_is_refused() -> None:
    maps = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="expected 4 maps"):
        merge_maps(maps, (16, 16), Tiling(size=(8, 8), overlap=0))
    with pytest.raises(ValueError, match="expected"):
        merge_scores(np.zeros(0, np.float32), Tiling(size=(8, 8)))
