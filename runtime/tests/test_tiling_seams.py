"""Seams: where tiles meet, the joined map is the one that no cut would have given."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import write_bundle

from pyimgano_runtime.tile_weights import LARGEST, MEANS, axis_weights
from pyimgano_runtime.tiling import (
    BLENDS,
    JoinedMap,
    Tiling,
    each_tile,
    merge_maps,
    merge_scores,
    merged_size,
    score_picture,
    tile_origins,
)

# A blur of 9 x 9 pixels is another near a tile's border, where it sees no further: by
# so many grey levels, where the picture's slope is at most 1.1 a pixel. Measured are
# 1.62, 1.12, 0.0059 and 0.0034.
BLUR_TOLERANCE = {"max": 2.0, "mean": 1.5, "hann": 0.01, "gaussian": 0.01}
SPOT = 6  # pixels a side of a defect
BLUR = 4  # pixels to each side


class Blurred:
    """An engine whose map is the grey picture, blurred over a few pixels or none."""

    name = "blurred"
    has_map = True

    def __init__(self, reach: int = 0, *, every: int = 1) -> None:
        self.reach, self.every = reach, every
        self.batches: list[int] = []

    def run(
        self, images_u8: np.ndarray, *, with_map: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self.batches.append(len(images_u8))
        maps = images_u8[:, :: self.every, :: self.every, 0].astype(np.float32)
        for axis in (1, 2):
            maps = self._mean(maps, axis)
        return maps.max(axis=(1, 2)), maps if with_map else None

    def _mean(self, maps: np.ndarray, axis: int) -> np.ndarray:
        if not self.reach:
            return maps
        around = [(0, 0)] * 3
        around[axis] = (self.reach, self.reach)
        padded = np.pad(maps, around, mode="edge")
        n = maps.shape[axis]
        shifted = [
            padded.take(range(start, start + n), axis=axis)
            for start in range(2 * self.reach + 1)
        ]
        return np.mean(shifted, axis=0, dtype=np.float32)


def waves(height: int, width: int) -> np.ndarray:
    """Give a picture that varies smoothly, and so that its scale shows."""
    rows, columns = np.ogrid[:height, :width]
    grey = 128 + 60 * np.sin(rows / 60) + 60 * np.cos(columns / 75 + rows / 200)
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def joined(
    image: np.ndarray, tiling: Tiling | None, *, reach: int = 0, every: int = 1
) -> np.ndarray:
    engine = Blurred(reach, every=every)
    _, anomaly_map = score_picture(engine, image, tiling, with_map=True)
    assert anomaly_map is not None
    return anomaly_map


def random_cases(n: int) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
    """Give (size of a picture, size of a tile, overlap), the same ones every time."""
    random = np.random.default_rng(7)
    return [
        (
            (int(random.integers(1, 160)), int(random.integers(1, 160))),
            (int(random.integers(1, 60)), int(random.integers(1, 60))),
            float(random.choice([0.0, 0.1, 0.25, 0.5, 0.75])),
        )
        for _ in range(n)
    ]


# --- weights ------------------------------------------------------------------------


def test_weights_are_what_the_format_says() -> None:
    hann, gaussian = [156, 1264, 2832, 3940], [9, 180, 1330, 3615]
    assert axis_weights("hann", 8).tolist() == hann + hann[::-1]
    assert axis_weights("gaussian", 8).tolist() == gaussian + gaussian[::-1]
    assert axis_weights("mean", 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("blend", MEANS)
def test_weights_are_whole_never_0_and_the_same_from_both_ends(blend: str) -> None:
    for cells in range(1, 300):
        weights = axis_weights(blend, cells)
        assert weights.min() >= 1
        assert weights.max() <= LARGEST
        assert np.array_equal(weights, np.rint(weights))
        assert np.array_equal(weights, weights[::-1])


def test_the_last_bits_of_a_languages_sine_do_not_matter() -> None:
    """No share lies so near a half that another sine would give another number."""
    for cells in range(1, 1025):
        places = (np.arange(cells) + 0.5) / cells
        for shares in (
            np.sin(np.pi * places) ** 2,
            np.exp(-32 * (places - 0.5) ** 2),
        ):
            from_half = np.abs((LARGEST * shares) % 1 - 0.5).min()
            assert from_half > 1e-7  # measured 7e-7; a wrong last bit is 1e-12


# --- the join as the format says it -------------------------------------------------


def whole(number: int, cells: int, tile: int) -> int:
    return (2 * number * cells + tile) // (2 * tile)


def by_the_format(
    maps: np.ndarray, size: tuple[int, int], tiling: Tiling
) -> list[list[float]]:
    """Join maps as docs/bundle_format.md says it, a number at a time."""
    padded = [max(side, tile) for side, tile in zip(size, tiling.size, strict=True)]
    cells = maps.shape[1:]
    sides = [max(1, whole(*of)) for of in zip(padded, cells, tiling.size, strict=True)]
    total = [[0.0] * sides[1] for _ in range(sides[0])]
    sums = [[0.0] * side for side in sides]
    weights = [[_weight(tiling.blend, i, n) for i in range(n)] for n in cells]
    origins = tile_origins((padded[0], padded[1]), tiling)
    starts = [
        [
            min(whole(place[axis], cells[axis], tiling.size[axis]), sides[axis] - n)
            for place in origins
        ]
        for axis, n in enumerate(cells)
    ]
    for axis in (0, 1):
        for start in {
            o: s
            for o, s in zip(
                [place[axis] for place in origins], starts[axis], strict=True
            )
        }.values():
            for i, weight in enumerate(weights[axis]):
                sums[axis][start + i] += weight
    for anomaly_map, top, left in zip(maps, *starts, strict=True):
        for i in range(cells[0]):
            for j in range(cells[1]):
                value = float(anomaly_map[i, j]) * weights[0][i] * weights[1][j]
                total[top + i][left + j] += value
    kept = merged_size(size, (cells[0], cells[1]), tiling)
    return [
        [
            float(np.float32(total[r][c] / sums[0][r] / sums[1][c]))
            for c in range(kept[1])
        ]
        for r in range(kept[0])
    ]


def _weight(blend: str, i: int, n: int) -> float:
    place = (i + 0.5) / n
    if blend == "hann":
        share = math.sin(math.pi * place) ** 2
    elif blend == "gaussian":
        share = math.exp(-32 * (place - 0.5) ** 2)
    else:
        return 1.0
    return max(1.0, math.floor(4096 * share + 0.5))


@pytest.mark.parametrize("blend", MEANS)
def test_a_reader_written_from_the_format_gives_the_same_map(blend: str) -> None:
    random = np.random.default_rng(1)
    for size, tile, overlap in random_cases(12):
        tiling = Tiling(size=tile, overlap=overlap, blend=blend)
        cells = (max(1, tile[0] // 4), max(1, tile[1] // 3))
        padded = (max(size[0], tile[0]), max(size[1], tile[1]))
        n = len(tile_origins(padded, tiling))
        if n * cells[0] * cells[1] > 20_000:
            continue
        maps = random.normal(5, 2, (n, *cells)).astype(np.float32)
        found = merge_maps(maps, size, tiling)
        assert found.tolist() == by_the_format(maps, size, tiling)


# --- without a seam -----------------------------------------------------------------


@pytest.mark.parametrize("blend", BLENDS)
def test_any_picture_of_any_size_joins_to_itself_to_the_bit(blend: str) -> None:
    """Every pixel is covered, and where tiles agree they give what they agree on."""
    random = np.random.default_rng(2)
    for size, tile, overlap in random_cases(40):
        image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        tiling = Tiling(size=tile, overlap=overlap, blend=blend)
        assert np.array_equal(joined(image, tiling), image[..., 0])


@pytest.mark.parametrize("blend", BLENDS)
def test_fractions_join_to_themselves_to_the_bit(blend: str) -> None:
    level = np.float32(0.1)
    tiling = Tiling(size=(64, 64), overlap=0.75, blend=blend)
    maps = np.full((len(tile_origins((200, 300), tiling)), 33, 47), level, np.float32)
    assert (merge_maps(maps, (200, 300), tiling) == level).all()


@pytest.mark.parametrize("blend", BLENDS)
def test_maps_of_any_size_leave_no_cell_out(blend: str) -> None:
    random = np.random.default_rng(3)
    for size, tile, overlap in random_cases(40):
        tiling = Tiling(size=tile, overlap=overlap, blend=blend)
        cells = tuple(int(random.integers(1, side + 1)) for side in tile)
        padded = (max(size[0], tile[0]), max(size[1], tile[1]))
        maps = np.ones((len(tile_origins(padded, tiling)), *cells), np.float32)
        assert (merge_maps(maps, size, tiling) == 1).all()


@pytest.mark.parametrize("blend", MEANS)
def test_tiles_that_do_not_overlap_are_left_as_they_are(blend: str) -> None:
    tiling = Tiling(size=(32, 32), overlap=0.0, blend=blend)
    maps = np.random.default_rng(0).normal(0, 9, (6, 16, 16)).astype(np.float32)
    rows = [np.concatenate(maps[start : start + 3], axis=1) for start in (0, 3)]
    assert np.array_equal(merge_maps(maps, (64, 96), tiling), np.concatenate(rows))


@pytest.mark.parametrize("blend", BLENDS)
def test_a_smooth_picture_is_the_same_with_and_without_tiles(blend: str) -> None:
    image = waves(300, 420)
    untiled = joined(image, None, reach=BLUR)
    tiled = joined(image, Tiling(size=(96, 128), blend=blend), reach=BLUR)
    assert tiled.shape == untiled.shape
    assert np.abs(tiled - untiled).max() < BLUR_TOLERANCE[blend]


def test_a_fade_shows_less_of_a_tiles_border_than_the_mean() -> None:
    image = waves(300, 420)
    untiled = joined(image, None, reach=BLUR)
    worst = {
        blend: np.abs(
            joined(image, Tiling(size=(96, 128), blend=blend), reach=BLUR) - untiled
        ).max()
        for blend in BLENDS
    }
    assert worst["hann"] < worst["mean"] / 100
    assert worst["gaussian"] < worst["mean"] / 100
    assert worst["mean"] < worst["max"]


def test_two_tiles_that_disagree_fade_into_each_other() -> None:
    maps = np.stack([np.zeros((32, 32)), np.full((32, 32), 4096)]).astype(np.float32)
    size, steps = (32, 48), {}  # two tiles that share 16 columns
    for blend in MEANS:
        row = merge_maps(maps, size, Tiling(size=(32, 32), blend=blend))[0]
        assert (np.diff(row) >= 0).all()
        steps[blend] = float(np.diff(row).max())
    assert steps["mean"] == 2048  # half of the difference, at either end
    assert steps["hann"] < steps["mean"] / 4
    assert steps["gaussian"] < steps["mean"]


# --- a defect on a seam -------------------------------------------------------------


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5])
@pytest.mark.parametrize("every", [1, 4])
def test_a_defect_on_a_seam_is_found_at_its_place(
    blend: str, overlap: float, every: int
) -> None:
    tiling = Tiling(size=(64, 64), overlap=overlap, blend=blend)
    origins = tile_origins((200, 200), tiling)
    borders = sorted({start for start, _ in origins} - {0})
    borders += [start + 64 for start, _ in origins if start + 64 < 200]
    for border in dict.fromkeys(borders):
        image = np.full((200, 200, 3), 20, np.uint8)
        at = slice(border - SPOT // 2, border + SPOT // 2)
        image[at, at] = 220
        found = joined(image, tiling, reach=BLUR // every, every=every)
        bright = np.argwhere(found == found.max()).mean(axis=0)
        middle = (bright + 0.5) * every  # in pixels
        assert np.abs(middle - border).max() <= SPOT / 2 + every


# --- scores -------------------------------------------------------------------------


def top(k: int) -> Tiling:
    return Tiling(size=(8, 8), score="top_k", top_k=k)


def test_the_highest_scores_count_and_all_where_there_are_fewer() -> None:
    scores = np.array([1.0, 7.0, 3.0, 5.0], dtype=np.float32)
    assert merge_scores(scores, top(1)) == scores.max()
    assert merge_scores(scores, top(2)) == np.float32(6.0)
    assert merge_scores(scores, top(3)) == np.float32(5.0)
    assert merge_scores(scores, top(4)) == merge_scores(scores, top(99)) == 4.0


def test_highest_scores_are_added_from_the_highest_on() -> None:
    scores = np.random.default_rng(0).lognormal(0, 20, 999).astype(np.float32)
    total = 0.0
    for score in sorted(map(float, scores), reverse=True)[:700]:
        total += score
    assert merge_scores(scores, top(700)) == np.float32(total / 700)
    assert merge_scores(scores[::-1].copy(), top(700)) == np.float32(total / 700)


def test_a_tile_without_a_number_is_never_left_out() -> None:
    scores = np.array([1.0, np.nan, 3.0], dtype=np.float32)
    assert np.isnan(merge_scores(scores, top(1)))


# --- large frames -------------------------------------------------------------------

FRAME = (4000, 6000)  # 24 megapixels
FRAME_BYTES = FRAME[0] * FRAME[1] * 3
# Beside the frame's own 72 MB: 4 tiles and their maps, and 8 ("max") or 12 bytes for
# each cell of the joined map, here at an eighth or half of the frame's resolution.
PEAK = {("max", 8): 0.25, ("hann", 8): 0.25, ("max", 2): 0.8, ("hann", 2): 1.15}


@pytest.mark.parametrize(("blend", "every"), PEAK)
def test_a_frame_of_24_megapixels_takes_little_more_than_itself(
    blend: str, every: int
) -> None:
    frame = np.zeros((*FRAME, 3), np.uint8)
    frame[1000:1010, 5000:5010] = 255
    tiling = Tiling(size=(512, 512), blend=blend)
    engine = Blurred(every=every)
    tracemalloc.start()
    try:
        score, found = score_picture(engine, frame, tiling, with_map=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert score == 255
    assert found is not None
    assert found.shape == (FRAME[0] // every, FRAME[1] // every)
    assert peak < PEAK[blend, every] * FRAME_BYTES


# Of the whole command, above the same with a small picture, by the bytes of the frame:
# the file as it was read, its pixels, tiles and map. Measured: 1.84.
COMMAND_PEAK = 2.1
COMMAND = """
import sys
from pathlib import Path
from pyimgano_runtime.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status").read_text("ascii").splitlines()
print([line.split()[1] for line in status if line.startswith("VmHWM")][0])
raise SystemExit(code)
"""


def peak_bytes(bundle: Path, picture: Path) -> int:
    command = [sys.executable, "-c", COMMAND, "infer", "--bundle", str(bundle)]
    done = subprocess.run([*command, str(picture)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_the_command_keeps_no_second_frame_of_24_megapixels(tmp_path: Path) -> None:
    def edit(payload: dict[str, Any]) -> None:
        tiling = {"size": [512, 768], "overlap": 0.25, "blend": "hann"}
        part = payload["categories"]["part"]
        part["tiling"] = tiling | {"score": "top_k", "top_k": 3}
        part["map_geometry"]["mode"] = "tiles"
        payload |= {"schema_version": "1.3", "requires": ["tiling"]}

    bundle = write_bundle(tmp_path / "b", golden_levels=(), edit=edit)
    frame, small = tmp_path / "frame.npy", tmp_path / "small.npy"
    np.save(frame, np.full((*FRAME, 3), 90, np.uint8))
    np.save(small, np.full((512, 768, 3), 90, np.uint8))
    extra = peak_bytes(bundle, frame) - peak_bytes(bundle, small)
    assert extra < COMMAND_PEAK * FRAME_BYTES


def test_tiles_are_views_of_the_picture() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    for tile in each_tile(image, Tiling(size=(64, 64))):
        assert np.shares_memory(tile, image)


def test_of_very_large_tiles_fewer_are_taken_at_once() -> None:
    sizes = {(512, 512): 4, (1024, 1024): 4, (2048, 1024): 2, (4096, 4096): 1}
    for size, at_once in sizes.items():
        assert Tiling(size=size).tiles_at_once == at_once
    engine = Blurred(every=64)
    frame = np.zeros((2048, 2048, 3), np.uint8)
    score_picture(engine, frame, Tiling(size=(1024, 2048), overlap=0), with_map=False)
    score_picture(engine, frame, Tiling(size=(2048, 2048), overlap=0), with_map=False)
    assert engine.batches == [2, 1]


def test_a_joined_map_may_be_asked_for_twice() -> None:
    made = JoinedMap((64, 64), (8, 8), Tiling(size=(64, 64), blend="hann"))
    made.add(np.full((8, 8), 0.3, np.float32))
    assert np.array_equal(made.result(), made.result())
