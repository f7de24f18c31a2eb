"""`infer --watch DIR`: each file once, when it is complete, across restarts."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from infer_runs import inputs_of, lines_in, rows_of, started, told, wait_for
from tiny_bundle import grey, save_picture, write_bundle

from pyimgano_runtime.cli import main
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.sources import is_wanted
from pyimgano_runtime.watch import Watched, watched_inputs

LONG = 3600.0  # seconds to settle: a file is taken for another reason, or not at all
QUICK = ["--settle", "0.05", "--poll", "0.02"]


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "in"
    path.mkdir()
    return path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


class Looking:
    """A watched folder, looked through as often as the test asks."""

    def __init__(
        self, folder: Path, *, settle_s: float, patterns: tuple[str, ...] = ()
    ):
        self.said: list[str] = []
        self.done: set[bytes] = set()
        watched = Watched(
            folder, lambda inside: is_wanted(inside, patterns), settle_s, 0.001
        )
        self.source: Iterator[Input | None] = watched_inputs(
            watched, self.done, self.said.append
        )

    def names(self, looks: int = 3) -> list[str]:
        found = []
        for item in self.source:
            if item is not None:
                found.append(Path(item.name).name)
                continue
            looks -= 1
            if looks == 0:
                return found
        raise AssertionError("a watched folder has no end")


def written_in_place(path: Path, pixel: int = 1) -> Path:
    """Write a picture whose inode has not changed since its last byte."""
    save_picture(path.with_name(".made"), grey(pixel))
    path.write_bytes(path.with_name(".made").read_bytes())
    return path


def test_a_file_that_was_renamed_in_is_taken_at_once(folder: Path) -> None:
    looking = Looking(folder, settle_s=LONG)
    written_in_place(folder / "a.png")
    assert looking.names() == []
    time.sleep(0.02)  # the clock of the file system has steps
    (folder / "a.png").rename(folder / "b.png")
    assert looking.names() == ["b.png"]
    assert looking.names() == []


def test_a_file_that_grows_is_not_taken_until_it_stands_still(folder: Path) -> None:
    looking = Looking(folder, settle_s=1.0)
    path = folder / "a.png"
    data = written_in_place(path).read_bytes()
    for part in range(8):
        path.write_bytes(data[: len(data) * part // 8])
        assert looking.names() == []
        time.sleep(0.05)
    path.write_bytes(data)
    assert looking.names() == []
    time.sleep(1.1)
    assert looking.names() == ["a.png"]


def test_a_replaced_file_comes_again_and_one_that_stays_does_not(folder: Path) -> None:
    looking = Looking(folder, settle_s=0)
    written_in_place(folder / "a.png")
    written_in_place(folder / "b.png")
    assert looking.names() == ["a.png", "b.png"]
    time.sleep(0.02)
    written_in_place(folder / "a.png", 2)
    assert looking.names() == ["a.png"]


def test_only_wanted_files_are_taken_and_hidden_folders_not(folder: Path) -> None:
    for name in ("x.png", "x.txt", ".x.png", "sub/y.png", ".staging/z.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        written_in_place(folder / name)
        (folder / name).with_name(".made").unlink()
    assert Looking(folder, settle_s=0).names() == ["x.png", "y.png"]
    looking = Looking(folder, settle_s=0, patterns=("sub/*", "*.txt"))
    assert looking.names() == ["x.txt", "y.png"]


def test_a_folder_that_disappears_is_waited_for(folder: Path) -> None:
    looking = Looking(folder, settle_s=0)
    written_in_place(folder / "a.png")
    assert looking.names() == ["a.png"]
    away = folder.with_name("away")
    folder.rename(away)
    assert looking.names(looks=6) == []
    away.rename(folder)
    time.sleep(0.02)
    written_in_place(folder / "b.png")
    assert looking.names() == ["b.png"]
    assert [line.partition(": ")[2] for line in looking.said] == [
        "No such file or directory; waiting until it is back",
        "is back",
    ]


def test_a_folder_that_is_not_there_is_refused(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert main(["infer", "--bundle", bundle, "--watch", nowhere]) == 2
    assert "is no folder" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output", "--run-report", "--save-maps"])
def test_outputs_inside_of_the_watched_folder_are_refused(
    bundle: str, folder: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = str(folder / "sub" / "out")
    command = ["infer", "--bundle", bundle, "--watch", str(folder), flag, inside]
    assert main(command) == 2
    assert f"{flag} {inside}: lies in the watched folder" in capsys.readouterr().err


def test_each_file_has_its_row_before_the_next_comes_and_sigterm_ends_0(
    bundle: str, folder: Path, output: Path
) -> None:
    command = (bundle, "--watch", folder, "--output", output, "--decode-workers", "4")
    child = started(*command, *QUICK)
    for number in range(3):
        save_picture(folder / f"{number}.png", grey(number))
        wait_for(lambda: lines_in(output) == number + 1, child)  # noqa: B023 - used at once
    (folder / "bad.png").write_bytes(b"no picture")
    wait_for(lambda: lines_in(output) == 4, child)
    child.send_signal(signal.SIGTERM)
    err = told(child)
    assert child.returncode == 0
    assert "stopped by SIGTERM after 4 pictures" in err
    rows = rows_of(output)
    assert [row["ok"] for row in rows] == [True, True, True, False]
    facts = (folder / "0.png").stat()
    known = {"size": facts.st_size, "mtime_us": facts.st_mtime_ns // 1000}
    assert rows[0]["file"] == known


def test_a_file_that_vanishes_after_it_was_taken_is_one_error_row(
    bundle: str, folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_picture(folder / "a.png", grey(1))
    looking = Looking(folder, settle_s=0)
    item = next(item for item in looking.source if item is not None)
    (folder / "a.png").unlink()
    assert item.path is not None
    from pyimgano_runtime.predictor import Predictor
    from pyimgano_runtime.rows import predict_inputs

    predictor = Predictor.open(bundle, threads=1)
    ((row, _, _),) = predict_inputs(predictor, [item, None], with_map=False)
    assert row["error"]["code"] == "IMAGE_MISSING"


def test_two_processes_that_watch_with_one_ledger_score_nothing_twice(
    bundle: str, folder: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_picture(folder / "a.png", grey(1))
    command = [bundle, "--watch", folder, "--output", output, *QUICK]
    first = started(*command)
    wait_for(lambda: lines_in(output) == 1, first)
    assert main(["infer", "--bundle", *map(str, command)]) == 2
    err = capsys.readouterr().err
    assert "another process is writing to this output file" in err
    first.terminate()
    told(first)
    assert first.returncode == 0
    assert lines_in(output) == 1


def test_two_processes_with_ledgers_of_their_own_each_see_every_file(
    bundle: str, folder: Path, tmp_path: Path
) -> None:
    for number in range(20):
        save_picture(folder / f"{number:02}.png", grey(number))
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    children = [
        started(bundle, "--watch", folder, "--output", path, *QUICK) for path in outputs
    ]
    for path, child in zip(outputs, children, strict=True):
        wait_for(lambda: lines_in(path) == 20, child)  # noqa: B023 - used at once
        child.terminate()
        told(child)
    for path in outputs:
        assert sorted(inputs_of(path)) == [f"{n:02}.png" for n in range(20)]


def test_every_file_has_exactly_one_row_after_kills_while_files_come(
    bundle: str, folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows"
    rng = random.Random(5)
    written = 0
    for kill in range(3):
        command = (bundle, "--watch", folder, "--output", output, "--format", "csv")
        child = started(*command, *QUICK)
        before = lines_in(output)
        for _ in range(12):
            save_picture(tmp_path / "made.png", grey(written))
            (tmp_path / "made.png").rename(folder / f"{written:03}.png")
            written += 1
        wait_for(lambda: lines_in(output) > before + (before == 0), child)  # noqa: B023 - used at once
        time.sleep(rng.random() * 0.02)
        if kill < 2:
            child.kill()
            told(child)
    wait_for(lambda: lines_in(output) == written + 1, child)
    child.terminate()
    told(child)
    text = output.read_text()
    for number in range(written):
        assert text.count(f"{number:03}.png") == 1
    assert lines_in(output) == written + 1


def test_another_folder_does_not_go_on_with_the_ledger(
    bundle: str, folder: Path, output: Path, tmp_path: Path
) -> None:
    save_picture(folder / "a.png", grey(1))
    child = started(bundle, "--watch", folder, "--output", output, *QUICK)
    wait_for(lambda: lines_in(output) == 1, child)
    child.terminate()
    told(child)
    shutil.copytree(folder, tmp_path / "other")
    command = ["infer", "--bundle", bundle, "--output", str(output)]
    assert main([*command, "--watch", str(tmp_path / "other")]) == 2
    assert main([*command, "--resume", str(folder)]) == 2
    assert lines_in(output) == 1


@pytest.mark.skipif(os.name != "posix", reason="looks at inodes")
def test_a_clock_of_whole_seconds_proves_no_rename(folder: Path) -> None:
    path = written_in_place(folder / "a.png")
    os.utime(path, ns=(0, 1_700_000_000_000_000_000))
    looking = Looking(folder, settle_s=LONG)
    assert looking.names() == []
    os.utime(path, ns=(0, 1_700_000_000_500_000_000))
    assert looking.names() == ["a.png"]
