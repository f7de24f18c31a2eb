from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from factories import texture_image
from pyimgano.datasets.corruptions import CORRUPTIONS, LEVELS, corrupt
from pyimgano_runtime.errors import DatasetError

NAMES = tuple(CORRUPTIONS)


def texture(size: tuple[int, int] = (256, 256)) -> NDArray[np.uint8]:
    return texture_image(np.random.default_rng(3), size)


def change(image: NDArray[np.uint8], name: str, level: int) -> float:
    """Mean absolute difference in grey levels."""
    changed = corrupt(image, name, level, seed_name="a.png")
    return float(np.abs(changed.astype(int) - image).mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_same_picture_is_always_changed_in_the_same_way(name: str) -> None:
    image = texture()
    before = image.copy()
    first = corrupt(image, name, 2, seed_name="a.png")
    again = corrupt(image, name, 2, seed_name="a.png")
    assert (first == again).all()
    assert (image == before).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (37, 51), (2, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_shape_and_type_are_kept(name: str, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    for level in LEVELS:
        changed = corrupt(pixels, name, level, seed_name="a.png")
        assert changed.shape == (*size, 3)
        assert changed.dtype == np.uint8


@pytest.mark.parametrize("name", NAMES)
def test_a_stronger_level_changes_the_picture_more(name: str) -> None:
    # Fine threads look alike when shifted by whole threads: a ramp does not.
    size = (512, 512)  # on 256 pixels mild blur is too small to be seen
    ramp = np.linspace(0, 60, size[1])[None, :, None] + np.zeros((*size, 3))
    image = (texture(size) / 2 + ramp).astype(np.uint8)
    if name in ("shift", "rotation"):
        image = ramp.astype(np.uint8)
    mild, medium, strong = (change(image, name, level) for level in LEVELS)
    assert 0 < mild < medium < strong


def test_pictures_of_other_names_get_other_noise() -> None:
    image = texture()
    first = corrupt(image, "noise", 1, seed_name="a.png")
    other = corrupt(image, "noise", 1, seed_name="b.png")
    assert (first != other).any()


def test_noise_is_the_same_in_another_process() -> None:
    program = (
        "import hashlib, numpy; from pyimgano.datasets.corruptions import corrupt;"
        "image = numpy.full((8, 9, 3), 99, 'u1');"
        "noisy = corrupt(image, 'noise', 3, seed_name='é.png');"
        "print(hashlib.sha256(noisy.tobytes()).hexdigest())"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    image = np.full((8, 9, 3), 99, np.uint8)
    here = corrupt(image, "noise", 3, seed_name="é.png").tobytes()
    assert found.stdout.strip() == hashlib.sha256(here).hexdigest()


def test_noise_has_the_stated_sigma() -> None:
    image = np.full((200, 200, 3), 128, np.uint8)
    image[..., 0] = 127  # colour: each channel has noise of its own
    for level, sigma in zip(LEVELS, CORRUPTIONS["noise"].strengths, strict=True):
        noisy = corrupt(image, "noise", level, seed_name="a.png").astype(float)
        # 120,000 values: the sigma of their sigma is 0.2 %; rounding adds 1/12.
        assert (noisy - image).std() == pytest.approx(sigma, rel=0.02)


def test_a_grey_picture_stays_grey() -> None:
    grey = np.repeat(texture()[..., :1], 3, axis=2)
    for name in NAMES:
        changed = corrupt(grey, name, 3, seed_name="a.png")
        assert (changed[..., :1] == changed).all(), name


def test_light_is_a_gain_that_clips_at_white() -> None:
    image = np.array([[[0, 100, 250]]], np.uint8)
    brighter = corrupt(image, "brighter", 2, seed_name="a.png")
    darker = corrupt(image, "darker", 2, seed_name="a.png")
    assert brighter.tolist() == [[[0, 110, 255]]]
    assert darker.tolist() == [[[0, 90, 225]]]


def test_contrast_leaves_the_mean_where_it_was() -> None:
    image = np.array([[[90] * 3, [110] * 3]], np.uint8)
    more = corrupt(image, "more_contrast", 3, seed_name="a.png")
    less = corrupt(image, "less_contrast", 3, seed_name="a.png")
    assert more[0, :, 0].tolist() == [88, 112]
    assert less[0, :, 0].tolist() == [92, 108]


def test_blur_means_the_same_at_any_resolution() -> None:
    small, large = (
        np.repeat(np.arange(side) >= side // 2, 3).reshape(1, side, 3).repeat(side, 0)
        for side in (500, 1000)
    )
    edges = [
        corrupt((255 * step).astype(np.uint8), "blur", 3, seed_name="a.png")[0, :, 0]
        for step in (small, large)
    ]
    # The edge's width at 16 % and 84 % is two sigma: 0.8 % of the side.
    widths = [((edge > 41) & (edge < 214)).mean() for edge in edges]
    assert widths == pytest.approx([0.008, 0.008], abs=0.002)


def test_shift_moves_down_and_right_with_a_mirrored_border() -> None:
    image = np.arange(100 * 200 * 3, dtype=np.int64) % 251
    image = image.reshape(100, 200, 3).astype(np.uint8)
    moved = corrupt(image, "shift", 3, seed_name="a.png")
    assert (moved[4:, 8:] == image[:-4, :-8]).all()
    assert (moved[3, 8:] == image[0, :-8]).all()
    assert (moved[0, 8:] == image[3, :-8]).all()


def test_rotation_leaves_the_centre_and_no_black_corner() -> None:
    image = np.full((101, 101, 3), 200, np.uint8)
    image[50, 50] = 0
    turned = corrupt(image, "rotation", 3, seed_name="a.png")
    assert turned[50, 50].tolist() == [0, 0, 0]
    assert turned[:5, :5].min() == 200


def test_a_picture_too_long_for_a_jpeg_is_named() -> None:
    image = np.zeros((1, 65_501, 3), np.uint8)
    with pytest.raises(DatasetError, match=r"line\.npy: jpeg: found 1x65501 pixels"):
        corrupt(image, "jpeg", 1, seed_name="line.npy")


@pytest.mark.parametrize(("name", "level"), [("fog", 1), ("blur", 0), ("blur", 4)])
def test_an_unknown_change_is_a_mistake_of_the_program(name: str, level: int) -> None:
    with pytest.raises(ValueError, match="expected one of brighter"):
        corrupt(texture(), name, level, seed_name="a.png")
