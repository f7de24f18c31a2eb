"""Large pictures in tiles: cut, score each, and join scores and maps again.

    tiles = cut_tiles(image_u8, tiling)              # (T, h, w, 3)
    score = merge_scores(scores, tiling)             # of (T,)
    anomaly_map = merge_maps(maps, size, tiling)     # of (T, map_h, map_w)

The same functions serve training, calibration and every engine, in the same order, so
that equal tile scores give equal picture scores to the bit. `score_picture` does it all
around an engine, a few tiles at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .quick_dataclass import dataclass

if TYPE_CHECKING:
    from .engine import Engine

Image = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

BLENDS: Final = ("max", "mean")
MIN_TILE: Final = 32  # pixels a side, in documents: less is no picture to a network
MAX_OVERLAP: Final = 0.75  # above it a point lies in more than 16 tiles
MAX_CELLS: Final = 4096 * 4096  # of a joined map: 64 MiB
TILES_AT_ONCE: Final = 8  # in one run of an engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a picture is cut and joined."""

    size: tuple[int, int]  # (height, width) of a tile in image pixels
    overlap: float = 0.25  # share of a tile's side that neighbours share at least
    blend: str = "max"  # of maps where tiles overlap
    score: str = "max"  # of the tiles' scores: the picture's score

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size: found {self.size}, expected sides of at least 1")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ValueError(
                f"overlap: found {self.overlap}, expected 0 to {MAX_OVERLAP}"
            )
        for key in ("blend", "score"):
            if getattr(self, key) not in BLENDS:
                raise ValueError(
                    f"{key}: found {getattr(self, key)!r}, expected one of {BLENDS}"
                )


def tile_origins(image_size: tuple[int, int], tiling: Tiling) -> list[tuple[int, int]]:
    """Give (top, left) of each tile in image pixels, row by row.

    As few tiles as the overlap allows, evenly spread, the last one flush with the
    border. Along a side shorter than the tile's there is one tile, at 0.
    """
    downs, acrosses = (
        _starts(side, tile, tiling.overlap)
        for side, tile in zip(image_size, tiling.size, strict=True)
    )
    return [(top, left) for top in downs for left in acrosses]


def _starts(side: int, tile: int, overlap: float) -> list[int]:
    room = side - tile
    if room <= 0:
        return [0]
    step = max(1, math.floor(tile * (1 - overlap)))
    gaps = -(-room // step)  # rounded up
    # Integers alone: every language gets the same origins.
    return [(index * room) // gaps for index in range(gaps + 1)]


def cut_tiles(image_u8: Image, tiling: Tiling) -> Image:
    """Give the tiles (T, h, w, 3) of a picture (H, W, 3), in the order of the origins.

    A picture smaller than a tile is continued below and to the right by its own
    border pixels.
    """
    return np.stack(list(_each_tile(image_u8, tiling)))


def _each_tile(image_u8: Image, tiling: Tiling) -> Iterator[Image]:
    height, width = tiling.size
    below = max(0, height - image_u8.shape[0])
    right = max(0, width - image_u8.shape[1])
    if below or right:
        image_u8 = np.pad(image_u8, ((0, below), (0, right), (0, 0)), mode="edge")
    size = (image_u8.shape[0], image_u8.shape[1])
    for top, left in tile_origins(size, tiling):
        yield image_u8[top : top + height, left : left + width]


def merge_scores(scores: npt.NDArray[np.float32], tiling: Tiling) -> np.float32:
    """Give the picture's score of its tiles' scores (T,)."""
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"found scores of shape {scores.shape}, expected (T,), T >= 1")
    if tiling.score == "max":
        return np.float32(scores.max())
    return np.float32(scores.astype(np.float64).mean())


def merged_size(
    image_size: tuple[int, int], map_size: tuple[int, int], tiling: Tiling
) -> tuple[int, int]:
    """Give (height, width) of the joined map: the picture at the tiles' resolution.

    Where that were more than `MAX_CELLS`, at a resolution that stays near them.
    """
    cells = _cells_of_tile(image_size, map_size, tiling)
    height, width = (
        max(1, _scaled(side, n, tile))
        for side, n, tile in zip(image_size, cells, tiling.size, strict=True)
    )
    return height, width


def _cells_of_tile(
    image_size: tuple[int, int], map_size: tuple[int, int], tiling: Tiling
) -> tuple[int, int]:
    """Give how many cells of the joined map a tile has along each side."""
    wanted = math.prod(
        max(side, tile) * n / tile
        for side, n, tile in zip(image_size, map_size, tiling.size, strict=True)
    )
    if wanted <= MAX_CELLS:
        return map_size
    share = math.sqrt(MAX_CELLS / wanted)
    return max(1, int(map_size[0] * share)), max(1, int(map_size[1] * share))


def _scaled(pixels: int, cells: int, tile: int) -> int:
    """Give pixels in cells, of which a tile has so many; a half is rounded up."""
    return (2 * pixels * cells + tile) // (2 * tile)


class JoinedMap:
    """Takes the maps of a picture's tiles one by one, in the order of `cut_tiles`.

    A tile lies at its origin, rounded to whole cells of the joined map (at most half a
    cell off). Where tiles overlap, "max" takes the largest value and "mean" the mean.
    """

    def __init__(
        self, image_size: tuple[int, int], map_size: tuple[int, int], tiling: Tiling
    ) -> None:
        self._tiling = tiling
        self._map_size = map_size
        # A picture smaller than a tile was continued; what lies there is cut off.
        padded = (
            max(image_size[0], tiling.size[0]),
            max(image_size[1], tiling.size[1]),
        )
        self._cells = _cells_of_tile(padded, map_size, tiling)
        self._kept = merged_size(image_size, map_size, tiling)
        self._origins = tile_origins(padded, tiling)
        self._n_seen = 0
        size = merged_size(padded, map_size, tiling)
        self._by_max = tiling.blend == "max"
        self._joined = np.full(
            size,
            -np.inf if self._by_max else 0.0,
            dtype=np.float32 if self._by_max else np.float64,
        )
        # Tiles lie on a grid: so often a row of the map is in one, and a column.
        self._times = [np.zeros(side, dtype=np.int64) for side in size]
        for axis, times in enumerate(self._times):
            for origin in sorted({place[axis] for place in self._origins}):
                start = self._start(origin, axis)
                times[start : start + self._cells[axis]] += 1

    def _start(self, origin: int, axis: int) -> int:
        cells, tile = self._cells[axis], self._tiling.size[axis]
        return min(_scaled(origin, cells, tile), self._joined.shape[axis] - cells)

    def add(self, anomaly_map: FloatMap) -> None:
        """Put the map (map_h, map_w) of the next tile in its place.

        Raises:
            ValueError: of another shape, or of more tiles than there are.
        """
        if anomaly_map.shape != self._map_size or self._n_seen == len(self._origins):
            raise ValueError(
                f"found map {self._n_seen + 1} of shape {anomaly_map.shape}, expected "
                f"{len(self._origins)} maps of shape {self._map_size}"
            )
        top, left = self._origins[self._n_seen]
        self._n_seen += 1
        row, column = self._start(top, 0), self._start(left, 1)
        part = self._joined[
            row : row + self._cells[0], column : column + self._cells[1]
        ]
        cells = _largest_of_cells(anomaly_map, self._cells)
        if self._by_max:
            np.maximum(part, cells, out=part)
        else:
            part += cells

    def result(self) -> FloatMap:
        """Give the picture's map (H', W'), see `merged_size`.

        Raises:
            ValueError: maps are missing.
        """
        if self._n_seen != len(self._origins):
            raise ValueError(
                f"found {self._n_seen} maps, expected {len(self._origins)} maps"
            )
        rows, columns = (slice(0, side) for side in self._kept)
        joined = self._joined[rows, columns]
        if not self._by_max:
            joined = joined / self._times[0][rows, None] / self._times[1][columns]
        return joined.astype(np.float32)


def _largest_of_cells(anomaly_map: FloatMap, size: tuple[int, int]) -> FloatMap:
    """Give a map of a size that is not larger: of each block its largest value."""
    for axis, (cells, smaller) in enumerate(zip(anomaly_map.shape, size, strict=True)):
        if smaller < cells:
            starts = np.arange(smaller) * cells // smaller
            anomaly_map = np.maximum.reduceat(anomaly_map, starts, axis=axis)
    return anomaly_map


def merge_maps(maps: FloatMap, image_size: tuple[int, int], tiling: Tiling) -> FloatMap:
    """Give the picture's map (H', W') of its tiles' maps; see `JoinedMap`.

    Args:
        maps: (T, map_h, map_w) in the order of `cut_tiles`.
        image_size: (height, width) of the picture in pixels.

    Raises:
        ValueError: another number of maps than the picture has tiles.
    """
    if maps.ndim != 3:
        raise ValueError(f"found maps of shape {maps.shape}, expected (T, h, w)")
    joined = JoinedMap(image_size, (maps.shape[1], maps.shape[2]), tiling)
    for anomaly_map in maps:
        joined.add(anomaly_map)
    return joined.result()


def score_picture(
    engine: Engine, image_u8: Image, tiling: Tiling | None, *, with_map: bool
) -> tuple[np.float32, FloatMap | None]:
    """Give score and map of one picture by an engine, cut into tiles or not.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
        tiling: None: the engine takes the whole picture.
    """
    if tiling is None:
        scores, maps = engine.run(image_u8[None], with_map=with_map)
        return scores[0], None if maps is None else maps[0]
    size = (image_u8.shape[0], image_u8.shape[1])
    tiles = _each_tile(image_u8, tiling)
    of_tiles: list[npt.NDArray[np.float32]] = []
    joined: JoinedMap | None = None
    while batch := list(islice(tiles, TILES_AT_ONCE)):
        scores, maps = engine.run(np.stack(batch), with_map=with_map)
        of_tiles.append(scores)
        for anomaly_map in () if maps is None else maps:
            joined = joined or JoinedMap(size, anomaly_map.shape, tiling)
            joined.add(anomaly_map)
    score = merge_scores(np.concatenate(of_tiles), tiling)
    return score, None if joined is None else joined.result()
