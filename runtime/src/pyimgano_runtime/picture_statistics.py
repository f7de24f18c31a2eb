"""Brightness and sharpness of a picture: what a lamp or a lens changes.

Both are taken from one shrunken grey picture, whose longer side has 384 cells whatever
the camera's resolution; a cell is the mean of four pixels. So a picture of many
megapixels costs little more than one of half a megapixel: a few ms on one core.

Sums are of whole numbers: every machine gets the same two floats.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from .quick_dataclass import dataclass

Image = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.int32]

LONGEST_SIDE: Final = 384  # cells; a smaller picture is not enlarged
SAMPLES: Final = 2  # along each side of a cell
LUMA: Final = (299, 587, 114)  # thousandths of R, G, B: ITU-R BT.601
_SCALE: Final = SAMPLES * SAMPLES * sum(LUMA)  # of a grey level in `_shrunk_grey`


@dataclass(frozen=True, slots=True)
class PictureStatistics:
    """How bright and how sharp a picture is."""

    brightness: float  # mean grey level, 0 to 255
    sharpness: float  # variance of the Laplacian, squared grey levels; 0: flat


def picture_statistics(image_u8: Image) -> PictureStatistics:
    """Give the brightness and sharpness of a decoded picture.

    Brightness is the mean luma (0.299 R + 0.587 G + 0.114 B, ITU-R BT.601) of the
    shrunken picture. Sharpness is the variance of its Laplacian, up + down + left +
    right - 4 x centre (Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000); the border has none, and fewer than 3 x 3 cells give 0.

    Args:
        image_u8: (H, W, 3) uint8 RGB.
    """
    grey = _shrunk_grey(image_u8)
    brightness = int(grey.sum(dtype=np.int64)) / (grey.size * _SCALE)
    if min(grey.shape) < 3:
        return PictureStatistics(brightness, 0.0)
    laplacian = grey[1:-1, 1:-1] * np.int32(-4)
    for part in (grey[:-2, 1:-1], grey[2:, 1:-1], grey[1:-1, :-2], grey[1:-1, 2:]):
        laplacian += part
    values = laplacian.ravel().astype(np.int64)
    n = values.size
    # At most 2^18 cells, each below 2^22 in size: no sum leaves int64.
    total, squares = int(values.sum()), int((values * values).sum())
    return PictureStatistics(
        brightness, (n * squares - total * total) / (n * _SCALE) ** 2
    )


def shrunk_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Give (height, width) in cells of the shrunken picture."""
    longest = max(image_size)
    if longest <= LONGEST_SIDE:
        return image_size
    height, width = (
        max(1, (2 * side * LONGEST_SIDE + longest) // (2 * longest))
        for side in image_size
    )
    return height, width


def _shrunk_grey(image_u8: Image) -> Grey:
    """Give the luma of each cell, `_SCALE` times as large.

    A cell's samples lie at a quarter and three quarters of its sides.
    """
    size = (image_u8.shape[0], image_u8.shape[1])
    rows, columns = (
        [
            (np.arange(cells) * 2 * SAMPLES + 2 * sample + 1)
            * side
            // (2 * SAMPLES * cells)
            for sample in range(SAMPLES)
        ]
        for side, cells in zip(size, shrunk_size(size), strict=True)
    )
    sums = np.zeros((len(rows[0]), len(columns[0]), 3), np.uint16)
    for row in rows:
        band = image_u8.take(row, axis=0)
        for column in columns:
            sums += band.take(column, axis=1)
    # Below 2^24, so exact in float32; the product is faster than whole numbers.
    weights = np.asarray(LUMA, np.float32)
    return (sums.astype(np.float32) @ weights).astype(np.int32)
