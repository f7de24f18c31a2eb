"""OpenCV and the built-in readers give equal pixels; OpenCV's traps are closed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
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
    exif_segment,
    noise,
    npy_file,
    png_file,
    png_rows,
    pnm_file,
    tiff_file,
    upright,
)

from pyimgano_runtime.decode import DecodeRules, Image, decode_bytes, decoder_name
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.png_writer import encode_png

cv2 = pytest.importorskip("cv2")

RULES = DecodeRules()
# Decoded JPEG pixels against drawn ones, quality 100: rounding and the
# chroma that JPEG stores at half size, measured 8.
JPEG_ERROR = 12

PALETTE_16 = chunk(b"PLTE", noise(16, 1, 3).tobytes())
BOTH_READ = {
    "png rgb": png_file(31, 20, png_rows(noise(20, 31), [0, 1, 2, 2] * 5), colour=RGB),
    "png rgba": png_file(
        31, 20, png_rows(noise(20, 31, 4), [0, 1, 2, 2] * 5), colour=RGBA
    ),
    "png grey": png_file(
        31, 20, png_rows(noise(20, 31, 1)[..., None], [1, 2] * 10), colour=GREY
    ),
    "png grey alpha": png_file(
        31, 20, png_rows(noise(20, 31, 2), [1, 2] * 10), colour=GREY_ALPHA
    ),
    "png palette": png_file(
        31,
        20,
        png_rows(noise(20, 31, 1)[..., None] % 16, [0] * 20),
        colour=PALETTE,
        extra=PALETTE_16,
    ),
    "png transparent colour": png_file(
        31, 20, png_rows(noise(20, 31), [0] * 20), extra=chunk(b"tRNS", bytes(6))
    ),
    "png turned": png_file(
        31,
        20,
        png_rows(noise(20, 31), [0] * 20),
        extra=chunk(b"eXIf", exif_block(6)),
    ),
    "our png": encode_png(noise(20, 31)),
    "our grey png": encode_png(noise(20, 31, 1)),
    "bmp 24": bmp_file(noise(20, 31)),
    "bmp 24 top-down": bmp_file(noise(20, 31), top_down=True),
    "bmp 32": bmp_file(noise(20, 31, 4), bits=32),
    "bmp palette": bmp_file(
        noise(20, 31, 1), bits=8, palette=noise(256, 1, 3).reshape(256, 3)
    ),
    "pgm": pnm_file(noise(20, 31, 1), comment=b"# by hand\n"),
    "ppm": pnm_file(noise(20, 31)),
    "npy": npy_file(noise(20, 31)),
}


def decode(data: bytes) -> Image:
    image = decode_bytes(data, RULES, name="picture")
    assert image.flags.c_contiguous
    return image


def jpeg(image: Image, *options: int) -> bytes:
    done, data = cv2.imencode(".jpg", image[..., ::-1], list(options))
    assert done
    return bytes(data)


def smooth(height: int, width: int) -> Image:
    small = noise(4, 6, seed=3)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("kind", BOTH_READ)
def test_both_readers_give_equal_pixels(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_opencv = decode(BOTH_READ[kind])
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert np.array_equal(decode(BOTH_READ[kind]), with_opencv)


def test_the_decoder_names_itself_with_its_version() -> None:
    assert decoder_name() == f"opencv {cv2.__version__}"


@pytest.mark.parametrize("filters", [[3] * 20, [4] * 20, [0, 1, 2, 3, 4] * 4])
def test_png_of_every_filter_is_read(filters: list[int]) -> None:
    stored = noise(20, 30)
    assert np.array_equal(decode(png_file(30, 20, png_rows(stored, filters))), stored)


def test_interlaced_png_is_read() -> None:
    # One pixel has the first of the seven passes only.
    data = png_file(1, 1, bytes([0, 10, 20, 30]), interlace=1)
    assert decode(data).tolist() == [[[10, 20, 30]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright_once(orientation: int) -> None:
    stored = smooth(48, 64)
    data = jpeg(stored, cv2.IMWRITE_JPEG_QUALITY, 100)
    turned = decode(data[:2] + exif_segment(orientation) + data[2:])
    assert np.array_equal(turned, upright(decode(data), orientation))
    shown = upright(stored, orientation).astype(np.int64)
    assert np.abs(turned - shown).max() <= JPEG_ERROR


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_is_turned_upright_once(orientation: int, order: str) -> None:
    # OpenCV turns TIFF pictures even under IMREAD_IGNORE_ORIENTATION.
    stored = noise(20, 30)
    data = tiff_file(stored, order=order, tags={274: (orientation,)})
    assert np.array_equal(decode(data), upright(stored, orientation))


def test_tiff_alpha_is_dropped_and_not_multiplied_in() -> None:
    # libtiff multiplies by an unassociated alpha: off by up to 254 grey levels.
    stored = noise(20, 30, 4)
    assert np.array_equal(decode(tiff_file(stored)), stored[..., :3])


def test_tiff_grey_and_inverted_grey_are_read() -> None:
    stored = noise(20, 30, 1)
    assert np.array_equal(decode(tiff_file(stored))[..., 1], stored)
    inverted = tiff_file(stored, tags={262: (0,)})
    assert np.array_equal(decode(inverted)[..., 1], 255 - stored)


@pytest.mark.parametrize("packing", [5, 8])
def test_tiff_strips_that_were_never_written_are_an_error_and_not_black(
    packing: int,
) -> None:
    try:
        done, encoded = cv2.imencode(
            ".tiff", noise(300, 400), [cv2.IMWRITE_TIFF_COMPRESSION, packing]
        )
    except cv2.error:
        done = False
    if not done:
        pytest.skip(f"this OpenCV does not write TIFF packing {packing}")
    data = bytes(encoded)
    assert decode(data).shape == (300, 400, 3)
    with pytest.raises(ImageError) as caught:
        decode(data[:8] + bytes(len(data) // 2) + data[8 + len(data) // 2 :])
    assert caught.value.code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".tiff"])
def test_further_formats_are_read(suffix: str) -> None:
    stored = np.zeros((20, 30, 3), np.uint8)
    stored[5:15, 5:20] = (255, 0, 0)
    try:
        done, data = cv2.imencode(suffix, stored[..., ::-1])
    except cv2.error:
        done = False
    if not done:
        pytest.skip(f"this OpenCV does not write {suffix}")
    decoded = decode(bytes(data)).astype(np.int64)
    assert np.abs(decoded[8:12, 10:15] - (255, 0, 0)).max() <= JPEG_ERROR
    assert decoded[0, 0].max() <= JPEG_ERROR


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("tenth", range(1, 10))
def test_truncated_jpeg_is_an_error_and_no_grey_picture(
    progressive: int, tenth: int, capfd: pytest.CaptureFixture[str]
) -> None:
    data = jpeg(smooth(300, 400), cv2.IMWRITE_JPEG_PROGRESSIVE, progressive)
    for cut in (data[: len(data) * tenth // 10], data[:-2], data[:-1] + b"\0"):
        with pytest.raises(ImageError, match="cut off") as caught:
            decode(cut)
        assert caught.value.code == "IMAGE_TRUNCATED"
    assert capfd.readouterr().err == ""


def test_bytes_after_a_jpeg_change_nothing() -> None:
    data = jpeg(smooth(48, 64))
    expected = decode(data)
    for tail in (b"\0" * 500, b"maker's data", jpeg(noise(8, 8))[:100]):
        assert np.array_equal(decode(data + tail), expected)


def test_opencv_is_quiet_about_files_that_it_cannot_read(
    capfd: pytest.CaptureFixture[str],
) -> None:
    level = cv2.utils.logging.getLogLevel()
    broken_tiff = tiff_file(noise(20, 30), tags={259: (7,)})  # no JPEG inside
    broken_bmp = bytearray(bmp_file(noise(20, 30)))
    broken_bmp[30] = 9  # no such packing
    for data in (broken_tiff, bytes(broken_bmp)):
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.code == "IMAGE_UNREADABLE"
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


def test_threads_decode_together_and_restore_the_log_level() -> None:
    level = cv2.utils.logging.getLogLevel()
    data = jpeg(smooth(300, 400))
    expected = decode(data)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            if not np.array_equal(decode(data), expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cv2.utils.logging.getLogLevel() == level


def test_other_decoders_read_our_png(tmp_path: Path) -> None:
    image = noise(20, 31)
    (tmp_path / "ours.png").write_bytes(encode_png(image))
    read = cv2.imread(str(tmp_path / "ours.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(read[..., ::-1], image)
