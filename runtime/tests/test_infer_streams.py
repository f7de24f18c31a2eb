"""Inputs that come one by one: path lists and raw frames on stdin, video."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_runs import on_stdin, started, told
from tiny_bundle import grey, save_picture, write_bundle

from pyimgano_runtime.cli import main
from pyimgano_runtime.errors import ConfigError, ImageError
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.path_list import LONGEST_PATH, listed_inputs
from pyimgano_runtime.raw_frames import FrameShape, frame_inputs, parse_frames


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    source, sink = os.pipe()
    yield source, sink
    for end in (source, sink):
        try:
            os.close(end)
        except OSError:
            continue


def names(inputs: Iterator[Input | None]) -> list[str]:
    return [item.name for item in inputs if item is not None]


Judge = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def judge(bundle: str, capsys: pytest.CaptureFixture[str]) -> Judge:
    """Give the rows of a command line for what stands on stdin."""

    def rows(*arguments: str | Path, given: bytes) -> list[dict[str, Any]]:
        with on_stdin(given):
            code = main(["infer", "--bundle", bundle, *map(str, arguments)])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == (0 if all(row["ok"] for row in found) else 4)
        return found

    return rows


@pytest.mark.parametrize(
    ("given", "null", "expected"),
    [
        (b"a.png\nb c.png\n", False, ["a.png", "b c.png"]),
        (b"a.png\r\n\n\nb.png", False, ["a.png", "b.png"]),
        (b"a\nb.png\0c.png\0", True, ["a\nb.png", "c.png"]),
        (b"\xff.png\n", False, ["\udcff.png"]),
        (b"", False, []),
    ],
)
def test_a_list_gives_its_paths(
    pipe: tuple[int, int], given: bytes, null: bool, expected: list[str]
) -> None:
    os.write(pipe[1], given)
    os.close(pipe[1])
    assert names(listed_inputs(pipe[0], null=null)) == expected


def test_a_list_is_read_no_further_than_it_has_come(pipe: tuple[int, int]) -> None:
    inputs = listed_inputs(pipe[0], null=False)
    assert next(inputs) is None
    os.write(pipe[1], b"a.png\nb.p")
    first = next(inputs)
    assert first is not None
    assert first.path == Path("a.png")
    assert next(inputs) is None
    os.write(pipe[1], b"ng\n")
    assert next(item for item in inputs if item).name == "b.png"


def test_a_line_that_is_no_path_is_refused(pipe: tuple[int, int]) -> None:
    inputs = listed_inputs(pipe[0], null=False)
    for _ in range(LONGEST_PATH // 4096):
        os.write(pipe[1], b"x" * 4096)
        assert next(inputs) is None
    os.write(pipe[1], b"x")
    with pytest.raises(ConfigError, match="--null"):
        next(inputs)


def test_a_list_stands_among_other_inputs_in_its_place(
    judge: Judge, tmp_path: Path
) -> None:
    for name in ("a.png", "b.png", "folder/c.png"):
        save_picture(tmp_path / name, grey(1))
    listed = f"{tmp_path / 'b.png'}\n{tmp_path / 'nowhere.png'}\n{tmp_path}\n"
    arguments = (tmp_path / "a.png", "-", tmp_path / "folder")
    found = judge(*arguments, given=listed.encode())
    last = [Path(row["input"]).name for row in found]
    assert last == ["a.png", "b.png", "nowhere.png", tmp_path.name, "c.png"]
    codes = [row["error"] and row["error"]["code"] for row in found]
    assert codes == [None, None, "IMAGE_MISSING", "IMAGE_NOT_A_FILE", None]


def test_a_list_without_end_gives_rows_as_it_comes_and_drains(
    bundle: str, tmp_path: Path
) -> None:
    save_picture(tmp_path / "a.png", grey(1))
    child = started(bundle, "-", stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    for _ in range(3):
        child.stdin.write(f"{tmp_path / 'a.png'}\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["ok"]
    child.send_signal(signal.SIGTERM)
    child.wait(timeout=60)  # stdin is still open
    assert "stopped by SIGTERM after 3 pictures" in told(child)
    assert child.returncode == 0


def test_an_empty_list_is_no_error(judge: Judge) -> None:
    assert judge("-", given=b"") == []


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("4x6x3", FrameShape(4, 6, 3)),
        ("4X6x1:uint8", FrameShape(4, 6, 1)),
        ("480x640x3", FrameShape(480, 640, 3)),
    ],
)
def test_the_shape_of_frames_is_spelled_height_first(
    text: str, shape: FrameShape
) -> None:
    assert parse_frames(text) == shape


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("4x6", "height x width x channels"),
        ("0x6x3", "height x width x channels"),
        ("4x6x4", "1 \\(grey\\) or 3"),
        ("4x6x1:uint16", "pixel // 256"),
        ("4x6x3:float32", "expected uint8"),
        ("4x6x3\n", "height x width x channels"),
    ],
)
def test_other_frames_are_refused_in_words(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_frames(text)


def test_16_bit_frames_are_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["infer", "--bundle", "b", "--frames", "4x6x1:uint16"])
    assert "found uint16, expected uint8" in capsys.readouterr().err


@pytest.mark.parametrize(("channels", "shape"), [(1, (40, 60)), (3, (40, 60, 3))])
def test_frames_are_cut_where_they_end(
    pipe: tuple[int, int], channels: int, shape: tuple[int, ...]
) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (4, *shape), dtype=np.uint8)
    os.write(pipe[1], frames.tobytes())
    os.close(pipe[1])
    inputs = frame_inputs(pipe[0], FrameShape(40, 60, channels), max_pixels=2400)
    found = [item for item in inputs if item is not None]
    assert [item.name for item in found] == [f"frame-00000{n}" for n in range(4)]
    for item, frame in zip(found, frames, strict=True):
        assert np.array_equal(np.asarray(item.pixels), frame)


def test_half_of_a_frame_at_the_end_is_one_error(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], bytes(4 * 6 * 3 + 5))
    os.close(pipe[1])
    *_, last = (
        item
        for item in frame_inputs(pipe[0], FrameShape(4, 6, 3), max_pixels=24)
        if item
    )
    assert last.name == "frame-000001"
    assert isinstance(last.pixels, ImageError)
    assert last.pixels.code == "FRAME_TRUNCATED"
    assert "5 bytes, expected 72" in str(last.pixels)


def test_frames_beyond_the_limit_are_refused_unread() -> None:
    with pytest.raises(ConfigError, match="at most 23"):
        frame_inputs(0, FrameShape(4, 6, 3), max_pixels=23)


def test_raw_frames_become_rows(judge: Judge) -> None:
    frames = b"".join(grey(value, 20, 30).tobytes() for value in (40, 200))
    given = frames + b"\0" * 7
    found = judge("--frames", "20x30x3", given=given)
    assert [row["input"] for row in found] == [f"frame-00000{n}" for n in range(3)]
    assert [row["score"] for row in found] == [40.0, 200.0, None]
    assert [row["decision"] for row in found] == ["normal", "anomaly", None]
    assert found[2]["error"]["stage"] == "read"
    assert set(found[0]["ms"]) == {"decode", "infer", "post", "total"}


def test_grey_frames_are_scored_as_grey_pictures(judge: Judge) -> None:
    (row,) = judge("--frames", "20x30x1:uint8", given=bytes([77]) * 600)
    assert row["score"] == 77.0


def video(path: Path, levels: list[int]) -> Path:
    cv2 = pytest.importorskip("cv2")
    code = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(path), code, 10, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV writes no MJPG")
    for level in levels:
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def test_the_frames_of_a_video_become_rows(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = video(tmp_path / "clip.avi", [40, 50, 200])
    maps = tmp_path / "maps"
    command = ["infer", "--bundle", bundle, "--video", str(path)]
    assert main([*command, "--save-maps", str(maps)]) == 0
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["input"] for row in found] == [
        f"{path}/frame-00000{number}" for number in range(3)
    ]
    assert [round(row["score"], -1) for row in found] == [40, 50, 200]
    assert sorted(p.name for p in maps.iterdir()) == [
        f"clip.avi_frame-00000{number}.npy" for number in range(3)
    ]


def test_colours_of_a_video_are_not_swapped(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    from pyimgano_runtime.video import video_inputs

    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    red_bgr = np.zeros((48, 64, 3), np.uint8)
    red_bgr[..., 2] = 250
    writer.write(red_bgr)
    writer.release()
    (item,) = [item for item in video_inputs(str(path)) if item]
    red, green, blue = np.asarray(item.pixels).reshape(-1, 3).mean(axis=0)
    assert red > 200 > 50 > max(green, blue)


@pytest.mark.parametrize("source", ["nowhere.avi", "97"])
def test_a_video_that_is_not_there_is_refused(
    bundle: str, source: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    assert main(["infer", "--bundle", bundle, "--video", source]) == 2
    assert f"--video {source}: " in capfd.readouterr().err


def test_a_file_that_is_no_video_is_refused(
    bundle: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "no.avi").write_bytes(b"no video")
    command = ["infer", "--bundle", bundle, "--video", str(tmp_path / "no.avi")]
    assert main(command) == 2
    assert "opens no such file" in capfd.readouterr().err


def test_video_without_opencv_names_the_package(
    bundle: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert main(["infer", "--bundle", bundle, "--video", "0"]) == 2
    assert "pip install opencv-python-headless" in capsys.readouterr().err
