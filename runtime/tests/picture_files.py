"""Builds picture files byte by byte, so that tests know what is in them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
ORIENTATION_TAG = 274


def noise(height: int, width: int, channels: int = 3, *, seed: int = 0) -> Image:
    """Give seeded random pixels, (H, W) for one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def chunk(kind: bytes, payload: bytes) -> bytes:
    """Give one PNG chunk with its checksum."""
    checksum = zlib.crc32(kind + payload)
    return (
        struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", checksum)
    )


def png_file(
    width: int,
    height: int,
    rows: bytes,
    *,
    colour: int = RGB,
    depth: int = 8,
    interlace: int = 0,
    extra: bytes = b"",
) -> bytes:
    """Give a PNG file of filtered rows; `extra` chunks stand before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png_rows(image: Image, filters: Sequence[int]) -> bytes:
    """Give the rows of an image (H, W, C), filtered as PNG says, one type a row."""
    height, _, channels = image.shape
    flat = image.reshape(height, -1).astype(np.int64)
    rows = b""
    for y, kind in enumerate(filters):
        row = flat[y]
        up = flat[y - 1] if y else np.zeros_like(row)
        left = np.concatenate([np.zeros(channels, np.int64), row[:-channels]])
        corner = np.concatenate([np.zeros(channels, np.int64), up[:-channels]])
        guess = left + up - corner
        paeth = np.select(
            [
                (abs(guess - left) <= abs(guess - up))
                & (abs(guess - left) <= abs(guess - corner)),
                abs(guess - up) <= abs(guess - corner),
            ],
            [left, up],
            corner,
        )
        base = [0 * row, left, up, (left + up) // 2, paeth][kind]
        rows += bytes([kind]) + ((row - base) % 256).astype(np.uint8).tobytes()
    return rows


def bmp_file(
    image: Image,
    *,
    bits: int = 24,
    top_down: bool = False,
    palette: Image | None = None,
) -> bytes:
    """Give a BMP file of (H, W, 3 or 4) RGB(A), or (H, W) indices with a palette."""
    height, width = image.shape[:2]
    stored = image if image.ndim == 2 else image[..., [2, 1, 0, 3][: bits // 8]]
    rows = stored.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    table = b""
    if palette is not None:
        table = np.pad(palette[:, ::-1], ((0, 0), (0, 1))).tobytes()
    pixels = rows[:: 1 if top_down else -1].tobytes()
    start = 54 + len(table)
    colours = len(palette) if palette is not None else 0
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(pixels), 0, 0, start)
        + struct.pack("<IiiHH", 40, width, -height if top_down else height, 1, bits)
        + struct.pack("<IIiiII", 0, len(pixels), 2835, 2835, colours, 0)
        + table
        + pixels
    )


def pnm_file(image: Image, *, comment: bytes = b"", maximum: int = 255) -> bytes:
    """Give a binary PGM (H, W) or PPM (H, W, 3)."""
    kind = b"P6" if image.ndim == 3 else b"P5"
    size = b"%d %d\n%d\n" % (image.shape[1], image.shape[0], maximum)
    return kind + b"\n" + comment + size + image.tobytes()


def npy_file(array: npt.NDArray[np.generic]) -> bytes:
    """Give what `numpy.save` writes."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def exif_block(orientation: int, *, order: str = "<") -> bytes:
    """Give an EXIF block with nothing but an orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", ORIENTATION_TAG, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def segment(marker: int, payload: bytes) -> bytes:
    """Give one JPEG segment."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg_frame(width: int, height: int, channels: int = 3, depth: int = 8) -> bytes:
    """Give a JPEG start-of-frame segment."""
    parts = b"".join(bytes([i + 1, 0x11, 0]) for i in range(channels))
    head = struct.pack(">BHHB", depth, height, width, channels)
    return segment(0xC0, head + parts)


def jpeg_file(frame: bytes, *, before: bytes = b"", after: bytes = b"") -> bytes:
    """Give a JPEG file with a true structure and a scan of a few bytes."""
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\x12\xff\x00\x34\xff\xd0\x56"
    return b"\xff\xd8" + before + frame + scan + b"\xff\xd9" + after


def exif_segment(orientation: int, *, order: str = "<") -> bytes:
    """Give the JPEG segment of an EXIF block."""
    return segment(0xE1, b"Exif\0\0" + exif_block(orientation, order=order))


def gif_file(width: int, height: int, frames: int = 1) -> bytes:
    """Give a GIF file of `frames` black 1 x 1 pictures on a larger screen."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    comment = b"\x21\xfe\x05hello\x00"
    return b"GIF89a" + screen + comment + picture * frames + b"\x3b"


def webp_file(*chunks: tuple[bytes, bytes]) -> bytes:
    """Give a WebP container of chunks."""
    body = b"".join(
        kind + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
        for kind, payload in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff_file(
    image: Image,
    *,
    order: str = "<",
    tags: dict[int, tuple[int, ...]] | None = None,
    pages: int = 1,
) -> bytes:
    """Give an uncompressed one-strip TIFF; `tags` (all SHORT) replace the defaults."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    pixels = image.tobytes() + b"\0" * (image.size % 2)
    entries: dict[int, tuple[int, ...]] = {
        256: (width,),
        257: (height,),
        258: (8,) * channels,
        259: (1,),
        262: (2 if channels >= 3 else 1,),
        273: (8,),
        277: (channels,),
        278: (height,),
        279: (image.size,),
    }
    if channels == 4:
        entries[338] = (2,)  # unassociated alpha
    entries |= tags or {}
    mark = b"II*\0" if order == "<" else b"MM\0*"
    data = mark + struct.pack(order + "I", 8 + len(pixels)) + pixels
    for page in range(pages):
        table_at = len(data) + 2 + 12 * len(entries) + 4
        table = more = b""
        for tag, values in sorted(entries.items()):
            code, kind = ("I", 4) if tag in (273, 279) else ("H", 3)
            packed = struct.pack(f"{order}{len(values)}{code}", *values)
            table += struct.pack(order + "HHI", tag, kind, len(values))
            if len(packed) > 4:
                table += struct.pack(order + "I", table_at + len(more))
                more += packed
            else:
                table += packed.ljust(4, b"\0")
        following = table_at + len(more) if page + 1 < pages else 0
        data += struct.pack(order + "H", len(entries)) + table
        data += struct.pack(order + "I", following) + more
    return data


def upright(stored: Image, orientation: int) -> Image:
    """Give the picture as EXIF wants it shown, by the words of the standard."""
    turned = {
        1: stored,
        2: np.fliplr(stored),
        3: np.rot90(stored, 2),
        4: np.flipud(stored),
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored, 1),
    }
    return turned[orientation]
