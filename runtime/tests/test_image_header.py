"""What the first bytes of a picture file say, for every format."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from picture_files import (
    GREY_ALPHA,
    PALETTE,
    RGBA,
    bmp_file,
    chunk,
    exif_block,
    exif_segment,
    gif_file,
    jpeg_file,
    jpeg_frame,
    noise,
    npy_file,
    png_file,
    pnm_file,
    segment,
    tiff_file,
    webp_file,
)

from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.image_header import ImageHeader, check_whole, read_header


def header(data: bytes) -> ImageHeader:
    return read_header(data, "picture")


def refused(data: bytes) -> str:
    with pytest.raises(ImageError, match=r"^picture: ") as caught:
        check_whole(data, read_header(data, "picture"), "picture")
    assert "\n" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize(
    ("colour", "depth", "channels"),
    [
        (0, 8, 1),
        (0, 1, 1),
        (2, 16, 3),
        (PALETTE, 4, 3),
        (GREY_ALPHA, 8, 2),
        (RGBA, 8, 4),
    ],
)
def test_png_header_gives_size_channels_and_depth(
    colour: int, depth: int, channels: int
) -> None:
    data = png_file(30, 20, b"", colour=colour, depth=depth)
    assert header(data) == ImageHeader("PNG", 30, 20, channels, depth)
    assert header(data).size == (20, 30)


def test_png_orientation_is_found_wherever_its_chunk_stands() -> None:
    before = png_file(30, 20, b"", extra=chunk(b"eXIf", exif_block(6)))
    after = before.replace(chunk(b"eXIf", exif_block(6)), b"")
    end = chunk(b"IEND", b"")
    after = after.replace(end, chunk(b"eXIf", exif_block(6, order=">")) + end)
    assert header(before).orientation == header(after).orientation == 6
    assert header(before).size == (30, 20)


def test_animated_png_has_several_frames() -> None:
    animated = chunk(b"acTL", struct.pack(">II", 3, 0))
    still = chunk(b"acTL", struct.pack(">II", 1, 0))
    assert header(png_file(3, 2, b"", extra=animated)).frames == 2
    assert header(png_file(3, 2, b"", extra=still)).frames == 1


@pytest.mark.parametrize(("depth", "colour"), [(3, 0), (4, 2), (16, PALETTE), (8, 5)])
def test_png_with_an_impossible_header_is_unreadable(depth: int, colour: int) -> None:
    assert (
        refused(png_file(3, 2, b"", depth=depth, colour=colour)) == "IMAGE_UNREADABLE"
    )


def test_png_with_a_flipped_bit_is_refused_by_its_checksum() -> None:
    data = bytearray(png_file(3, 2, bytes(20)))
    data[45] ^= 1
    assert refused(bytes(data)) == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("order", ["<", ">"])
def test_jpeg_header_gives_size_and_orientation(order: str) -> None:
    data = jpeg_file(jpeg_frame(640, 480), before=exif_segment(8, order=order))
    assert header(data) == ImageHeader("JPEG", 640, 480, 3, 8, 8)
    assert header(data).size == (640, 480)


def test_jpeg_thumbnail_and_what_follows_the_end_are_not_looked_at() -> None:
    thumbnail = jpeg_file(jpeg_frame(16, 12))
    second = jpeg_file(jpeg_frame(99, 99))[:-20]  # a cut-off second picture
    data = jpeg_file(
        jpeg_frame(640, 480), before=segment(0xE1, b"MPF\0" + thumbnail), after=second
    )
    check_whole(data, header(data), "picture")
    assert header(data).size == (480, 640)


def test_jpeg_may_have_fill_bytes_and_garbage_between_segments() -> None:
    noisy = segment(0xFE, b"hi") + b"\x00garbage\xff\x00\xff\xff\xff"
    data = jpeg_file(noisy + jpeg_frame(640, 480))
    assert header(data).size == (480, 640)


def test_jpeg_in_cmyk_or_with_12_bits_says_so() -> None:
    assert header(jpeg_file(jpeg_frame(64, 48, channels=4))).colours == "CMYK"
    assert header(jpeg_file(jpeg_frame(64, 48, depth=12))).bit_depth == 12


@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b"\xff", b"\xff\x00\xff\xd1"])
def test_jpeg_without_an_end_mark_is_truncated(tail: bytes) -> None:
    assert refused(jpeg_file(jpeg_frame(64, 48))[:-2] + tail) == "IMAGE_TRUNCATED"


def test_jpeg_of_progressive_scans_is_whole_only_with_the_last_end_mark() -> None:
    scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"\x12\xff\x00\x34"
    more = segment(0xC4, bytes(17)) + scan
    data = jpeg_file(jpeg_frame(64, 48))[:-2] + more
    assert refused(data) == "IMAGE_TRUNCATED"
    check_whole(data + b"\xff\xd9", header(data), "picture")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8" + segment(0xDA, b"\0") + b"\xff\xd9",
        b"\xff\xd8\xff\xe1\x00\x01" + bytes(40),
        jpeg_file(jpeg_frame(64, 48, channels=2)),
        jpeg_file(jpeg_frame(64, 0)),
        jpeg_file(segment(0xC0, b"\x08")),
        b"\xff\xd8" + b"\xff\xd0" * 30_000,
    ],
)
def test_jpeg_garbage_is_unreadable(data: bytes) -> None:
    assert refused(data) == "IMAGE_UNREADABLE"


def test_bmp_header_gives_size_of_both_row_orders() -> None:
    assert header(bmp_file(noise(20, 30))) == ImageHeader("BMP", 30, 20, 3, 8)
    turned = bmp_file(noise(20, 30, 4), bits=32, top_down=True)
    assert header(turned) == ImageHeader("BMP", 30, 20, 4, 8)


def test_bmp_that_ends_too_early_is_truncated() -> None:
    assert refused(bmp_file(noise(20, 30))[:-1]) == "IMAGE_TRUNCATED"


@pytest.mark.parametrize(
    ("at", "value"), [(14, 7), (14, 2**31), (18, 2**32 - 1), (28, 5), (10, 20)]
)
def test_bmp_with_an_impossible_header_is_unreadable(at: int, value: int) -> None:
    data = bytearray(bmp_file(noise(20, 30)))
    data[at : at + 4] = struct.pack("<I", value)
    assert refused(bytes(data)) == "IMAGE_UNREADABLE"


@pytest.mark.parametrize(
    ("data", "channels", "depth"),
    [
        (b"P5\n30 20\n255\n" + bytes(600), 1, 8),
        (b"P6 # made by hand\n#\n30\t20 #x\r255 " + bytes(1800), 3, 8),
        (b"P2\n30 20\n255\n", 1, 8),
        (b"P3\n30 20\n65535\n", 3, 16),
        (b"P4\n30 20\n" + bytes(80), 1, 1),
        (b"P1\n30 20\n", 1, 1),
    ],
)
def test_pnm_header_gives_size_with_comments(
    data: bytes, channels: int, depth: int
) -> None:
    assert header(data) == ImageHeader("PNM", 30, 20, channels, depth)
    check_whole(data, header(data), "picture")


def test_pnm_with_another_maximum_than_255_is_refused() -> None:
    assert refused(pnm_file(noise(2, 3), maximum=100)) == "IMAGE_BIT_DEPTH"


@pytest.mark.parametrize(
    "data",
    [
        b"P5",
        b"P5\n3",
        b"P5\n3 2",
        b"P5 3 2 0 ",
        b"P5\n-3 2\n255\n",
        b"P6 3 2 99999 ",
        b"P6 0 2 255 ",
        b"P5 #" + b"#" * 100_000,
        b"P5 " + b"9" * 70_000,
    ],
)
def test_pnm_garbage_is_unreadable(data: bytes) -> None:
    assert refused(data) == "IMAGE_UNREADABLE"


def test_npy_header_gives_size_of_grey_and_rgb() -> None:
    assert header(npy_file(noise(20, 30))) == ImageHeader("NPY", 30, 20, 3, 8)
    assert header(npy_file(noise(20, 30, 1))) == ImageHeader("NPY", 30, 20, 1, 8)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_header_gives_size_wherever_the_directory_stands(order: str) -> None:
    data = tiff_file(noise(20, 30), order=order, tags={274: (6,)})
    assert header(data) == ImageHeader("TIFF", 30, 20, 3, 8, 6)
    check_whole(data, header(data), "picture")


def test_tiff_kinds_are_told_apart() -> None:
    grey, rgba = noise(20, 30, 1), noise(20, 30, 4)
    assert header(tiff_file(grey)).channels == 1
    assert header(tiff_file(rgba)).channels == 4
    assert header(tiff_file(rgba, tags={262: (5,)})).colours == "CMYK"
    assert header(tiff_file(grey, tags={258: (16,)})).bit_depth == 16
    assert refused(tiff_file(grey, tags={339: (3,)})) == "IMAGE_BIT_DEPTH"


def test_tiff_pages_count_but_reduced_copies_do_not() -> None:
    assert header(tiff_file(noise(2, 3), pages=2)).frames == 2
    assert header(tiff_file(noise(2, 3), pages=2, tags={254: (1,)})).frames == 1


def test_tiff_with_pixels_beyond_its_end_is_truncated() -> None:
    assert refused(tiff_file(noise(20, 30), tags={279: (60_000,)})) == "IMAGE_TRUNCATED"


def test_tiff_whose_strips_overlap_is_refused() -> None:
    many: dict[int, tuple[int, ...]] = {273: (8,) * 3, 279: (1000,) * 3}
    assert refused(tiff_file(noise(20, 30), tags=many)) == "IMAGE_TRUNCATED"


def test_tiff_deflate_strips_are_unpacked_within_bounds() -> None:
    packed = np.frombuffer(zlib.compress(bytes(50_000_000), 9), np.uint8)
    grown = tiff_file(packed[None], tags={256: (30,), 259: (8,)})
    assert refused(grown) == "IMAGE_UNREADABLE"
    fits = np.frombuffer(zlib.compress(bytes(600)), np.uint8)[None]
    size: dict[int, tuple[int, ...]] = {256: (30,), 257: (20,), 259: (8,)}
    whole = tiff_file(fits, tags=size)
    check_whole(whole, header(whole), "picture")
    assert refused(tiff_file(fits[:, :-5], tags=size)) == "IMAGE_TRUNCATED"


def test_tiff_with_a_directory_that_points_at_itself_ends() -> None:
    data = bytearray(tiff_file(noise(2, 3), tags={254: (1,)}))
    directory = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, directory)[0]
    struct.pack_into("<I", data, directory + 2 + 12 * count, directory)
    assert header(bytes(data)).frames == 2


def test_webp_header_gives_size_of_all_three_kinds() -> None:
    lossy = b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 30 | 1 << 14, 20) + bytes(9)
    assert header(webp_file((b"VP8 ", lossy))) == ImageHeader("WebP", 30, 20, 3, 8)
    lossless = b"\x2f" + struct.pack("<I", 29 | 19 << 14 | 1 << 28)
    assert header(webp_file((b"VP8L", lossless))) == ImageHeader("WebP", 30, 20, 4, 8)
    wide = bytes([0x18, 0, 0, 0, 29, 0, 0, 19, 0, 0])
    extended = webp_file((b"VP8X", wide), (b"VP8 ", lossy), (b"EXIF", exif_block(3)))
    assert header(extended) == ImageHeader("WebP", 30, 20, 4, 8, 3)
    moving = webp_file((b"VP8X", bytes([0x02]) + wide[1:]))
    assert header(moving).frames == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (webp_file((b"VP8 ", bytes(20)))[:-1], "IMAGE_TRUNCATED"),
        (webp_file(), "IMAGE_TRUNCATED"),
        (webp_file((b"VP8 ", bytes(20))), "IMAGE_UNREADABLE"),
        (webp_file((b"junk", bytes(20))), "IMAGE_UNREADABLE"),
        (webp_file(*[(b"VP8L", b"\x2f")] * 12_000), "IMAGE_UNREADABLE"),
    ],
)
def test_webp_garbage_is_refused(data: bytes, code: str) -> None:
    assert refused(data) == code


def test_gif_header_gives_the_screen_size_and_sees_animation() -> None:
    assert header(gif_file(30, 20)) == ImageHeader("GIF", 30, 20, 3, 8)
    assert header(gif_file(30, 20, frames=5)).frames == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (gif_file(30, 20)[:-1], "IMAGE_TRUNCATED"),
        (gif_file(30, 20)[:10], "IMAGE_TRUNCATED"),
        (gif_file(30, 20, frames=0), "IMAGE_UNREADABLE"),
    ],
)
def test_gif_garbage_is_refused(data: bytes, code: str) -> None:
    assert refused(data) == code


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_outside_of_the_standard_is_no_orientation(
    orientation: int,
) -> None:
    data = jpeg_file(jpeg_frame(64, 48), before=exif_segment(orientation))
    assert header(data).orientation == 1


@pytest.mark.parametrize("cut", range(0, 26, 5))
def test_a_damaged_exif_block_is_no_orientation(cut: int) -> None:
    block = segment(0xE1, b"Exif\0\0" + exif_block(6)[:cut])
    assert header(jpeg_file(jpeg_frame(64, 48), before=block)).orientation == 1


@pytest.mark.parametrize("data", [b"hello world", b"\0" * 4096, b"\x89PN", b"%PDF-1.7"])
def test_garbage_is_unreadable_and_the_message_lists_the_formats(data: bytes) -> None:
    with pytest.raises(ImageError, match="PNG, JPEG, BMP") as caught:
        header(data)
    assert caught.value.code == "IMAGE_UNREADABLE"


def test_no_bytes_at_all_have_a_code_of_their_own() -> None:
    assert refused(b"") == "IMAGE_EMPTY"
