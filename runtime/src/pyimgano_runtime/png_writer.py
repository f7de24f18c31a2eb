"""Writes 8-bit PNG files that every reader, ours without OpenCV included, can read."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

from .image_formats.png import FILTER_NONE, FILTER_SUB, FILTER_UP, GREY, RGB, SIGNATURE

COMPRESSION: Final = 6  # zlib level


def encode_png(image_u8: npt.NDArray[np.uint8]) -> bytes:
    """Give a PNG file of (H, W, 3) RGB or (H, W) grey pixels.

    Each row is filtered by None, Sub or Up, whichever leaves the smallest sum of
    absolute differences. The same pixels give the same bytes with the same zlib.

    Raises:
        ValueError: not uint8, another shape, or no pixels.
    """
    if image_u8.dtype != np.uint8:
        raise ValueError(f"found dtype {image_u8.dtype}, expected uint8")
    if image_u8.ndim not in (2, 3) or image_u8.shape[2:] not in ((), (3,)):
        raise ValueError(f"found shape {image_u8.shape}, expected (H, W) or (H, W, 3)")
    if 0 in image_u8.shape:
        raise ValueError(f"found shape {image_u8.shape}, expected at least one pixel")

    height, width = image_u8.shape[:2]
    colour = RGB if image_u8.ndim == 3 else GREY
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    packed = zlib.compress(_filtered(image_u8).tobytes(), COMPRESSION)
    return (
        SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", packed)
        + _chunk(b"IEND", b"")
    )


def _filtered(image_u8: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Give the rows, each behind its filter type: (H, 1 + W * channels)."""
    height, width = image_u8.shape[:2]
    rows = np.ascontiguousarray(image_u8).reshape(height, -1)
    step = rows.shape[1] // width  # bytes per pixel
    sub, up = rows.copy(), rows.copy()
    sub[:, step:] -= rows[:, :-step]  # modulo 256, as the format asks
    up[1:] -= rows[:-1]

    candidates = {FILTER_NONE: rows, FILTER_SUB: sub, FILTER_UP: up}
    # A difference counts by its distance from 0 in either direction: 255 is -1.
    costs = [
        np.minimum(c, np.negative(c)).sum(axis=1, dtype=np.int64)
        for c in candidates.values()
    ]
    filters = np.argmin(costs, axis=0).astype(np.uint8)  # the first one where equal
    chosen = np.empty((height, 1 + rows.shape[1]), np.uint8)
    chosen[:, 0] = filters
    for filter_type, candidate in candidates.items():
        mine = filters == filter_type
        chosen[mine, 1:] = candidate[mine]
    return chosen


def _chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = zlib.crc32(kind + payload)
    return (
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)
    )
