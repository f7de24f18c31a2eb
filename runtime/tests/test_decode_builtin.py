"""Pixels and refusals of the readers that need no OpenCV."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from picture_files import (
    GREY,
    GREY_ALPHA,
    PALETTE,
    RGB,
    RGBA,
    bmp_file,
    chunk,
    exif_block,
    gif_file,
    jpeg_file,
    jpeg_frame,
    noise,
    npy_file,
    png_file,
    png_rows,
    pnm_file,
    tiff_file,
    upright,
)

from pyimgano_runtime.decode import (
    DecodeRules,
    Image,
    check_array,
    decode_bytes,
    decoder_name,
    inspect_image,
    read_image,
)
from pyimgano_runtime.errors import ImageError

RULES = DecodeRules()


@pytest.fixture(autouse=True)
def _without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)  # import cv2 now fails


def decode(data: bytes, rules: DecodeRules = RULES) -> Image:
    image = decode_bytes(data, rules, name="picture")
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    assert image.flags.writeable
    return image


def refused(data: bytes, rules: DecodeRules = RULES) -> ImageError:
    with pytest.raises(ImageError, match=r"^picture: ") as caught:
        decode(data, rules)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_decoder_names_itself() -> None:
    assert decoder_name() == "builtin"


@pytest.mark.parametrize("filters", [[0] * 20, [1] * 20, [2] * 20, [0, 1, 2, 2, 1] * 4])
@pytest.mark.parametrize(
    ("colour", "channels"), [(GREY, 1), (RGB, 3), (GREY_ALPHA, 2), (RGBA, 4)]
)
def test_png_pixels_come_out_under_every_filter_and_alpha_is_dropped(
    filters: list[int], colour: int, channels: int
) -> None:
    stored = noise(20, 30, channels).reshape(20, 30, channels)
    data = png_file(30, 20, png_rows(stored, filters), colour=colour)
    shown = stored[..., :3] if channels >= 3 else np.repeat(stored[..., :1], 3, axis=2)
    assert np.array_equal(decode(data), shown)


def test_png_palette_gives_its_colours() -> None:
    palette = noise(16, 1, 3).reshape(16, 3)
    indices = noise(20, 30, 1) % 16
    rows = png_rows(indices[..., None], [0] * 20)
    table = chunk(b"PLTE", palette.tobytes())
    data = png_file(30, 20, rows, colour=PALETTE, extra=table)
    assert np.array_equal(decode(data), palette[indices])

    short = chunk(b"PLTE", palette[:10].tobytes())
    data = png_file(30, 20, rows, colour=PALETTE, extra=short)
    assert refused(data).code == "IMAGE_UNREADABLE"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_is_turned_upright_by_its_exif_orientation(orientation: int) -> None:
    stored = noise(4, 6)
    extra = chunk(b"eXIf", exif_block(orientation))
    data = png_file(6, 4, png_rows(stored, [0] * 4), extra=extra)
    assert np.array_equal(decode(data), upright(stored, orientation))


@pytest.mark.parametrize("kind", [3, 4])
def test_png_with_other_filters_names_the_package_to_install(kind: int) -> None:
    data = png_file(6, 4, png_rows(noise(4, 6), [0, kind, 0, 0]))
    error = refused(data)
    assert error.code == "DECODER_MISSING"
    assert "needs OpenCV: pip install opencv-python-headless" in str(error)


def test_png_that_is_interlaced_or_packed_names_the_package_to_install() -> None:
    interlaced = png_file(6, 4, b"", interlace=1)
    assert refused(interlaced).code == "DECODER_MISSING"
    assert refused(png_file(6, 4, b"", depth=4, colour=0)).code == "DECODER_MISSING"


def test_png_with_an_unknown_filter_is_unreadable() -> None:
    rows = bytearray(png_rows(noise(4, 6), [0] * 4))
    rows[0] = 5
    assert refused(png_file(6, 4, bytes(rows))).code == "IMAGE_UNREADABLE"


@pytest.mark.parametrize("kept", [0, 1, 40])
def test_png_with_too_few_pixels_inside_is_truncated(kept: int) -> None:
    rows = png_rows(noise(4, 6), [0] * 4)[:kept]
    assert refused(png_file(6, 4, rows)).code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("bits", [24, 32])
@pytest.mark.parametrize("top_down", [False, True])
@pytest.mark.parametrize("width", [1, 29, 30, 31, 32])
def test_bmp_pixels_come_out_for_every_padding_and_row_order(
    bits: int, top_down: bool, width: int
) -> None:
    stored = noise(20, width, bits // 8)
    data = bmp_file(stored, bits=bits, top_down=top_down)
    assert np.array_equal(decode(data), stored[..., :3])


def test_bmp_palette_gives_its_colours() -> None:
    indices = noise(20, 31, 1)
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    data = bmp_file(indices, bits=8, palette=grey)
    assert np.array_equal(decode(data), np.repeat(indices[..., None], 3, axis=2))

    colours = noise(256, 1, 3).reshape(256, 3)
    data = bmp_file(indices, bits=8, palette=colours)
    assert np.array_equal(decode(data), colours[indices])

    data = bmp_file(indices, bits=8, palette=grey[:100])
    assert refused(data).code == "IMAGE_UNREADABLE"


def test_bmp_of_another_kind_names_the_package_to_install() -> None:
    data = bytearray(bmp_file(noise(20, 30)))
    data[30] = 1  # run-length packed
    assert refused(bytes(data)).code == "DECODER_MISSING"


def test_pgm_and_ppm_pixels_come_out() -> None:
    grey, colour = noise(20, 30, 1), noise(20, 30)
    assert np.array_equal(
        decode(pnm_file(grey, comment=b"# by hand\n")),
        np.repeat(grey[..., None], 3, axis=2),
    )
    assert np.array_equal(decode(pnm_file(colour)), colour)
    assert refused(b"P2\n2 1\n255\n0 1\n").code == "DECODER_MISSING"
    assert refused(pnm_file(colour)[:-1]).code == "IMAGE_TRUNCATED"


def test_npy_pixels_come_out_in_both_memory_orders() -> None:
    grey, colour = noise(20, 30, 1), noise(20, 30)
    assert np.array_equal(decode(npy_file(colour)), colour)
    assert np.array_equal(decode(npy_file(np.asfortranarray(colour))), colour)
    assert np.array_equal(decode(npy_file(grey)), np.repeat(grey[..., None], 3, axis=2))
    assert refused(npy_file(colour)[:-1]).code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.zeros((2, 3, 3), np.float32), "IMAGE_DTYPE"),
        (np.zeros((2, 3), np.uint16), "IMAGE_DTYPE"),
        (np.zeros((2, 3), [("a", "u1")]), "IMAGE_DTYPE"),
        (np.zeros((2, 3, 4), np.uint8), "IMAGE_SHAPE"),
        (np.zeros((1, 2, 3, 3), np.uint8), "IMAGE_SHAPE"),
        (np.zeros(6, np.uint8), "IMAGE_SHAPE"),
        (np.zeros((), np.uint8), "IMAGE_SHAPE"),
        (np.zeros((0, 3), np.uint8), "IMAGE_UNREADABLE"),
    ],
)
def test_npy_of_anything_but_pixels_is_refused(
    array: npt.NDArray[np.generic], code: str
) -> None:
    assert refused(npy_file(array)).code == code


def test_npy_with_pickled_objects_is_refused_unread() -> None:
    data = npy_file(noise(2, 3)).replace(b"'|u1'", b"'|O' ")
    assert refused(data).code == "IMAGE_DTYPE"


@pytest.mark.parametrize(
    "data",
    [jpeg_file(jpeg_frame(64, 48)), gif_file(30, 20), tiff_file(noise(2, 3))],
    ids=["jpeg", "gif", "tiff"],
)
def test_other_formats_name_the_package_to_install(data: bytes) -> None:
    error = refused(data)
    assert error.code == "DECODER_MISSING"
    assert "pip install opencv-python-headless" in str(error)


def test_an_opencv_that_does_not_load_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "raise ImportError('libGL.so.1: cannot open shared object file')\n"
    (tmp_path / "cv2.py").write_text(broken)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2")
    assert "libGL.so.1" in str(refused(jpeg_file(jpeg_frame(64, 48))))


def test_a_single_pixel_is_a_picture() -> None:
    assert decode(pnm_file(noise(1, 1))).shape == (1, 1, 3)


def test_the_rules_limit_the_size() -> None:
    data = pnm_file(noise(20, 30))
    assert refused(data, DecodeRules(max_pixels=599)).code == "IMAGE_TOO_LARGE"
    assert refused(data, DecodeRules(min_side=21)).code == "IMAGE_TOO_SMALL"
    assert refused(data, DecodeRules(expected_size=(30, 20))).code == "IMAGE_SIZE"
    exact = DecodeRules(max_pixels=600, min_side=20, expected_size=(20, 30))
    assert decode(data, exact).shape == (20, 30, 3)


def test_the_expected_size_is_that_of_the_upright_picture() -> None:
    extra = chunk(b"eXIf", exif_block(6))
    data = png_file(6, 4, png_rows(noise(4, 6), [0] * 4), extra=extra)
    assert decode(data, DecodeRules(expected_size=(6, 4))).shape == (6, 4, 3)


def test_16_bits_are_refused_with_the_way_out() -> None:
    error = refused(png_file(6, 4, b"", depth=16))
    assert error.code == "IMAGE_BIT_DEPTH"
    assert "pixel // 256" in str(error)


def test_a_file_is_read_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    stored = noise(4, 6)
    path = tmp_path / "picture.jpg"
    path.write_bytes(bmp_file(stored))
    assert np.array_equal(read_image(path, RULES), stored)
    assert np.array_equal(read_image(str(path), RULES), stored)


def test_a_file_can_be_inspected_without_decoding_it(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(png_file(6, 4, b"no pixels in here"))
    assert inspect_image(path, RULES).size == (4, 6)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ImageError, match=r"picture\.png: "):
        inspect_image(path, RULES)


def test_an_array_that_fits_is_passed_through_uncopied() -> None:
    image = noise(4, 6)
    assert check_array(image, RULES, "image 0") is image


def test_an_array_of_grey_or_strided_pixels_is_made_to_fit() -> None:
    grey, colour = noise(4, 6, 1), noise(4, 6)
    assert np.array_equal(check_array(grey, RULES, "a")[..., 2], grey)
    turned = check_array(colour[:, ::-1], RULES, "a")
    assert turned.flags.c_contiguous
    assert np.array_equal(turned, colour[:, ::-1])


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ([[1, 2], [3, 4]], "IMAGE_DTYPE"),
        (None, "IMAGE_DTYPE"),
        (np.zeros((4, 6, 3), np.float32), "IMAGE_DTYPE"),
        (np.full((4, 6, 3), np.nan), "IMAGE_DTYPE"),
        (np.zeros((4, 6, 3), np.uint16), "IMAGE_DTYPE"),
        (np.zeros((4, 6), bool), "IMAGE_DTYPE"),
        (np.zeros((3, 4, 6), np.uint8), "IMAGE_SHAPE"),
        (np.zeros((4, 6, 4), np.uint8), "IMAGE_SHAPE"),
        (np.zeros((4, 6, 1), np.uint8), "IMAGE_SHAPE"),
        (np.zeros((1, 4, 6, 3), np.uint8), "IMAGE_SHAPE"),
        (np.zeros(6, np.uint8), "IMAGE_SHAPE"),
        (np.zeros((0, 6, 3), np.uint8), "IMAGE_TOO_SMALL"),
        (np.zeros((200, 200), np.uint8), "IMAGE_TOO_LARGE"),
    ],
)
def test_an_array_of_anything_else_is_refused(image: object, code: str) -> None:
    with pytest.raises(ImageError, match=r"^image 0: .*expected") as caught:
        check_array(image, DecodeRules(max_pixels=10_000), "image 0")
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
