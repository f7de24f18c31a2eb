"""JPEG: size and orientation from the segments, and whether the scans are whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from .facts import ImageHeader, damaged, truncated
from .tiff import exif_orientation

SIGNATURE: Final = b"\xff\xd8\xff"

_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # no length follows
_EOI, _SOS, _APP1 = 0xD9, 0xDA, 0xE1
MAX_SEGMENTS: Final = 20_000

# FF 00 is a stuffed byte and FF FF a fill byte; in a scan, FF D0..D7 is a restart.
_MARKER: Final = re.compile(rb"\xff[^\x00\xff]")
_SCAN_END: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a JPEG file: those of its own frame, not of a thumbnail."""
    orientation = 1
    frame: tuple[int, int, int, int] | None = None
    for marker, start, end in _segments(data, name):
        if marker in _FRAMES and frame is None:
            frame = _frame(data[start:end], name)
        elif marker == _APP1 and data[start : start + 6] == b"Exif\0\0":
            orientation = exif_orientation(data[start + 6 : end])
        elif marker == _SOS:
            break
    if frame is None:
        raise damaged(name, "JPEG file has no frame header before its pixel data")
    depth, height, width, channels = frame
    colours = "CMYK" if channels == 4 else ""
    return ImageHeader(
        "JPEG", width, height, channels, depth, orientation, colours=colours
    )


def check_whole(data: bytes, name: str) -> None:
    """Refuse a file that has no end mark after its scans.

    Decoders paint the missing rest grey and say nothing. What follows the end mark
    (a second picture, a maker's data) is not looked at. Damage inside of a scan that
    keeps the marks intact cannot be seen without decoding.
    """
    for _ in _segments(data, name):
        pass


def _segments(data: bytes, name: str) -> Iterator[tuple[int, int, int]]:
    """Marker, payload start and end of each segment up to the end mark.

    Bytes between segments are skipped as libjpeg does, so that both see the same.
    """
    position, in_scan = 2, False
    for _ in range(MAX_SEGMENTS):
        found = (_SCAN_END if in_scan else _MARKER).search(data, position)
        if found is None:
            raise truncated(name, "JPEG file has no end mark")
        marker, start = data[found.end() - 1], found.end()
        if marker == _EOI:
            return
        if marker in _STANDALONE:
            position = start
            continue
        length = int.from_bytes(data[start : start + 2], "big")
        if start + max(length, 2) > len(data):
            raise truncated(name, "JPEG file ends inside of a segment")
        if length < 2:
            raise damaged(name, f"JPEG segment at byte {start} has length {length}")
        yield marker, start + 2, start + length
        position, in_scan = start + length, marker == _SOS
    raise damaged(name, f"JPEG file has more than {MAX_SEGMENTS} segments")


def _frame(payload: bytes, name: str) -> tuple[int, int, int, int]:
    """Bit depth, height, width, channels."""
    if len(payload) < 6:
        raise damaged(name, "JPEG frame header is too short")
    height = int.from_bytes(payload[1:3], "big")
    width = int.from_bytes(payload[3:5], "big")
    depth, channels = payload[0], payload[5]
    if channels not in (1, 3, 4):
        raise damaged(name, f"JPEG file with {channels} channels, expected 1 or 3")
    return depth, height, width, channels
