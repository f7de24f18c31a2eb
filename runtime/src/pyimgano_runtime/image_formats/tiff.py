"""TIFF directories: the header of TIFF files, and the orientation in EXIF blocks."""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from typing import Final

from ..errors import ImageError
from .facts import ImageHeader, damaged, truncated

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_DIRECTORIES: Final = 64
MAX_ENTRIES: Final = 4096
MAX_VALUES: Final = 1 << 20  # of one tag; 100 Mpx in 16 x 16 tiles have 390,000

PADDING_BYTES: Final = 1 << 24  # tiles may reach beyond the picture
UNPACK_STEP: Final = 1 << 16  # packed bytes; unpacked at most 1,032 times as many

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_COMPRESSION: Final = 259
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 273, 274, 277, 279
_TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 324, 325, 338, 339
_PHOTOMETRIC_CHANNELS: Final = {0: 1, 1: 1, 2: 3, 3: 3, 6: 3}
_PALETTE, _CMYK = 3, 5
_LZW, _DEFLATE = 5, (8, 32946)
_UNSIGNED: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}  # field type -> struct code
_ALPHA_ASSOCIATED, _ALPHA_PLAIN = 1, 2


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: int
    count: int
    at: int  # where the values stand in the file


class _Directories:
    """Reads the tags of one TIFF structure; nothing outside of `data` is touched."""

    def __init__(self, data: bytes, name: str) -> None:
        if data[:4] not in SIGNATURES:
            raise damaged(name, "no TIFF byte-order mark")
        self.data, self.name = data, name
        self.order = "<" if data[:2] == b"II" else ">"
        self.big = 43 in data[2:4]  # BigTIFF: 8-byte offsets
        self.first = self.numbers("Q" if self.big else "I", 8 if self.big else 4)[0]

    def numbers(self, code: str, at: int, count: int = 1) -> tuple[int, ...]:
        """Give `count` numbers of a struct code at byte `at`."""
        layout = struct.Struct(f"{self.order}{count}{code}")
        if at < 0 or at + layout.size > len(self.data):
            raise truncated(self.name, f"TIFF file ends before byte {at + layout.size}")
        return layout.unpack_from(self.data, at)

    def directory(self, at: int) -> tuple[dict[int, _Entry], int]:
        """Give the entries of the directory at a byte, and where the next one is."""
        step, inline = (20, 8) if self.big else (12, 4)
        count = self.numbers("Q" if self.big else "H", at)[0]
        if count > MAX_ENTRIES:
            raise damaged(self.name, f"TIFF directory with {count} entries")
        at += 8 if self.big else 2
        entries: dict[int, _Entry] = {}
        for position in range(at, at + count * step, step):
            tag, kind = self.numbers("H", position, 2)
            number = self.numbers("Q" if self.big else "I", position + 4)[0]
            value_at = position + step - inline
            if kind in _UNSIGNED and number * struct.calcsize(_UNSIGNED[kind]) > inline:
                value_at = self.numbers("Q" if self.big else "I", value_at)[0]
            entries.setdefault(tag, _Entry(kind, number, value_at))
        return entries, self.numbers("Q" if self.big else "I", at + count * step)[0]

    def values(self, entry: _Entry | None) -> tuple[int, ...]:
        """Give the numbers of an entry; empty where it is absent or no number."""
        if entry is None or entry.kind not in _UNSIGNED or not entry.count:
            return ()
        if entry.count > MAX_VALUES:
            raise damaged(self.name, f"TIFF tag with {entry.count} values")
        return self.numbers(_UNSIGNED[entry.kind], entry.at, entry.count)

    def number(self, entries: dict[int, _Entry], tag: int, default: int) -> int:
        """Give the first number of a tag."""
        return next(iter(self.values(entries.get(tag))), default)


def exif_orientation(block: bytes) -> int:
    """Give the orientation 1..8 of an EXIF block; 1 where it has none or is damaged."""
    try:
        tiff = _Directories(block.removeprefix(b"Exif\0\0"), "EXIF")
        entries, _ = tiff.directory(tiff.first)
        return _orientation(tiff, entries)
    except ImageError:
        return 1


def read_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a TIFF file's first page."""
    tiff = _Directories(data, name)
    entries, following = tiff.directory(tiff.first)

    photometric = tiff.number(entries, _PHOTOMETRIC, 1)
    samples = tiff.number(entries, _SAMPLES, 1)
    bits = max(tiff.values(entries.get(_BITS)), default=1)
    if any(kind != 1 for kind in tiff.values(entries.get(_SAMPLE_FORMAT))):
        raise ImageError(
            f"{name}: TIFF with signed or floating-point pixels, expected unsigned "
            "8-bit ones; convert it with one fixed scale for all pictures",
            code="IMAGE_BIT_DEPTH",
        )
    colours = ""
    if photometric not in _PHOTOMETRIC_CHANNELS:
        colours = "CMYK" if photometric == _CMYK else f"TIFF kind {photometric}"
    base = _PHOTOMETRIC_CHANNELS.get(photometric, samples)
    alpha = samples == (1 if photometric == _PALETTE else base) + 1
    return ImageHeader(
        "TIFF",
        tiff.number(entries, _WIDTH, 0),
        tiff.number(entries, _HEIGHT, 0),
        base + alpha,
        bits,
        _orientation(tiff, entries),
        frames=2 if _has_second_page(tiff, following) else 1,
        colours=colours,
    )


def check_whole(data: bytes, name: str) -> None:
    """Refuse a file that ends before its last strip or tile, or has a damaged one.

    OpenCV paints a strip that it cannot unpack black and says nothing. Deflate strips
    are unpacked here and LZW strips must start as LZW does, which a part that was
    never written does not; damage inside of other packings cannot be seen.
    """
    tiff = _Directories(data, name)
    entries, _ = tiff.directory(tiff.first)
    packing = tiff.number(entries, _COMPRESSION, 1)
    budget = PADDING_BYTES + 4 * math.prod(
        tiff.number(entries, tag, 1) for tag in (_WIDTH, _HEIGHT, _SAMPLES)
    )
    for offsets, sizes in (
        (_STRIP_OFFSETS, _STRIP_BYTES),
        (_TILE_OFFSETS, _TILE_BYTES),
    ):
        starts = tiff.values(entries.get(offsets))
        lengths = tiff.values(entries.get(sizes))
        if sum(lengths) > len(data):
            raise truncated(
                name, f"TIFF pixels take {sum(lengths)} bytes of {len(data)}"
            )
        for start, length in zip(starts, lengths, strict=False):
            end = start + length
            if end > len(data):
                raise truncated(name, f"TIFF pixels end at byte {end} of {len(data)}")
            if packing in _DEFLATE:
                strip = memoryview(data)[start:end]
                budget -= _unpacked_size(strip, budget, name)
            elif packing == _LZW and not _starts_as_lzw(data[start : start + 2]):
                raise truncated(name, f"TIFF pixels at byte {start} are no LZW data")


def _unpacked_size(strip: memoryview, budget: int, name: str) -> int:
    stream, size = zlib.decompressobj(), 0
    try:
        for at in range(0, len(strip), UNPACK_STEP):
            size += len(stream.decompress(strip[at : at + UNPACK_STEP]))
            if size > budget:
                raise damaged(name, f"TIFF pixels unpack to more than {budget} bytes")
            if stream.eof:
                return size
    except zlib.error as cause:
        raise truncated(name, f"TIFF pixels do not unpack ({cause})") from cause
    raise truncated(name, "TIFF pixels stop before the end of their strip")


def _starts_as_lzw(head: bytes) -> bool:
    """Whether a strip starts with the clear code, in the new or the old bit order."""
    return head[:1] == b"\x80" or (len(head) == 2 and head[0] == 0 and head[1] & 1 == 1)


def as_stored(data: bytes, name: str) -> bytes:
    """Give the file so that a decoder neither turns it nor multiplies by alpha.

    OpenCV turns TIFF pictures even where it is told not to, and libtiff multiplies
    the colours by an unassociated alpha. We turn once, and alpha is ignored.
    """
    tiff = _Directories(data, name)
    entries, _ = tiff.directory(tiff.first)
    changed = bytearray(data)
    for tag, old, new in (
        (_ORIENTATION, range(2, 9), 1),
        (_EXTRA_SAMPLES, (_ALPHA_PLAIN,), _ALPHA_ASSOCIATED),
    ):
        entry = entries.get(tag)
        if entry is not None and tiff.number(entries, tag, 0) in old:
            code = tiff.order + _UNSIGNED[entry.kind]
            struct.pack_into(code, changed, entry.at, new)
    return bytes(changed) if changed != data else data


def _orientation(tiff: _Directories, entries: dict[int, _Entry]) -> int:
    found = tiff.number(entries, _ORIENTATION, 1)
    return found if 1 <= found <= 8 else 1


def _has_second_page(tiff: _Directories, at: int) -> bool:
    """Whether a full picture follows; reduced copies and masks do not count."""
    for _ in range(MAX_DIRECTORIES):
        if at == 0:
            return False
        entries, at = tiff.directory(at)
        if not tiff.number(entries, _SUBFILE, 0) & 0b101:  # reduced copy or mask
            return True
    return True
