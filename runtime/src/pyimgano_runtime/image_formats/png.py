"""PNG: header, checksums, and pixels of the plain 8-bit kind without OpenCV."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from .facts import ImageHeader, damaged, needs_opencv, truncated
from .tiff import exif_orientation

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS: Final = 200_000  # 100 Mpx in chunks of 8 KiB have 37,000

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
_STORED_CHANNELS: Final = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
_DEPTHS: Final = {
    GREY: (1, 2, 4, 8, 16),
    RGB: (8, 16),
    PALETTE: (1, 2, 4, 8),
    GREY_ALPHA: (8, 16),
    RGBA: (8, 16),
}
FILTER_NONE, FILTER_SUB, FILTER_UP = 0, 1, 2


class _Chunk(NamedTuple):
    kind: bytes
    start: int  # of the payload
    end: int


def read_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a PNG file; `data` starts with its signature."""
    width, height, depth, colour, _ = _image_facts(data, name)
    orientation, frames = 1, 1
    for chunk in _chunks(data, name):
        if chunk.kind == b"eXIf":
            orientation = exif_orientation(data[chunk.start : chunk.end])
        elif chunk.kind == b"acTL":
            frames = int.from_bytes(data[chunk.start : chunk.start + 4], "big")
    channels = 3 if colour == PALETTE else _STORED_CHANNELS[colour]
    return ImageHeader(
        "PNG", width, height, channels, depth, orientation, min(frames, 2)
    )


def check_whole(data: bytes, name: str) -> None:
    """Refuse a file whose chunks do not match their checksums."""
    view = memoryview(data)
    for chunk in _chunks(data, name):
        found = zlib.crc32(view[chunk.start - 4 : chunk.end])
        if found != int.from_bytes(data[chunk.end : chunk.end + 4], "big"):
            kind = chunk.kind.decode("latin-1")
            raise truncated(name, f"PNG chunk {kind!r} does not match its checksum")


def read_pixels(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Give (H, W) or (H, W, 3) of a plain PNG; alpha is dropped."""
    width, height, depth, colour, interlaced = _image_facts(data, name)
    if depth != 8 or interlaced:
        kind = "an interlaced PNG" if interlaced else f"a {depth}-bit PNG"
        raise needs_opencv(name, kind)
    channels = _STORED_CHANNELS[colour]
    rows = _inflate(data, name, height=height, row_bytes=1 + width * channels)
    pixels = _undo_filters(rows, channels, name)

    if colour == PALETTE:
        return _look_up(pixels[..., 0], data, name)
    if colour in (GREY, GREY_ALPHA):
        return pixels[..., 0]
    return pixels[..., :3]


def _image_facts(data: bytes, name: str) -> tuple[int, int, int, int, bool]:
    """Width, height, bit depth, colour type, interlaced."""
    if len(data) < 33:
        raise truncated(name, f"{len(data)} bytes, a PNG header has 33")
    if data[8:16] != b"\0\0\0\rIHDR":
        raise damaged(name, "PNG file does not start with its header chunk")
    width, height, depth, colour, packing, filters, interlace = struct.unpack_from(
        ">IIBBBBB", data, 16
    )
    if depth not in _DEPTHS.get(colour, ()) or packing or filters or interlace > 1:
        raise damaged(name, f"PNG colour type {colour} with {depth} bits is unknown")
    return width, height, depth, colour, interlace == 1


def _chunks(data: bytes, name: str) -> Iterator[_Chunk]:
    position, count = len(SIGNATURE), 0
    while count < MAX_CHUNKS:
        start = position + 8
        end = start + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            raise truncated(name, f"PNG file ends at byte {len(data)} before its end")
        kind = data[position + 4 : start]
        yield _Chunk(kind, start, end)
        if kind == b"IEND":
            return
        position, count = end + 4, count + 1
    raise damaged(name, f"PNG file has more than {MAX_CHUNKS} chunks")


def _inflate(
    data: bytes, name: str, *, height: int, row_bytes: int
) -> npt.NDArray[np.uint8]:
    packed = b"".join(
        data[c.start : c.end] for c in _chunks(data, name) if c.kind == b"IDAT"
    )
    stream = zlib.decompressobj()
    expected = height * row_bytes
    try:
        # Never more than the header promised, however far the stream would grow.
        raw = stream.decompress(packed, expected)
        surplus = stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as cause:
        raise truncated(name, f"PNG pixel data does not unpack ({cause})") from cause
    if len(raw) < expected or not (stream.eof or surplus):
        raise truncated(
            name, f"PNG pixel data has {len(raw)} bytes, expected {expected}"
        )
    return np.frombuffer(raw, np.uint8).reshape(height, row_bytes)


def _undo_filters(
    rows: npt.NDArray[np.uint8], channels: int, name: str
) -> npt.NDArray[np.uint8]:
    """Give (H, W, channels) of rows that each start with their filter type."""
    filters = rows[:, 0]
    if (unknown := int(filters.max())) > FILTER_UP:
        if unknown > 4:
            raise damaged(name, f"PNG filter {unknown} is unknown")
        raise needs_opencv(name, "a PNG with Average or Paeth filters")
    pixels = rows[:, 1:].reshape(len(rows), -1, channels).copy()

    sub = np.flatnonzero(filters == FILTER_SUB)
    if len(sub):
        pixels[sub] = np.cumsum(pixels[sub], axis=1, dtype=np.uint8)
    for y in np.flatnonzero(filters == FILTER_UP):
        if y > 0:
            pixels[y] += pixels[y - 1]
    return pixels


def _look_up(
    indices: npt.NDArray[np.uint8], data: bytes, name: str
) -> npt.NDArray[np.uint8]:
    stored = next(
        (data[c.start : c.end] for c in _chunks(data, name) if c.kind == b"PLTE"), b""
    )
    if len(stored) % 3 or int(indices.max()) >= len(stored) // 3:
        raise ImageError(
            f"{name}: PNG pixel value {int(indices.max())} is outside of the palette "
            f"of {len(stored) // 3} colours; save the picture again",
            code="IMAGE_UNREADABLE",
        )
    return np.frombuffer(stored, np.uint8).reshape(-1, 3)[indices]
