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
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .quick_dataclass import dataclass
from .tile_weights import MEANS, axis_weights

if TYPE_CHECKING:
    from .engine import Engine

Image = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

BLENDS: Final = ("max", *MEANS)
SCORES: Final = ("max", "mean", "top_k")
MIN_TILE: Final = 32  # pixels a side, in documents: less is no picture to a network
MAX_OVERLAP: Final = 0.75  # above it a point lies in more than 16 tiles
MAX_CELLS: Final = 4096 * 4096  # of a joined map: 64 MiB
# In one run of an engine. More cost networks time and memory, fewer cost small models
# time (benchmarks/tiles.py; docs/performance.md).
TILES_AT_ONCE: Final = 4
PIXELS_AT_ONCE: Final = 4 * 1024 * 1024  # in one run, unless one tile has more


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How a picture is cut and joined."""

    size: tuple[int, int]  # (height, width) of a tile in image pixels
    overlap: float = 0.25  # share of a tile's side that neighbours share at least
    blend: str = "max"  # of maps where tiles overlap, one of `BLENDS`
    score: str = "max"  # of the tiles' scores: the picture's score, one of `SCORES`
    top_k: int | None = None  # how many tiles' scores count, exactly with "top_k"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size: found {self.size}, expected sides of at least 1")
        if not 0 <= self.overlap <= MAX_OVERLAP:
            raise ValueError(
                f"overlap: found {self.overlap}, expected 0 to {MAX_OVERLAP}"
            )
        for key, known in (("blend", BLENDS), ("score", SCORES)):
            if getattr(self, key) not in known:
                raise ValueError(
                    f"{key}: found {getattr(self, key)!r}, expected one of {known}"
                )
        problem = top_k_problem(self.score, self.top_k)
        if problem is not None:
            raise ValueError(f"top_k: {problem}")

    def to_dict(self) -> dict[str, Any]:
        """Give the JSON object of a document; no `top_k` where there is none."""
        given = {"size": list(self.size), "overlap": self.overlap}
        given |= {"blend": self.blend, "score": self.score}
        return given if self.top_k is None else given | {"top_k": self.top_k}

    @property
    def tiles_at_once(self) -> int:
        """How many tiles go through an engine together: at least 1."""
        fitting = PIXELS_AT_ONCE // (self.size[0] * self.size[1])
        return max(1, min(TILES_AT_ONCE, fitting))


def top_k_problem(score: str, top_k: int | None) -> str | None:
    """Why a score rule and a `top_k` do not fit together, in words; None if they do."""
    if score != "top_k":
        if top_k is None:
            return None
        return f'has no effect with score "{score}"; remove it, or take score "top_k"'
    if top_k is None:
        return 'missing; score "top_k" needs how many of the highest scores count'
    if top_k < 1:
        return f"found {top_k}, expected a whole number of at least 1"
    return None


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
    return np.stack(list(each_tile(image_u8, tiling)))


def each_tile(image_u8: Image, tiling: Tiling) -> Iterator[Image]:
    """Give the tiles of `cut_tiles` one by one, as views: nothing is copied.

    But for a picture smaller than a tile, which is continued in a copy.
    """
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
    values = scores.astype(np.float64)
    if tiling.score == "mean":
        return np.float32(values.mean())
    highest = np.sort(values)[::-1][: tiling.top_k]  # NaN stands first: it is kept
    # Added one by one, as every language does it; numpy's own sum goes by halves.
    return np.float32(np.add.accumulate(highest)[-1] / len(highest))


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
    cell off). Where tiles overlap, "max" takes the largest value, and the others a mean
    by the weights of `tile_weights`, in float64: of "mean" all are 1. The map is all
    that grows with the picture: 8 bytes a cell ("max") or 12, its result included.
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
        if self._by_max:
            return
        self._weights = [axis_weights(tiling.blend, cells) for cells in self._cells]
        # Tiles lie on a grid: a row of the map has one sum of weights, and a column.
        self._sums = [np.zeros(side) for side in size]
        for axis, (weights, sums) in enumerate(
            zip(self._weights, self._sums, strict=True)
        ):
            for origin in sorted({place[axis] for place in self._origins}):
                start = self._start(origin, axis)
                sums[start : start + len(weights)] += weights

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
        elif self._tiling.blend == "mean":
            part += cells
        else:
            part += cells * self._weights[0][:, None] * self._weights[1]

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
        if self._by_max:
            return self._joined[rows, columns].astype(np.float32)
        result = np.empty(self._kept, dtype=np.float32)
        of_columns = self._sums[1][columns]
        # Row by row: a second map in float64 would be most of the memory.
        for row, of_row in enumerate(self._sums[0][rows]):
            result[row] = self._joined[row, columns] / of_row / of_columns
        return result


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
    tiles = each_tile(image_u8, tiling)
    of_tiles: list[npt.NDArray[np.float32]] = []
    joined: JoinedMap | None = None
    while batch := list(islice(tiles, tiling.tiles_at_once)):
        scores, maps = engine.run(np.stack(batch), with_map=with_map)
        of_tiles.append(scores)
        for anomaly_map in () if maps is None else maps:
            joined = joined or JoinedMap(size, anomaly_map.shape, tiling)
            joined.add(anomaly_map)
    score = merge_scores(np.concatenate(of_tiles), tiling)
    return score, None if joined is None else joined.result()
