"""Tiles: every pixel is covered, and what is joined lies where it was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import category, edit_document, write_bundle

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.infer_config import MapGeometry, version_facts
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.reference import Reference, distribution_of
from pyimgano_runtime.tiling import (
    BLENDS,
    SCORES,
    TILES_AT_ONCE,
    Tiling,
    cut_tiles,
    merge_maps,
    merge_scores,
    merged_size,
    score_picture,
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
@pytest.mark.parametrize("blend", BLENDS)
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
        {"size": (8, 8), "score": "hann"},
        {"size": (8, 8), "score": "top_k", "top_k": 0},
    ],
)
def test_a_tiling_that_cannot_be_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="found"):
        Tiling(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"score": "top_k"}, {"top_k": 3}, {"score": "mean", "top_k": 3}]
)
def test_top_k_stands_exactly_with_its_score(wrong: dict) -> None:
    with pytest.raises(ValueError, match="top_k"):
        Tiling(size=(8, 8), **wrong)


def test_another_number_of_maps_than_tiles_is_refused() -> None:
    maps = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="expected 4 maps"):
        merge_maps(maps, (16, 16), Tiling(size=(8, 8), overlap=0))
    with pytest.raises(ValueError, match="expected"):
        merge_scores(np.zeros(0, np.float32), Tiling(size=(8, 8)))


# --- bounded maps -------------------------------------------------------------------


def test_a_joined_map_is_never_much_larger_than_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pyimgano_runtime.tiling.MAX_CELLS", 20 * 30)
    tiling = Tiling(size=(64, 64), overlap=0.0)
    maps = np.zeros((6, 16, 16), np.float32)  # (32, 48) cells, were it not bounded
    maps[4, 3, 5] = 7.0
    joined = merge_maps(maps, (128, 192), tiling)
    assert joined.shape == merged_size((128, 192), (16, 16), tiling) == (20, 30)
    row, column = np.unravel_index(joined.argmax(), joined.shape)
    assert joined[row, column] == 7.0  # a peak is kept
    assert np.abs(np.array([row, column]) - np.array([19, 21]) * 10 / 16).max() < 1


def test_as_many_cells_as_the_bound_are_left_as_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiling = Tiling(size=(64, 64))
    maps = np.random.default_rng(0).random((6, 16, 16)).astype(np.float32)
    whole = merge_maps(maps, (100, 150), tiling)
    monkeypatch.setattr("pyimgano_runtime.tiling.MAX_CELLS", 25 * 38)
    assert np.array_equal(merge_maps(maps, (100, 150), tiling), whole)


# --- around an engine ---------------------------------------------------------------


class Brightest:
    """An engine whose map is the grey picture at half its size."""

    name = "brightest"
    has_map = True

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run(
        self, images_u8: np.ndarray, *, with_map: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self.batches.append(len(images_u8))
        maps = images_u8[:, ::2, ::2, 0].astype(np.float32)
        return maps.max(axis=(1, 2)), maps if with_map else None


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("score", SCORES)
def test_a_picture_is_scored_as_its_tiles_are_joined(blend: str, score: str) -> None:
    top_k = 3 if score == "top_k" else None
    tiling = Tiling(size=(32, 32), blend=blend, score=score, top_k=top_k)
    image = numbered(100, 130)
    engine = Brightest()
    found, anomaly_map = score_picture(engine, image, tiling, with_map=True)
    scores, maps = engine.run(cut_tiles(image, tiling), with_map=True)
    assert maps is not None
    assert anomaly_map is not None
    assert found == merge_scores(scores, tiling)
    assert np.array_equal(anomaly_map, merge_maps(maps, (100, 130), tiling))
    without, none = score_picture(engine, image, tiling, with_map=False)
    assert (without, none) == (found, None)


def test_an_engine_takes_a_few_tiles_at_a_time() -> None:
    engine = Brightest()
    score_picture(engine, numbered(160, 160), Tiling(size=(32, 32)), with_map=True)
    assert sum(engine.batches) == len(tile_origins((160, 160), Tiling(size=(32, 32))))
    assert max(engine.batches) == TILES_AT_ONCE


def test_without_tiles_the_engine_takes_the_picture() -> None:
    engine, image = Brightest(), numbered(20, 30)
    score, anomaly_map = score_picture(engine, image, None, with_map=True)
    assert engine.batches == [1]
    assert anomaly_map is not None
    assert np.array_equal(anomaly_map, image[::2, ::2, 0])
    assert score == anomaly_map.max()


# --- in a bundle --------------------------------------------------------------------

TILES: dict[str, Any] = {
    "size": [32, 48],
    "overlap": 0.25,
    "blend": "max",
    "score": "max",
}


def tiled(folder: Path, **changes: Any) -> Path:
    """Write a bundle that cuts pictures into tiles."""

    def edit(payload: dict[str, Any]) -> None:
        payload["requires"] = ["tiling"]
        part = payload["categories"]["part"]
        part["tiling"] = TILES | changes
        part["map_geometry"]["mode"] = "tiles"

    return write_bundle(folder, golden_levels=(), edit=edit)


def test_a_predictor_cuts_pictures_and_joins_their_maps(tmp_path: Path) -> None:
    predictor = Predictor.open(tiled(tmp_path / "b"))
    image = np.full((96, 144, 3), 40, np.uint8)
    image[70:74, 100:104] = 255
    prediction = predictor.predict(image)
    anomaly_map = prediction.anomaly_map
    assert anomaly_map is not None
    assert anomaly_map.shape == (12, 18)  # 4 x 6 cells of each tile of 32 x 48
    assert prediction.map_mode == "tiles"
    assert prediction.score == anomaly_map.max()
    over = map_to_image(anomaly_map, (96, 144), mode=prediction.map_mode)
    row, column = np.argwhere(over == over.max()).mean(axis=0)
    assert abs(row - 71.5) < 8  # a cell
    assert abs(column - 101.5) < 8


def test_pictures_of_a_batch_are_each_cut(tmp_path: Path) -> None:
    predictor = Predictor.open(tiled(tmp_path / "b"))
    images = [numbered(60, 70), numbered(60, 70)[::-1].copy()]
    together = predictor.predict_batch(images)
    alone = [predictor.predict(image) for image in images]
    assert [one.score for one in together] == [one.score for one in alone]


def test_tiling_comes_back_as_it_was_written(tmp_path: Path) -> None:
    config = open_bundle(tiled(tmp_path / "b", blend="mean")).config
    category = config.categories["part"]
    assert category.tiling == Tiling(size=(32, 48), blend="mean")
    assert config.to_dict()["categories"]["part"]["tiling"] == TILES | {"blend": "mean"}


def test_top_k_comes_back_as_it_was_written(tmp_path: Path) -> None:
    changes = {"blend": "gaussian", "score": "top_k", "top_k": 4}
    config = open_bundle(tiled(tmp_path / "b", **changes)).config
    tiling = config.categories["part"].tiling
    assert tiling == Tiling(size=(32, 48), blend="gaussian", score="top_k", top_k=4)
    assert config.to_dict()["categories"]["part"]["tiling"] == TILES | changes
    null = open_bundle(tiled(tmp_path / "c", top_k=None)).config
    assert null.to_dict()["categories"]["part"]["tiling"] == TILES


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [31, 48]}, r"part.tiling.size: found \[31, 48\], .* at least 32"),
        ({"overlap": 0.9}, "tiling.overlap: found 0.9, expected .* 0 to 0.75"),
        ({"blend": "median"}, 'tiling.blend: found "median"'),
        ({"score": "sum"}, 'tiling.score: found "sum"'),
        ({"score": "gaussian"}, 'tiling.score: found "gaussian"'),
        ({"score": "top_k"}, "part.tiling.top_k: missing; .* how many of the highest"),
        ({"top_k": 2}, 'part.tiling.top_k: has no effect with score "max"'),
        ({"score": "top_k", "top_k": 0}, "tiling.top_k: found 0, .* at least 1"),
        ({"score": "top_k", "top_k": 2.5}, "tiling.top_k: found 2.5, .* whole number"),
        ({"stride": 3}, "tiling.stride: unknown key"),
    ],
)
def test_a_tiling_that_cannot_be_is_no_bundle(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        open_bundle(tiled(tmp_path / "b", **changes))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(requires=[]), '"tiling" does not stand in requires'),
        (
            lambda d: d["categories"]["part"]["map_geometry"].update(mode="stretch"),
            'mode: found "stretch", expected "tiles"',
        ),
        (
            lambda d: d["categories"]["part"].update(tiling=None),
            'mode: found "tiles", expected "tiles" exactly',
        ),
    ],
)
def test_a_tiling_that_others_contradict_is_no_bundle(
    tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    folder = tiled(tmp_path / "b")
    edit_document(folder, edit)
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_a_document_states_the_lowest_version_that_has_its_fields() -> None:
    plain = category()
    boxed = replace(plain, map_geometry=MapGeometry("letterbox", (4, 6)))
    cut = replace(
        plain,
        map_geometry=MapGeometry("tiles", (4, 6)),
        tiling=Tiling(size=(32, 48)),
    )
    assert version_facts([plain]) == {"schema_version": "1.0", "requires": ()}
    assert version_facts([plain, boxed]) == {"schema_version": "1.1", "requires": ()}
    assert version_facts([cut]) == {"schema_version": "1.1", "requires": ("tiling",)}
    for newer in (
        Tiling(size=(32, 48), blend="hann"),
        Tiling(size=(32, 48), blend="gaussian"),
        Tiling(size=(32, 48), score="top_k", top_k=1),
    ):
        facts = version_facts([cut, replace(cut, tiling=newer)])
        assert facts == {"schema_version": "1.3", "requires": ("tiling",)}
    watched = replace(
        plain, reference=Reference(None, *[distribution_of([1.0], 1)] * 2)
    )
    assert version_facts([watched]) == {"schema_version": "1.3", "requires": ()}


@dataclass(frozen=True)
class Source:
    """A detector as far as its map goes."""

    map_mode: str
    size: tuple[int, int] | None

    def map_size(self) -> tuple[int, int] | None:
        return self.size


def test_tiles_are_not_letterboxed() -> None:
    square = Tiling(size=(64, 64))
    for mode, size in (("letterbox", (32, 32)), ("stretch", (32, 64))):
        assert MapGeometry.of(Source(mode, size), square) == MapGeometry("tiles", size)
        assert MapGeometry.of(Source(mode, size), None) == MapGeometry(mode, size)
    assert MapGeometry.of(Source("stretch", None), square) is None
    with pytest.raises(ConfigError, match="aspect ratio of the model's maps"):
        MapGeometry.of(Source("letterbox", (32, 64)), square)
