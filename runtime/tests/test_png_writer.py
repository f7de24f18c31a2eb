"""The PNG files that we write ourselves."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from picture_files import noise

from pyimgano_runtime.decode import DecodeRules, decode_bytes
from pyimgano_runtime.image_formats.png import FILTER_SUB, FILTER_UP
from pyimgano_runtime.png_writer import encode_png


def ramp(height: int, width: int) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    return np.asarray(3 * x + 2 * y).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (20, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_our_reader_gives_back_what_was_written(
    size: tuple[int, int], channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    for image in (noise(*size, channels), np.zeros_like(noise(*size, channels))):
        decoded = decode_bytes(encode_png(image), DecodeRules(), name="picture")
        shown = image if channels == 3 else np.repeat(image[..., None], 3, axis=2)
        assert np.array_equal(decoded, shown)


def test_the_bytes_are_the_same_every_time_and_for_every_memory_layout() -> None:
    image = noise(20, 31)
    assert encode_png(image) == encode_png(image.copy(order="F"))
    assert encode_png(image) == encode_png(np.repeat(image, 2, axis=1)[:, ::2])


def test_each_row_has_the_filter_that_leaves_least() -> None:
    image = ramp(64, 64)
    image[30:34] = noise(4, 64, 1)  # nothing to predict here
    image[34:] = image[29]  # equal to the row above
    data = encode_png(image)
    packed = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(64, 65)
    assert rows[0, 0] == FILTER_SUB
    assert rows[5, 0] == FILTER_UP
    assert rows[40, 0] == FILTER_UP
    assert not rows[40, 1:].any()
    assert rows[:, 0].max() <= FILTER_UP


def test_filters_make_a_smooth_picture_small() -> None:
    assert len(encode_png(ramp(256, 256))) < 256 * 256 // 50


def test_the_pixels_are_not_changed_by_writing_them() -> None:
    image = noise(20, 31)
    before = image.copy()
    encode_png(image)
    assert np.array_equal(image, before)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3, 4), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((0, 3, 3), np.uint8),
    ],
)
def test_anything_but_uint8_grey_or_rgb_is_a_value_error(
    image: npt.NDArray[np.uint8],
) -> None:
    with pytest.raises(ValueError, match="expected"):
        encode_png(image)
