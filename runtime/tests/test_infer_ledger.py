"""`infer --output FILE`: one row an input, whatever happens on the way."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from infer_runs import PATIENCE, inputs_of, lines_in, rows_of, started, told, wait_for
from tiny_bundle import edit_document, grey, save_picture, write_bundle

from pyimgano_runtime.cli import main


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten pictures, the fourth is none."""
    folder = tmp_path / "photos"
    for number in range(10):
        save_picture(folder / f"{number}.png", grey(10 * number + 40))
    (folder / "3.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def stopped_after(output: Path, kept: int, *, torn: bytes = b"") -> Path:
    """Turn a whole output into what a kill after some rows leaves."""
    partial = output.with_name(f"{output.name}.partial")
    lines = output.read_bytes().splitlines(keepends=True)
    partial.write_bytes(b"".join(lines[:kept]) + torn)
    output.unlink()
    return partial


def test_resume_begins_where_there_is_nothing_yet(
    bundle: str, photos: Path, output: Path
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), "--resume"]
    assert main([*command, str(photos)]) == 4
    assert inputs_of(output) == [f"{n}.png" for n in range(10)]


@pytest.mark.parametrize("kept", [0, 1, 4, 10])
def test_resume_gives_the_rows_of_a_run_that_was_never_stopped(
    bundle: str, photos: Path, output: Path, kept: int
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    whole = [row | {"ms": None} for row in rows_of(output)]
    partial = stopped_after(output, kept, torn=b'{"schema_version": "1.1", "inp')
    assert main([*command, "--resume"]) == 4
    assert [row | {"ms": None} for row in rows_of(output)] == whole
    assert not partial.exists()


def test_a_last_line_of_zeros_from_a_power_cut_is_cut(
    bundle: str, photos: Path, output: Path
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    stopped_after(output, 6, torn=bytes(300))
    main([*command, "--resume"])
    assert inputs_of(output) == [f"{n}.png" for n in range(10)]


def test_a_damaged_row_in_the_middle_is_refused(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    lines = output.read_text().splitlines()
    lines[4] = lines[4][:-9]
    output.write_text("\n".join(lines) + "\n")
    assert main([*command, "--resume"]) == 2
    assert "line 5 is no row" in capsys.readouterr().err
    assert output.exists()


def test_new_files_of_a_folder_are_added_to_a_complete_ledger(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    save_picture(photos / "00.png", grey(1))
    main([*command, "--resume"])
    assert inputs_of(output) == [*(f"{n}.png" for n in range(10)), "00.png"]
    err = capsys.readouterr().err
    assert "goes on after the 10 rows that are there" in err
    assert "11 pictures: 4 anomaly, 6 normal, 1 failed" in err


def test_an_input_named_twice_has_two_rows_also_after_a_stop(
    bundle: str, photos: Path, output: Path
) -> None:
    twice = [str(photos / name) for name in ("0.png", "1.png", "0.png", "2.png")]
    command = ["infer", "--bundle", bundle, "--output", str(output), *twice]
    main(command)
    stopped_after(output, 2)
    main([*command, "--resume"])
    assert inputs_of(output) == ["0.png", "1.png", "0.png", "2.png"]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--threshold", "55"], "threshold 100.0 there and 55.0 now"),
        (["--review-band", "0.1"], "review_band null there and 0.1 now"),
        (["--save-maps", "maps"], 'save_maps null there and "maps" now'),
    ],
)
def test_other_settings_are_refused_by_name(
    bundle: str,
    photos: Path,
    output: Path,
    more: list[str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(output.parent)
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    before = output.read_bytes()
    assert main([*command, "--resume", *more]) == 2
    assert told in capsys.readouterr().err
    assert output.read_bytes() == before


def test_another_bundle_is_refused(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    edit_document(Path(bundle), lambda d: d["bundle"].update(version="2"))
    assert main([*command, "--resume"]) == 2
    assert "bundle_sha256 " in capsys.readouterr().err


def test_a_ledger_that_does_not_say_its_settings_is_refused(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    about = output.with_name(".rows.jsonl.ledger")
    about.write_text("{")
    assert main([*command, "--resume"]) == 2
    about.unlink()
    assert main([*command, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "is damaged" in err
    assert "is missing" in err


def test_what_was_stopped_is_not_overwritten_without_force(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    main(command)
    partial = stopped_after(output, 3)
    assert main(command) == 2
    assert "--resume goes on with it" in capsys.readouterr().err
    assert lines_in(partial) == 3
    assert main([*command, "--force"]) == 4
    assert lines_in(output) == 10


def test_a_foreign_file_beside_the_output_is_never_touched(
    bundle: str, photos: Path, output: Path
) -> None:
    foreign = output.with_name("rows.jsonl.partial")
    foreign.write_text("half of a download")
    for flag in ("--force", "--resume"):
        command = ["infer", "--bundle", bundle, "--output", str(output), flag]
        assert main([*command, str(photos)]) == 2
    assert foreign.read_text() == "half of a download"


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_csv_ledger_goes_on_after_a_torn_line(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.csv"
    (photos / "2.png").rename(photos / 'a "b",\nc.png')
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    command += ["--format", "csv"]
    main(command)
    whole = csv_rows(output)
    assert len(whole) == 10
    text = output.read_bytes()
    at = text.index(b'a ""b') + 9  # inside of the quoted name, after its line end
    output.with_name("rows.csv.partial").write_bytes(text[:at])
    output.unlink()
    assert main([*command, "--resume"]) == 4
    again = csv_rows(output)
    assert [row["input"] for row in again] == [row["input"] for row in whole]
    assert [row["score"] for row in again] == [row["score"] for row in whole]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--resume", "x.png"],
        ["--resume", "--force", "--output", "o", "x.png"],
        ["--resume", "--frames", "2x2x1", "--output", "o"],
        ["--null", "x.png"],
        ["--settle", "1", "x.png"],
        ["--poll", "1", "x.png"],
        ["-", "-"],
        ["--pattern", "*.png", "--frames", "2x2x1"],
        ["--watch", ".", "--force"],
    ],
)
def test_options_that_contradict_each_other_are_refused(
    bundle: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer", "--bundle", bundle, *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_second_process_on_a_ledger_is_refused_and_the_first_goes_on(
    bundle: str, photos: Path, output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [bundle, "--output", output, "-"]
    first = started(*command, stdin=subprocess.PIPE)
    assert first.stdin is not None
    first.stdin.write(f"{photos / '0.png'}\n")
    first.stdin.flush()
    partial = output.with_name("rows.jsonl.partial")
    wait_for(lambda: lines_in(partial) == 1, first)
    for flag in ("--resume", "--force"):
        assert main(["infer", "--bundle", *map(str, command), flag]) == 2
        err = capsys.readouterr().err
        assert "another process is writing to this output file" in err
    first.stdin.write(f"{photos / '1.png'}\n")
    told(first)
    assert first.returncode == 0
    assert inputs_of(output) == ["0.png", "1.png"]


def test_the_lock_of_a_process_that_was_killed_holds_nobody_up(
    bundle: str, photos: Path, output: Path
) -> None:
    first = started(bundle, "--output", output, "-", stdin=subprocess.PIPE)
    wait_for(output.with_name("rows.jsonl.partial").exists, first)
    first.kill()
    told(first)
    assert output.with_name(".rows.jsonl.lock").exists()
    command = ["infer", "--bundle", bundle, "--output", str(output), "--resume"]
    assert main([*command, str(photos / "0.png")]) == 0
    assert inputs_of(output) == ["0.png"]


def test_every_file_has_exactly_one_row_after_kills_at_random_moments(
    bundle: str, tmp_path: Path, output: Path
) -> None:
    names = [f"{number:04}.npy" for number in range(1500)]
    for name in names:
        (tmp_path / "many").mkdir(exist_ok=True)
        save_picture(tmp_path / "many" / name, grey(7))
    partial = output.with_name("rows.jsonl.partial")
    rng = random.Random(11)
    kills = 0
    for _ in range(40):
        child = started(bundle, "--output", output, "--resume", tmp_path / "many")
        if kills < 4:
            before = lines_in(partial)
            wait_for(lambda: lines_in(partial) > before or child.poll() == 0)  # noqa: B023 - used at once
            time.sleep(rng.random() * 0.02)
            child.kill()
        told(child)
        kills += child.returncode == -signal.SIGKILL
        if child.returncode == 0:
            break
    assert kills >= 3
    assert inputs_of(output) == names


@contextmanager
def disk_of(n_bytes: int) -> Iterator[None]:
    """Let no file grow beyond some bytes: the system's own refusal, of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_full_disk_ends_5_in_words_and_resume_loses_nothing(
    bundle: str,
    photos: Path,
    tmp_path: Path,
    form: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, partial = tmp_path / "rows", tmp_path / "rows.partial"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    command += ["--format", form]
    with disk_of(2048):
        assert main(command) == 5
    err = capsys.readouterr().err
    assert "the rows so far are kept: make room and go on by --resume" in err
    assert "Traceback" not in err
    assert not output.exists()
    assert partial.read_bytes().endswith(b"\n")
    assert 1 < lines_in(partial) < 10
    assert main([*command, "--resume"]) == 4
    assert lines_in(output) == 10 + (form == "csv")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder nobody fills")
def test_an_output_that_cannot_be_written_is_refused_before_any_work(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "/proc/rows.jsonl"  # read-only also for root
    assert main(["infer", "--bundle", bundle, "--output", place, str(photos)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{place}: cannot be written" in err


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("SIGINT", 130, "pyimgano-runtime: interrupted\n"),
        ("SIGTERM", 0, "stopped by SIGTERM after "),
    ],
)
def test_resume_goes_on_where_a_signal_stopped_a_run(
    bundle: str, photos: Path, output: Path, name: str, code: int, words: str
) -> None:
    many = [str(photos / "0.png")] * 3000
    child = started(bundle, "--output", output, *many)
    partial = output.with_name("rows.jsonl.partial")
    wait_for(lambda: lines_in(partial) > 3, child)
    child.send_signal(signal.Signals[name])
    assert words in told(child)
    assert child.returncode == code
    left = partial if name == "SIGINT" else output
    assert 3 < lines_in(left) < 3000
    command = ["infer", "--bundle", bundle, "--output", str(output), "--resume"]
    assert main([*command, *many]) == 0
    assert lines_in(output) == 3000


def test_an_interrupt_right_after_the_first_row_keeps_it(
    bundle: str, photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal may come between the system's write and the line of code after it."""
    real_write = os.write

    def write_then_interrupt(descriptor: int, data: bytes) -> int:
        real_write(descriptor, data)
        raise KeyboardInterrupt

    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_then_interrupt)
        assert main(command) == 130
    partial = output.with_name(f"{output.name}.partial")
    assert inputs_of(partial) == ["0.png"]
    assert main([*command, "--resume"]) == 4
    assert inputs_of(output) == [f"{n}.png" for n in range(10)]


@pytest.mark.parametrize("ends", [False, True])
def test_sigterm_before_the_first_row_leaves_an_older_file_as_it_was(
    bundle: str, photos: Path, output: Path, ends: bool
) -> None:
    """Also where the writer of the list had the signal too, and so the list ends."""
    assert main(["infer", "--bundle", bundle, "--output", str(output), str(photos)])
    before = output.read_bytes()
    health = output.with_name("health.json")
    child = started(
        *(bundle, "--output", output, "--force", "--health-file", health, "-"),
        stdin=subprocess.PIPE,
    )
    wait_for(health.exists, child)  # and it waits for the first path
    child.send_signal(signal.SIGTERM)
    if ends:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    assert child.wait(PATIENCE) == 0
    assert "stopped by SIGTERM after 0 pictures" in told(child)
    assert output.read_bytes() == before
    assert not output.with_name(f"{output.name}.partial").exists()
    command = ["infer", "--bundle", bundle, "--output", str(output), "--resume"]
    assert main([*command, str(photos)]) == 4
    assert output.read_bytes() == before  # all had their rows


def test_sigterm_during_the_last_row_changes_nothing(
    bundle: str, photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write = os.write

    def write_then_stop(descriptor: int, data: bytes) -> int:
        written = real_write(descriptor, data)
        signal.raise_signal(signal.SIGTERM)
        return written

    last = ["infer", "--bundle", bundle, "--output", str(output), str(photos / "3.png")]
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_then_stop)
        code = main(last)
    assert code == main([*last, "--force"]) != 0  # one that cannot be read
    assert lines_in(output) == 1


def test_an_empty_partial_file_is_in_nobodys_way(
    bundle: str, photos: Path, output: Path
) -> None:
    output.with_name(f"{output.name}.partial").write_bytes(b"")
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    assert main(command) == 4
    assert lines_in(output) == 10


def test_maps_keep_their_names_across_a_stop(
    bundle: str, tmp_path: Path, output: Path
) -> None:
    import numpy as np

    folder, maps = tmp_path / "in", tmp_path / "maps"
    for value, name in ((1, "x/1.png"), (2, "y/x/1.png"), (3, "y/x/2.png")):
        save_picture(folder / name, grey(value))
    command = ["infer", "--bundle", bundle, "--output", str(output), str(folder)]
    command += ["--save-maps", str(maps)]
    main(command)
    whole = {path.name: float(np.load(path)[0, 0]) for path in maps.iterdir()}
    stopped_after(output, 1)
    (maps / "x_1_2.npy").unlink()
    assert main([*command, "--resume"]) == 0
    again = {path.name: float(np.load(path)[0, 0]) for path in maps.iterdir()}
    assert again == whole == {"x_1.npy": 1.0, "x_1_2.npy": 2.0, "x_2.npy": 3.0}


def test_the_settings_stand_beside_the_rows_with_a_version(
    bundle: str, photos: Path, output: Path
) -> None:
    main(["infer", "--bundle", bundle, "--output", str(output), str(photos)])
    about = json.loads(output.with_name(".rows.jsonl.ledger").read_text())
    assert (about["schema_version"], about["kind"]) == ("1.0", "ledger")
    assert about["settings"]["threshold"] == 100.0
