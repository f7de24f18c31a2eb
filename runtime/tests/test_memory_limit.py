"""--max-memory: sizes in words, a limit that holds, and no harm to the caller."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from zlib import crc32

import numpy as np
import onnxruntime
import pytest
from hostile_parts import sized
from tiny_bundle import graph, grey, model, model_spec, save_picture, write_bundle

from pyimgano_runtime import BundleError
from pyimgano_runtime.cli import main
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.memory_limit import (
    MIB,
    default_limit,
    least_limit,
    limit_memory,
    machine_memory,
    parse_size,
    show_size,
)

resource = pytest.importorskip("resource")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4G", 4 * 1024 * MIB),
        ("512M", 512 * MIB),
        ("512MiB", 512 * MIB),
        ("1t", MIB * MIB),
        ("7k", 7 * 1024),
        ("1000000", 1_000_000),
        ("0", None),
        ("none", None),
    ],
)
def test_a_size_is_read(text: str, expected: int | None) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "G", "4 G", "-1", "1.5G", "4X", "4G\n", "٤G", "9" * 16]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as 4G"):
        parse_size(text)


@pytest.mark.parametrize("text", ["9999999T", "1048577T", "999999999999999G"])
def test_a_size_that_the_system_cannot_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected at most 1048576T"):
        parse_size(text)


def test_a_size_that_is_too_large_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "--max-memory", "9999999T", str(tmp_path)])
    assert caught.value.code == 2
    assert "expected at most 1048576T" in capsys.readouterr().err


def test_info_has_the_default_limit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pyimgano_runtime import info_cli

    bundle = write_bundle(tmp_path / "bundle")
    seen = []

    def note(bundle: object) -> None:
        seen.append(resource.getrlimit(resource.RLIMIT_AS)[0])

    monkeypatch.setattr(info_cli, "print_info", note)
    assert main(["info", str(bundle)]) == 0
    assert main(["info", "--max-memory", "16G", str(bundle)]) == 0
    assert main(["info", "--max-memory", "0", str(bundle)]) == 0
    assert seen[0] not in (resource.RLIM_INFINITY, 16384 * MIB)
    assert seen[1:] == [16384 * MIB, resource.getrlimit(resource.RLIMIT_AS)[0]]
    assert main(["info", "--max-memory", "1M", str(bundle)]) == 2
    assert "expected at least" in capsys.readouterr().err


def test_a_size_is_shown_as_it_would_be_written() -> None:
    sizes = [show_size(n) for n in (2048 * MIB, 640 * MIB, 10)]
    assert sizes == ["2G", "640M", "10 bytes"]


def groups(folder: Path, own: str, **limits: str) -> int | None:
    for name, limit in limits.items():
        place = folder / "groups" / name.replace("_", "/").strip("/")
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(limit + "\n")
    (folder / "own").write_text(own)
    return machine_memory(control_groups=folder / "groups", own_group=folder / "own")


def test_a_containers_limit_counts_wherever_it_is_set(tmp_path: Path) -> None:
    whole = machine_memory(control_groups=tmp_path, own_group=tmp_path / "none")
    assert whole is not None
    assert whole > 0
    assert groups(tmp_path, "0::/a/b\n", a="5000000", a_b="max") == 5_000_000
    assert groups(tmp_path, "0::/a/b\n", a_b="4000000") == 4_000_000
    assert groups(tmp_path, "0::/\n", _="3000000") == 3_000_000
    assert groups(tmp_path, "5:memory:/a\n", _="max") == whole
    assert groups(tmp_path, "0::/../..\n", _="max") == whole


def test_the_default_leaves_enough_for_the_libraries() -> None:
    memory = machine_memory()
    assert memory is not None
    assert default_limit(2) == max(memory * 3 // 4, least_limit(2))
    assert default_limit(10**6) == least_limit(10**6)


def test_a_limit_holds_within_and_is_gone_after() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limit_memory(8 * 1024 * MIB) as has_effect:
        if has_effect:
            with pytest.raises(MemoryError):
                np.empty(16 * 1024 * MIB, np.uint8)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_a_lower_limit_that_is_set_already_stays() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limit_memory(8 * 1024 * MIB), limit_memory(9 * 1024 * MIB):
        assert resource.getrlimit(resource.RLIMIT_AS)[0] == 8 * 1024 * MIB
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_no_limit_changes_nothing() -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with limit_memory(None) as has_effect:
        assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert not has_effect


@pytest.mark.parametrize("command", [["check"], ["infer", "--bundle"]])
def test_less_than_the_libraries_need_is_refused_as_usage(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_bundle(tmp_path / "b"))
    photo = [str(save_picture(tmp_path / "a.png", grey(1)))]
    inputs = [folder, *(photo if command[0] == "infer" else [])]
    assert main([*command, *inputs, "--max-memory", "100M", "--threads", "1"]) == 2
    least = show_size(least_limit(usable_cores()))
    expected = f"--max-memory: found 100M, expected at least {least}"
    assert expected in capsys.readouterr().err
    assert main([*command, *inputs, "--max-memory", least]) == 0
    assert main([*command, *inputs, "--max-memory", "none"]) == 0
    with pytest.raises(SystemExit) as caught:
        main([*command, *inputs, "--max-memory", "much"])
    assert caught.value.code == 2


def test_the_least_limit_is_enough_for_a_process_of_its_own(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", with_jpeg=True)
    least = show_size(least_limit(usable_cores()))
    command = [sys.executable, "-m", "pyimgano_runtime", "check", str(folder)]
    done = subprocess.run([*command, "--max-memory", least], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_system_without_such_limits_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pyimgano_runtime.memory_limit.HAS_EFFECT", False)
    folder = str(write_bundle(tmp_path / "b"))
    assert main(["check", folder]) == 0
    assert "warning" not in capsys.readouterr().err, "nobody asked for a limit"
    assert main(["check", folder, "--max-memory", "4G"]) == 0
    assert "--max-memory has no effect on this system" in capsys.readouterr().err


def test_a_picture_that_asks_for_too_much_is_one_error_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "b", model_bytes=sized("Expand", computed=True))
    photo = save_picture(tmp_path / "a.png", grey(1))
    command = ["infer", "--bundle", str(folder), "--max-memory", "4G", str(photo)]
    assert main([*command, str(photo)]) == 4
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    codes = [row["error"]["code"] for row in rows]
    assert codes == ["OUT_OF_MEMORY"] * 2


def test_a_picture_too_large_for_the_memory_left_is_one_error_row(
    tmp_path: Path,
) -> None:
    """9,000 x 9,000 pixels, within max_pixels: 243 MB decoded, from a file of 80 kB."""
    folder = write_bundle(tmp_path / "b")
    large = tmp_path / "large.png"
    large.write_bytes(zeros_png(9000))
    small = save_picture(tmp_path / "small.png", grey(1))
    limit = show_size(least_limit(usable_cores()))
    command = [sys.executable, "-m", "pyimgano_runtime", "infer", "--bundle"]
    arguments = [str(folder), "--max-memory", limit, str(large), str(small)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["ok"] for row in rows] == [False, True]
    assert "Traceback" not in done.stderr


def zeros_png(side: int) -> bytes:
    """Give a grey PNG of zeros, without holding its pixels."""
    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(bytes(side + 1)) for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", rows + packer.flush()), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data))
        + kind
        + data
        + struct.pack(">I", crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_a_session_that_runs_out_of_memory_is_a_bundle_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(BundleError, match="asks for more memory than there is"):
        OnnxEngine(model(graph()), model_spec(), "m.onnx")
