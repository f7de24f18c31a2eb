"""Large pictures in tiles: cut, score each, and join scores and maps again.

    tiles = cut_tiles(image_u8, tiling)              # (T, h, w, 3)
    score = merge_scores(scores, tiling)             # of (T,)
    anomaly_map = merge_maps(maps, size, tiling)     # of (T, map_h, map_w)

The same functions serve training, calibration and every engine, in the same order, so
that equal tile scores give equal picture scores to the bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
FloatMap = npt.NDArray[np.float32]

BLENDS: Final = ("max", "mean")
MAX_OVERLAP: Final = 0.75  # above it a point lies in more than 16 tiles


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
    height, width = tiling.size
    below = max(0, height - image_u8.shape[0])
    right = max(0, width - image_u8.shape[1])
    if below or right:
        image_u8 = np.pad(image_u8, ((0, below), (0, right), (0, 0)), mode="edge")
    size = (image_u8.shape[0], image_u8.shape[1])
    return np.stack(
        [
            image_u8[top : top + height, left : left + width]
            for top, left in tile_origins(size, tiling)
        ]
    )


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
    """Give (height, width) of the joined map: the picture at the tiles' resolution."""
    height, width = (
        max(1, round(side * cells / tile))
        for side, cells, tile in zip(image_size, map_size, tiling.size, strict=True)
    )
    return height, width


def merge_maps(maps: FloatMap, image_size: tuple[int, int], tiling: Tiling) -> FloatMap:
    """Give the picture's map (H', W') of its tiles' maps (T, map_h, map_w).

    A tile lies at its origin, rounded to whole cells of the joined map (at most half a
    cell off). Where tiles overlap, "max" takes the largest value and "mean" the mean.
    What lies beyond a picture that is smaller than a tile is cut off.

    Args:
        maps: in the order of `cut_tiles`.
        image_size: (height, width) of the picture in pixels.

    Raises:
        ValueError: another number of maps than the picture has tiles.
    """
    padded = (
        max(image_size[0], tiling.size[0]),
        max(image_size[1], tiling.size[1]),
    )
    origins = tile_origins(padded, tiling)
    if maps.ndim != 3 or len(maps) != len(origins):
        raise ValueError(
            f"found maps of shape {maps.shape}, expected {len(origins)} maps"
        )
    map_height, map_width = maps.shape[1], maps.shape[2]
    height, width = merged_size(padded, (map_height, map_width), tiling)
    taken = np.zeros((height, width), dtype=np.float64)
    times = np.zeros((height, width), dtype=np.int64)
    if tiling.blend == "max":
        taken -= np.inf
    for anomaly_map, (top, left) in zip(maps, origins, strict=True):
        row = min(round(top * map_height / tiling.size[0]), height - map_height)
        column = min(round(left * map_width / tiling.size[1]), width - map_width)
        place = (slice(row, row + map_height), slice(column, column + map_width))
        if tiling.blend == "max":
            taken[place] = np.maximum(taken[place], anomaly_map)
        else:
            taken[place] += anomaly_map
        times[place] += 1
    if tiling.blend == "mean":
        taken /= times
    kept = merged_size(image_size, (map_height, map_width), tiling)
    joined: FloatMap = taken[: kept[0], : kept[1]].astype(np.float32)
    return joined
