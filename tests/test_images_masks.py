"""Masks and headers: a picture that cannot be used is found before any fitting."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from factories import corrupt_copy
from pyimgano.datasets.images import inspect_pictures, read_mask
from pyimgano.datasets.rows import ManifestRow
from pyimgano.workbench.runner import input_rules
from pyimgano_runtime.errors import DatasetError

RULES = input_rules()


def save(path: Path, levels: object) -> Path:
    np.save(path, np.array(levels, np.uint8))
    return path


def png(path: Path, rows: list[bytes], width: int, *, bit_depth: int) -> Path:
    """Write a grey PNG from its packed rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, len(rows), bit_depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )
    return path


def turned_jpeg(path: Path, height: int, width: int) -> Path:
    """Write a JPEG stored as (width, height) that EXIF turns upright."""
    cv2 = pytest.importorskip("cv2", reason="needs OpenCV to write a JPEG")
    _, data = cv2.imencode(".jpg", np.full((width, height, 3), 90, np.uint8))
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: a quarter turn
    tiff = b"MM" + struct.pack(">HIH", 42, 8, 1) + entry + struct.pack(">I", 0)
    exif = b"Exif\0\0" + tiff
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    jpeg = data.tobytes()
    path.write_bytes(jpeg[:2] + marker + jpeg[2:])
    return path


def row(image: Path, mask: Path | None = None, *, line: int = 1) -> ManifestRow:
    return ManifestRow(
        image=image.name,
        folder=image.parent,
        category="part",
        split="test",
        label=0 if mask is None else 1,
        mask=None if mask is None else mask.name,
        mask_folder=None if mask is None else mask.parent,
        group_id=None,
        line=line,
    )


def problem(*rows: ManifestRow) -> str:
    with pytest.raises(DatasetError) as caught:
        inspect_pictures(rows, RULES)
    return str(caught.value)


def test_a_mask_of_zeros_and_ones_marks_nothing_unless_it_says_so(
    tmp_path: Path,
) -> None:
    path = save(tmp_path / "mask.npy", [[0, 1], [1, 0]])
    assert read_mask(path, (2, 2), RULES) is None
    mask = read_mask(path, (2, 2), RULES, above=0)
    assert mask is not None
    assert mask.tolist() == [[False, True], [True, False]]


def test_half_of_white_is_no_defect_and_one_more_is(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.npy", [[127, 128]])
    mask = read_mask(path, (1, 2), RULES)
    assert mask is not None
    assert mask.tolist() == [[False, True]]


def test_a_black_mask_marks_nothing(tmp_path: Path) -> None:
    assert read_mask(save(tmp_path / "m.npy", np.zeros((2, 2))), (2, 2), RULES) is None


def test_the_masks_of_a_folder_are_joined(tmp_path: Path) -> None:
    folder = tmp_path / "000"
    folder.mkdir()
    save(folder / "000.npy", [[255, 0, 0]])
    save(folder / "001.npy", [[0, 0, 255]])
    mask = read_mask(folder, (1, 3), RULES)
    assert mask is not None
    assert mask.tolist() == [[True, False, True]]


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "mask.npy", [[255, 255]])
    with pytest.raises(DatasetError, match="mask is 1x2, its picture is 2x1"):
        read_mask(path, (2, 1), RULES)


def test_a_png_of_one_bit_is_a_mask(tmp_path: Path) -> None:
    path = png(tmp_path / "mask.png", [b"\x50", b"\x00"], 4, bit_depth=1)
    mask = read_mask(path, (2, 4), RULES)
    assert mask is not None
    assert mask.tolist() == [[False, True, False, True], [False] * 4]


def test_pictures_and_masks_in_order_pass(tmp_path: Path) -> None:
    image = save(tmp_path / "image.npy", np.zeros((2, 3, 3)))
    mask = save(tmp_path / "mask.npy", np.full((2, 3), 255))
    inspect_pictures([row(image), row(image, mask)], RULES)


def test_all_pictures_that_cannot_be_used_come_at_once(tmp_path: Path) -> None:
    whole = png(tmp_path / "whole.png", [b"\x50"] * 64, 8, bit_depth=1)
    deep = png(tmp_path / "deep.png", [b"\0" * 16] * 8, 8, bit_depth=16)
    gone = tmp_path / "gone.png"
    wide = save(tmp_path / "wide.npy", np.full((2, 9), 255))
    cut = corrupt_copy(whole)
    message = problem(
        row(whole, line=1),
        row(deep, line=2),
        row(cut, line=3),
        row(gone, line=4),
        row(whole, wide, line=5),
        row(whole, cut, line=6),
        row(gone, cut, line=7),
    )
    assert message.startswith("7 problems:")
    assert "manifest line 1: " not in message
    assert f"manifest line 2: {deep}: PNG with 16 bits" in message
    assert f"manifest line 3: {cut}: " in message
    assert f"manifest line 4: {gone}: no such file" in message
    assert f"manifest line 5: {wide}: mask is 2x9, its picture is 64x8" in message
    assert f"manifest line 6: mask {cut}: " in message
    assert f"manifest line 7: {gone}: no such file" in message
    assert f"manifest line 7: mask {cut}: " in message


def test_a_picture_that_cannot_be_used_says_what_to_do(tmp_path: Path) -> None:
    message = problem(row(tmp_path / "gone.png"))
    assert message.endswith("; replace the picture or remove the row")


def test_a_mask_is_compared_with_the_upright_picture(tmp_path: Path) -> None:
    image = turned_jpeg(tmp_path / "image.jpg", 24, 16)
    upright = save(tmp_path / "upright.npy", np.full((24, 16), 255))
    stored = save(tmp_path / "stored.npy", np.full((16, 24), 255))
    inspect_pictures([row(image, upright)], RULES)
    assert "mask is 16x24, its picture is 24x16" in problem(row(image, stored))
