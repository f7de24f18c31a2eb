"""Files that are cut off, lie about their size, or are no files: one ImageError each.

Every case runs with the built-in readers, and again with OpenCV where it is installed.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from picture_files import (
    RGB,
    bmp_file,
    chunk,
    gif_file,
    jpeg_file,
    jpeg_frame,
    noise,
    npy_file,
    png_file,
    png_rows,
    pnm_file,
    tiff_file,
    webp_file,
)

from pyimgano_runtime.decode import DecodeRules, decode_bytes, read_image
from pyimgano_runtime.errors import ImageError

RULES = DecodeRules()
QUICK_S = 5.0  # the slowest case takes 0.1 s; a hang would take for ever

WHOLE = {
    "png": png_file(30, 20, png_rows(noise(20, 30), [0, 1, 2, 1] * 5)),
    "jpeg": jpeg_file(jpeg_frame(64, 48)),
    "bmp": bmp_file(noise(20, 30)),
    "pgm": pnm_file(noise(20, 30, 1)),
    "ppm": pnm_file(noise(20, 30)),
    "npy": npy_file(noise(20, 30)),
    "tiff": tiff_file(noise(20, 30)),
    "webp": webp_file((b"VP8L", b"\x2f" + bytes(60))),
    "gif": gif_file(30, 20),
}
LYING_SIZES = {
    "png": png_file(60_000, 60_000, bytes(100_000)),
    "jpeg": jpeg_file(jpeg_frame(60_000, 60_000)),
    "bmp": bmp_file(noise(20, 30)).replace(
        b"\x1e\0\0\0\x14\0\0\0", b"\xff\xff\1\0" * 2
    ),
    "ppm": b"P6 60000 60000 255\n" + bytes(100),
    "npy": npy_file(noise(20, 30)).replace(
        b"(20, 30, 3), }" + b" " * 8, b"(60000, 60000, 3), }  "
    ),
    "tiff": tiff_file(noise(2, 3), tags={256: (60_000,), 257: (60_000,)}),
    "webp": webp_file((b"VP8X", b"\0\0\0\0\xff\xff\0\xff\xff\0")),
    "gif": gif_file(60_000, 60_000),
}


@pytest.fixture(params=["builtin", "opencv"], autouse=True)
def _decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "builtin":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:
        pytest.importorskip("cv2")


def refused(data: bytes) -> ImageError:
    start = time.process_time()
    with pytest.raises(ImageError, match=r"^picture: ") as caught:
        decode_bytes(data, RULES, name="picture")
    assert time.process_time() - start < QUICK_S
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    return caught.value


def refused_file(path: Path) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(path, RULES)
    assert caught.value.stage == "read"
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_off_anywhere_is_refused(kind: str, tenth: int) -> None:
    data = WHOLE[kind]
    error = refused(data[: len(data) * tenth // 10])
    assert error.code in ("IMAGE_EMPTY", "IMAGE_TRUNCATED", "IMAGE_UNREADABLE")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif"])
def test_a_file_filled_up_with_zeros_after_a_cut_is_refused(kind: str) -> None:
    data = WHOLE[kind]
    refused(data[: len(data) // 2].ljust(len(data), b"\0"))


@pytest.mark.parametrize("kind", LYING_SIZES)
def test_a_header_that_claims_too_many_pixels_is_refused_unread(kind: str) -> None:
    error = refused(LYING_SIZES[kind])
    assert error.code == "IMAGE_TOO_LARGE"
    assert "100,000,000" in str(error)


def test_a_png_is_unpacked_no_further_than_its_size() -> None:
    grown = zlib.compress(bytes(50_000_000), 9)
    assert len(grown) < 50_000
    data = png_file(30, 20, b"").replace(
        chunk(b"IDAT", zlib.compress(b"")), chunk(b"IDAT", grown)
    )
    start = time.process_time()
    decode_bytes(data, RULES, name="picture")  # the surplus is never unpacked
    assert time.process_time() - start < QUICK_S


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (jpeg_file(jpeg_frame(64, 48, channels=4)), "IMAGE_COLOR_SPACE"),
        (tiff_file(noise(2, 3, 4), tags={262: (5,)}), "IMAGE_COLOR_SPACE"),
        (png_file(6, 4, bytes(148), depth=16, colour=RGB), "IMAGE_BIT_DEPTH"),
        (jpeg_file(jpeg_frame(64, 48, depth=12)), "IMAGE_BIT_DEPTH"),
        (pnm_file(noise(2, 6, 1), maximum=65_535), "IMAGE_BIT_DEPTH"),
        (gif_file(30, 20, frames=3), "IMAGE_FRAMES"),
        (tiff_file(noise(2, 3), pages=3), "IMAGE_FRAMES"),
    ],
)
def test_what_the_graph_cannot_be_given_is_refused(data: bytes, code: str) -> None:
    assert refused(data).code == code


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kind", WHOLE)
def test_random_damage_gives_pixels_or_an_image_error(kind: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    data = bytearray(WHOLE[kind])
    for at in generator.integers(0, len(data), 4):
        data[at] = generator.integers(256)
    rules = DecodeRules(max_pixels=1 << 20)
    with contextlib.suppress(ImageError):
        assert decode_bytes(bytes(data), rules, name="picture").shape[2] == 3


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_are_refused(seed: int) -> None:
    data = np.random.default_rng(seed).bytes(1000)
    assert refused(data).code == "IMAGE_UNREADABLE"


def test_a_missing_file_is_an_error_row_of_its_own(tmp_path: Path) -> None:
    assert refused_file(tmp_path / "nowhere.png").code == "IMAGE_MISSING"


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    error = refused_file(tmp_path)
    assert error.code == "IMAGE_NOT_A_FILE"
    assert "is a folder" in str(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "picture.png")
    start = time.process_time()
    assert refused_file(tmp_path / "picture.png").code == "IMAGE_NOT_A_FILE"
    assert time.process_time() - start < QUICK_S


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev")
def test_a_device_without_end_is_refused() -> None:
    assert refused_file(Path("/dev/zero")).code == "IMAGE_NOT_A_FILE"


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # socket paths must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.png")
        assert refused_file(Path("s.png")).code == "IMAGE_NOT_A_FILE"


def test_a_link_in_a_circle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.png"
    path.symlink_to(path)
    assert refused_file(path).code == "IMAGE_READ_FAILED"


def test_a_path_with_a_nul_is_refused() -> None:
    assert refused_file(Path("a\0b.png")).code == "IMAGE_READ_FAILED"


def test_a_file_larger_than_any_picture_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as stream:
        stream.truncate(64 * 1024 * 1024 + 401)  # takes no space on the disk
    with pytest.raises(ImageError, match="too many for a picture") as caught:
        read_image(path, DecodeRules(max_pixels=100))
    assert caught.value.code == "IMAGE_TOO_LARGE"


def test_an_empty_file_says_that_it_may_still_be_being_written(tmp_path: Path) -> None:
    path = tmp_path / "new.png"
    path.touch()
    with pytest.raises(ImageError, match="still be being written") as caught:
        read_image(path, RULES)
    assert caught.value.code == "IMAGE_EMPTY"
