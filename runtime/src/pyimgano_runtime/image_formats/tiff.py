"""TIFF directories: the header of TIFF files, and the orientation in EXIF blocks."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ..errors import ImageError
from .facts import ImageHeader, damaged, truncated

SIGNATURES: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_DIRECTORIES: Final = 64
MAX_ENTRIES: Final = 4096
MAX_VALUES: Final = 1 << 20  # of one tag; 100 Mpx in 16 x 16 tiles have 390,000

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 254, 256, 257, 258, 262
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_BYTES = 273, 274, 277, 279
_TILE_OFFSETS, _TILE_BYTES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 324, 325, 338, 339
_PHOTOMETRIC_CHANNELS: Final = {0: 1, 1: 1, 2: 3, 3: 3, 6: 3}
_PALETTE, _CMYK = 3, 5
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

    def number(tag: int, default: int) -> int:
        return next(iter(tiff.values(entries.get(tag))), default)

    photometric = number(_PHOTOMETRIC, 1)
    samples = number(_SAMPLES, 1)
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
        number(_WIDTH, 0),
        number(_HEIGHT, 0),
        base + alpha,
        bits,
        _orientation(tiff, entries),
        frames=2 if _has_second_page(tiff, following) else 1,
        colours=colours,
    )


def check_whole(data: bytes, name: str) -> None:
    """Refuse a file that ends before its last strip or tile."""
    tiff = _Directories(data, name)
    entries, _ = tiff.directory(tiff.first)
    for offsets, sizes in (
        (_STRIP_OFFSETS, _STRIP_BYTES),
        (_TILE_OFFSETS, _TILE_BYTES),
    ):
        starts = tiff.values(entries.get(offsets))
        lengths = tiff.values(entries.get(sizes))
        end = max((a + n for a, n in zip(starts, lengths, strict=False)), default=0)
        if end > len(data):
            raise truncated(name, f"TIFF pixels end at byte {end} of {len(data)}")


def as_stored(data: bytes, name: str) -> bytes:
    """Give the file so that a decoder neither turns it nor multiplies by alpha.

    OpenCV turns TIFF pictures even where it is told not to, and libtiff multiplies
    the colours by an unassociated alpha. We turn once, and alpha is ignored.
    """
    tiff = _Directories(data, name)
    entries, _ = tiff.directory(tiff.first)
    changes = {_ORIENTATION: (range(2, 9), 1)}
    changes[_EXTRA_SAMPLES] = (range(_ALPHA_PLAIN, 3), _ALPHA_ASSOCIATED)
    changed = bytearray(data)
    for tag, (old, new) in changes.items():
        entry = entries.get(tag)
        if entry is None or not tiff.values(entry) or tiff.values(entry)[0] not in old:
            continue
        struct.pack_into(tiff.order + _UNSIGNED[entry.kind], changed, entry.at, new)
    return bytes(changed) if changed != data else data


def _orientation(tiff: _Directories, entries: dict[int, _Entry]) -> int:
    found = tiff.values(entries.get(_ORIENTATION))
    return found[0] if found and 1 <= found[0] <= 8 else 1


def _has_second_page(tiff: _Directories, at: int) -> bool:
    """Whether a full picture follows; reduced copies and masks do not count."""
    for _ in range(MAX_DIRECTORIES):
        if at == 0:
            return False
        entries, at = tiff.directory(at)
        kind = next(iter(tiff.values(entries.get(_SUBFILE))), 0)
        if not kind & 0b101:
            return True
    return True
