"""BMP, PGM/PPM and .npy: headers, and their pixels without OpenCV."""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ImageError
from .facts import ImageHeader, damaged, needs_opencv, truncated

BMP_SIGNATURE: Final = b"BM"
NPY_SIGNATURE: Final = b"\x93NUMPY"
PNM_SIGNATURES: Final = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6")
MAX_TEXT_HEADER: Final = 65_536  # bytes that we look at for the text of PNM and .npy

_BMP_CORE, _BMP_INFO, _BMP_LARGEST = 12, 40, 124  # sizes of the header kinds
_BMP_PLAIN, _BMP_MASKS = 0, 3
_BMP_USUAL_MASKS: Final = (0x00FF0000, 0x0000FF00, 0x000000FF)
# A separator is blanks and comments; each alternative starts with another byte.
_GAP: Final = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
# Compiled where they are used: together they cost 1 ms at the start.
_PNM_SIZE: Final = rb"P[1-6]" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})"
_PNM_MAXIMUM: Final = _GAP + rb"(\d{1,9})[ \t\r\n\v\f]"
_NPY_TEXT: Final = (
    r"\s*\{\s*'descr':\s*(?P<dtype>'[^']{1,32}'|\[.*\])\s*,"
    r"\s*'fortran_order':\s*(?P<fortran>True|False)\s*,"
    r"\s*'shape':\s*\((?P<shape>[\d\s,]{0,80})\)\s*,?\s*\}\s*"
)
_NPY_UINT8: Final = ("'|u1'", "'<u1'", "'>u1'", "'=u1'", "'u1'", "'uint8'")


class _Bmp(NamedTuple):
    width: int
    height: int
    bits: int
    top_down: bool
    plain: bool  # stored as rows of whole bytes in the usual order
    palette_at: int
    palette_size: int
    pixels_at: int

    @property
    def row_bytes(self) -> int:
        return (self.width * self.bits + 31) // 32 * 4


class _Pnm(NamedTuple):
    kind: int  # 1..6
    width: int
    height: int
    maximum: int
    pixels_at: int


class _Npy(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    pixels_at: int


def read_bmp_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a BMP file."""
    bmp = _bmp(data, name)
    channels = 4 if bmp.bits == 32 else 3
    depth = {1: 1, 4: 4, 16: 5}.get(bmp.bits, 8)
    return ImageHeader("BMP", bmp.width, bmp.height, channels, depth)


def check_whole_bmp(data: bytes, name: str) -> None:
    """Refuse a file that ends before its last row."""
    bmp = _bmp(data, name)
    end = bmp.pixels_at + bmp.row_bytes * bmp.height
    if bmp.plain and end > len(data):
        raise truncated(name, f"BMP file has {len(data)} bytes, expected {end}")


def read_bmp(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Give (H, W, 3) RGB of a plain BMP; alpha is dropped."""
    bmp = _bmp(data, name)
    if not bmp.plain or bmp.bits not in (8, 24, 32):
        raise needs_opencv(name, f"a {bmp.bits}-bit BMP of this kind")
    check_whole_bmp(data, name)
    rows = np.frombuffer(data, np.uint8, bmp.row_bytes * bmp.height, bmp.pixels_at)
    rows = rows.reshape(bmp.height, bmp.row_bytes)[:: 1 if bmp.top_down else -1]
    rows = rows[:, : bmp.width * bmp.bits // 8]
    if bmp.bits != 8:
        stored = rows.reshape(bmp.height, bmp.width, -1)  # BGR or BGRA
        rgb = np.empty((bmp.height, bmp.width, 3), np.uint8)
        for channel in range(3):  # 3 times as fast as one copy of [..., 2::-1]
            rgb[..., channel] = stored[..., 2 - channel]
        return rgb

    palette = np.frombuffer(data, np.uint8, 4 * bmp.palette_size, bmp.palette_at)
    if int(rows.max()) >= bmp.palette_size:
        raise damaged(name, f"BMP pixel value {int(rows.max())} is not in its palette")
    return palette.reshape(-1, 4)[:, 2::-1][rows]


def _bmp(data: bytes, name: str) -> _Bmp:
    if len(data) < 30:
        raise truncated(name, f"{len(data)} bytes, a BMP header has more")
    pixels_at, header_size = struct.unpack_from("<II", data, 10)
    if header_size != _BMP_CORE and not _BMP_INFO <= header_size <= _BMP_LARGEST:
        raise damaged(name, f"BMP header of {header_size} bytes is unknown")
    if len(data) < 14 + header_size:
        raise truncated(name, f"{len(data)} bytes end inside of the BMP header")
    if pixels_at < 14 + header_size:
        raise damaged(name, f"BMP pixels start at byte {pixels_at}, in the header")
    if header_size == _BMP_CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return _Bmp(width, height, bits, False, False, 0, 0, pixels_at)

    width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
    if width < 0 or bits not in (1, 4, 8, 16, 24, 32):
        raise damaged(name, f"BMP with width {width} and {bits} bits")
    usual = packing == _BMP_PLAIN
    if packing == _BMP_MASKS and bits == 32 and len(data) >= 66:
        usual = struct.unpack_from("<III", data, 54) == _BMP_USUAL_MASKS
    palette_at = 14 + header_size
    room = max(0, min(pixels_at, len(data)) - palette_at) // 4
    colours = struct.unpack_from("<I", data, 46)[0] or 256
    return _Bmp(
        width,
        abs(height),
        bits,
        top_down=height < 0,
        plain=usual,
        palette_at=palette_at,
        palette_size=min(colours, room, 256),
        pixels_at=pixels_at,
    )


def read_pnm_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of a PBM, PGM or PPM file."""
    pnm = _pnm(data, name)
    if pnm.maximum < 255 and pnm.kind not in (1, 4):
        raise ImageError(
            f"{name}: PNM with the maximum {pnm.maximum}, expected 255; "
            "scale its pixels to 0..255 and save it again",
            code="IMAGE_BIT_DEPTH",
        )
    depth = 1 if pnm.kind in (1, 4) else 8 if pnm.maximum == 255 else 16
    channels = 3 if pnm.kind in (3, 6) else 1
    return ImageHeader("PNM", pnm.width, pnm.height, channels, depth)


def check_whole_pnm(data: bytes, name: str) -> None:
    """Refuse a binary file that ends before its last pixel."""
    pnm = _pnm(data, name)
    row = {4: (pnm.width + 7) // 8, 5: pnm.width, 6: 3 * pnm.width}.get(pnm.kind, 0)
    end = pnm.pixels_at + row * pnm.height
    if end > len(data):
        raise truncated(name, f"PNM file has {len(data)} bytes, expected {end}")


def read_pnm(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Give (H, W) or (H, W, 3) of a binary 8-bit PGM or PPM."""
    pnm = _pnm(data, name)
    if pnm.kind not in (5, 6) or pnm.maximum != 255:
        raise needs_opencv(name, f"a PNM of kind P{pnm.kind}")
    check_whole_pnm(data, name)
    shape = (pnm.height, pnm.width, 3) if pnm.kind == 6 else (pnm.height, pnm.width)
    count = pnm.height * pnm.width * (3 if pnm.kind == 6 else 1)
    return np.frombuffer(data, np.uint8, count, pnm.pixels_at).reshape(shape)


def _pnm(data: bytes, name: str) -> _Pnm:
    kind = data[1] - ord("0")
    head = data[:MAX_TEXT_HEADER]
    size = re.match(_PNM_SIZE, head)
    end, maximum = (size.end() + 1 if size else 0), 1
    if size and kind not in (1, 4):
        found = re.compile(_PNM_MAXIMUM).match(head, size.end())
        size = size if found else None
        end, maximum = (found.end(), int(found[1])) if found else (0, 0)
    if size is None or not 1 <= maximum <= 65_535:
        raise damaged(name, "PNM header has no width, height and maximum")
    return _Pnm(kind, int(size[1]), int(size[2]), maximum, end)


def read_npy_header(data: bytes, name: str) -> ImageHeader:
    """Give the facts of an .npy file of uint8 pixels, (H, W) or (H, W, 3)."""
    npy = _npy(data, name)
    channels = 3 if len(npy.shape) == 3 else 1
    return ImageHeader("NPY", npy.shape[1], npy.shape[0], channels, 8)


def check_whole_npy(data: bytes, name: str) -> None:
    """Refuse a file that ends before its last pixel."""
    npy = _npy(data, name)
    end = npy.pixels_at + _product(npy.shape)
    if end > len(data):
        raise truncated(name, f".npy file has {len(data)} bytes, expected {end}")


def read_npy(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Give (H, W) or (H, W, 3) of an .npy file; nothing in it is ever executed."""
    npy = _npy(data, name)
    check_whole_npy(data, name)
    flat = np.frombuffer(data, np.uint8, _product(npy.shape), npy.pixels_at)
    return flat.reshape(npy.shape, order="F" if npy.fortran else "C")


def _npy(data: bytes, name: str) -> _Npy:
    wide = data[6:7] in (b"\2", b"\3")  # versions 2 and 3 have a 4-byte length
    start = 12 if wide else 10
    end = start + int.from_bytes(data[8:start], "little")
    if len(data) < start or end > min(len(data), MAX_TEXT_HEADER):
        raise truncated(name, "the .npy header does not end")
    text = re.fullmatch(_NPY_TEXT, data[start:end].decode("latin-1"))
    if text is None or data[6:7] not in (b"\1", b"\2", b"\3"):
        raise damaged(name, "the .npy header is not one that numpy writes")
    if text["dtype"] not in _NPY_UINT8:
        raise ImageError(
            f"{name}: .npy file of dtype {text['dtype'].strip(chr(39))[:40]}, expected "
            "uint8 pixels 0..255; convert it with one fixed scale for all pictures",
            code="IMAGE_DTYPE",
        )
    shape = tuple(int(n) for n in text["shape"].replace(",", " ").split())
    if len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ImageError(
            f"{name}: .npy file of shape {shape}, expected (height, width) or "
            "(height, width, 3); save one picture a file",
            code="IMAGE_SHAPE",
        )
    return _Npy(shape, text["fortran"] == "True", end)


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count
