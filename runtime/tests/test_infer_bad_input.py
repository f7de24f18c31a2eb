"""Bad input to `infer`: one error row or one clear refusal each, and nothing lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from picture_files import (
    GREY_ALPHA,
    RGBA,
    chunk,
    exif_block,
    gif_file,
    jpeg_file,
    jpeg_frame,
    npy_file,
    png_file,
    png_rows,
    pnm_file,
    tiff_file,
)
from tiny_bundle import grey, save_picture, write_bundle

from pyimgano_runtime.cli import main
from pyimgano_runtime.png_writer import encode_png

FLAT = grey(40, 20, 30)
PNG = encode_png(FLAT)
ROUNDING = 1e-6  # of the small graph's resize in float32; measured: 1e-7


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_bundle(tmp_path_factory.mktemp("b") / "bundle"))


def with_alpha(channels: int) -> bytes:
    """A PNG of grey level 40 whose alpha is 0."""
    image = np.full((4, 6, channels), 40, np.uint8)
    image[..., -1] = 0
    colour = RGBA if channels == 4 else GREY_ALPHA
    return png_file(6, 4, png_rows(image, [0] * 4), colour=colour)


def turned() -> bytes:
    """A PNG that EXIF turns by a quarter, of one grey level."""
    extra = chunk(b"eXIf", exif_block(6))
    return png_file(
        6, 4, png_rows(np.full((4, 6, 3), 40, np.uint8), [0] * 4), extra=extra
    )


def judged(
    bundle: str, path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    """Write a file, judge it between two good ones, and give its row."""
    path.write_bytes(data)
    good = path.with_name("good.png")
    save_picture(good, FLAT)
    code = main(["infer", "--bundle", bundle, str(good), str(path), str(good)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ok"] for row in rows] == [True, rows[1]["ok"], True]
    assert code == (0 if rows[1]["ok"] else 4)
    row: dict[str, Any] = rows[1]
    return row


@pytest.mark.parametrize(
    ("name", "data", "score"),
    [
        ("1x1.pgm", pnm_file(np.full((1, 1), 40, np.uint8)), 40.0),
        ("3x3.pgm", pnm_file(np.full((3, 3), 40, np.uint8)), 40.0),
        ("wide.pgm", pnm_file(np.full((2, 20_000), 40, np.uint8)), 40.0),
        ("black.png", encode_png(np.zeros((20, 30, 3), np.uint8)), 0.0),
        ("grey.npy", npy_file(FLAT[..., 0]), 40.0),
        ("not contiguous.npy", npy_file(np.asfortranarray(FLAT)), 40.0),
        ("strided.npy", npy_file(np.repeat(FLAT, 2, axis=1)[:, ::2]), 40.0),
        ("png called.jpg", PNG, 40.0),
        ("png called.txt", PNG, 40.0),
        ("rgba.png", with_alpha(4), 40.0),
        ("grey and alpha.png", with_alpha(2), 40.0),
        ("turned.png", turned(), 40.0),
    ],
)
def test_odd_pictures_are_scored(
    bundle: str,
    tmp_path: Path,
    name: str,
    data: bytes,
    score: float,
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = judged(bundle, tmp_path / name, data, capsys)
    assert row["score"] == pytest.approx(score, rel=ROUNDING)


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("cut off.png", PNG[: len(PNG) // 2], "IMAGE_TRUNCATED"),
        ("zero bytes.png", b"", "IMAGE_EMPTY"),
        ("text.png", b"hello, I am no picture", "IMAGE_UNREADABLE"),
        ("cmyk.jpg", jpeg_file(jpeg_frame(64, 48, channels=4)), "IMAGE_COLOR_SPACE"),
        ("animated.gif", gif_file(30, 20, frames=3), "IMAGE_FRAMES"),
        (
            "pages.tif",
            tiff_file(np.full((4, 6, 3), 40, np.uint8), pages=3),
            "IMAGE_FRAMES",
        ),
        ("16 bits.png", png_file(6, 4, bytes(148), depth=16), "IMAGE_BIT_DEPTH"),
        (
            "16 bits.pgm",
            pnm_file(np.zeros((4, 12), np.uint8), maximum=65_535),
            "IMAGE_BIT_DEPTH",
        ),
        ("float.npy", npy_file(FLAT.astype(np.float32) / 255), "IMAGE_DTYPE"),
        ("nan.npy", npy_file(np.full((20, 30, 3), np.nan)), "IMAGE_DTYPE"),
        ("16 bits.npy", npy_file(FLAT.astype(np.uint16)), "IMAGE_DTYPE"),
        ("channels first.npy", npy_file(FLAT.transpose(2, 0, 1)), "IMAGE_SHAPE"),
        ("no pixels.npy", npy_file(FLAT[:0]), "IMAGE_UNREADABLE"),
        (
            "200 megapixels.png",
            png_file(20_000, 10_000, b""),
            "IMAGE_TOO_LARGE",
        ),
    ],
)
def test_what_the_contract_refuses_is_one_error_row(
    bundle: str,
    tmp_path: Path,
    name: str,
    data: bytes,
    code: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = judged(bundle, tmp_path / name, data, capsys)["error"]
    assert error["code"] == code
    assert error["stage"] == "decode"
    assert name in error["message"]


def test_thirty_files_of_which_three_are_broken_are_thirty_rows(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "rows.jsonl"
    for number in range(30):
        save_picture(folder / f"{number:02}.png", FLAT)
    for number, data in ((0, b""), (13, PNG[:60]), (29, b"text")):
        (folder / f"{number:02}.png").write_bytes(data)
    command = ["infer", "--bundle", bundle, "--output", str(output), str(folder)]
    assert main(command) == 4
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    names = [Path(row["input"]).name for row in rows]
    assert names == [f"{number:02}.png" for number in range(30)]
    assert [n for n, row in enumerate(rows) if not row["ok"]] == [0, 13, 29]
    assert "30 pictures: 0 anomaly, 27 normal, 3 failed" in capsys.readouterr().err


def test_a_file_that_may_not_be_read_is_one_error_row(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "locked.png"
    save_picture(path, FLAT)
    path.chmod(0)
    try:
        path.read_bytes()
        pytest.skip("this user may read every file")
    except PermissionError:
        pass
    assert main(["infer", "--bundle", bundle, str(path)]) == 4
    row = json.loads(capsys.readouterr().out)
    assert row["error"]["code"] == "IMAGE_READ_FAILED"


def test_a_read_only_file_is_scored_like_any_other(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "read only.png"
    save_picture(path, FLAT)
    path.chmod(0o444)
    assert main(["infer", "--bundle", bundle, str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["score"] == 40.0


def test_patterns_choose_the_files_of_a_folder(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("cam1_a.png", "cam2_a.png", "raw.img", "sub/cam1_b.png"):
        save_picture(folder / name, FLAT)
    command = ["infer", "--bundle", bundle, str(folder)]
    for patterns, expected in (
        (["cam1_*"], ["cam1_a.png", "sub/cam1_b.png"]),
        (["*.img", "sub/*"], ["raw.img", "sub/cam1_b.png"]),
    ):
        flags = [word for pattern in patterns for word in ("--pattern", pattern)]
        assert main([*command, *flags]) == 0
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["input"] for row in rows] == [str(folder / n) for n in expected]
    assert main([*command, "--pattern", "*.bmp"]) == 2
    assert "expected files that match *.bmp" in capsys.readouterr().err
