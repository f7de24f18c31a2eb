"""WebP and GIF: headers and whether the file is whole; OpenCV decodes them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from .facts import ImageHeader, damaged, truncated
from .tiff import exif_orientation

GIF_SIGNATURES: Final = (b"GIF87a", b"GIF89a")
MAX_CHUNKS: Final = 10_000
_GIF_EXTENSION, _GIF_IMAGE, _GIF_END = 0x21, 0x2C, 0x3B
_WEBP_ANIMATED, _WEBP_ALPHA = 0x02, 0x10


def is_webp(data: bytes) -> bool:
    """Whether the first bytes are those of a WebP file."""
    return data[:4] == b"RIFF" and data[8:12] == b"WEBP"


def read_webp_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a WebP file."""
    facts: tuple[int, int, int, bool] | None = None
    orientation = 1
    for kind, start, end in _webp_chunks(data, name):
        if facts is None:
            facts = _webp_facts(kind, data[start : min(end, start + 16)], name)
        elif kind == b"EXIF":
            orientation = exif_orientation(data[start:end])
    if facts is None:
        raise truncated(name, "WebP file without a picture")
    width, height, channels, animated = facts
    frames = 2 if animated else 1
    return ImageHeader("WebP", width, height, channels, 8, orientation, frames)


def _webp_facts(kind: bytes, head: bytes, name: str) -> tuple[int, int, int, bool]:
    """Width, height, channels, animated, of the first chunk."""
    head = head.ljust(16, b"\0")
    if kind == b"VP8X":
        width = 1 + int.from_bytes(head[4:7], "little")
        height = 1 + int.from_bytes(head[7:10], "little")
        channels = 4 if head[0] & _WEBP_ALPHA else 3
        return width, height, channels, bool(head[0] & _WEBP_ANIMATED)
    if kind == b"VP8L" and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        channels = 4 if bits >> 28 & 1 else 3
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), channels, False
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF, 3, False
    raise damaged(name, f"WebP file starts with {kind!r}")


def _webp_chunks(data: bytes, name: str) -> Iterator[tuple[bytes, int, int]]:
    limit = 8 + int.from_bytes(data[4:8], "little")
    if limit > len(data):
        raise truncated(name, f"WebP file has {len(data)} bytes, expected {limit}")
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > limit:
            return
        start = position + 8
        end = start + int.from_bytes(data[position + 4 : start], "little")
        if end > limit:
            raise truncated(name, "WebP file ends inside of a chunk")
        yield data[position : position + 4], start, end
        position = end + (end & 1)
    raise damaged(name, f"WebP file has more than {MAX_CHUNKS} chunks")


def read_gif_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a GIF file."""
    if len(data) < 13:
        raise truncated(name, f"{len(data)} bytes, a GIF header has 13")
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    frames = _gif_frames(data, 13 + _colour_table(flags), name)
    if frames == 0:
        raise damaged(name, "GIF file without a picture")
    return ImageHeader("GIF", width, height, 3, 8, frames=frames)


def _gif_frames(data: bytes, position: int, name: str) -> int:
    frames = 0
    while position < len(data):
        kind = data[position]
        if kind == _GIF_END:
            return frames
        if kind == _GIF_EXTENSION:
            position = _after_blocks(data, position + 2)
        elif kind == _GIF_IMAGE and position + 10 <= len(data):
            frames += 1
            if frames == 2:  # one too many: no need to see the rest
                return frames
            table = _colour_table(data[position + 9])
            position = _after_blocks(data, position + 10 + table + 1)
        else:
            break
    raise truncated(name, f"GIF file has no end mark after {frames} pictures")


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    while position < len(data) and data[position]:
        position += 1 + data[position]
    return position + 1
