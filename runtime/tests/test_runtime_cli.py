"""`pyimgano-runtime` as a stranger's script sees it: rows, exit codes, files, pipes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_runs import PATIENCE, lines_in, started, wait_for
from tiny_bundle import edit_document, graph, grey, model, save_picture, write_bundle

from pyimgano_runtime.cli import main

ROW_KEYS = [
    *("schema_version", "input", "category", "ok", "score", "p_value", "threshold"),
    *("threshold_source", "label", "decision", "regions", "ms", "bundle_sha256"),
    "error",
]
COMMAND = [sys.executable, "-m", "pyimgano_runtime"]


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    return str(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures: normal, broken, anomaly."""
    folder = tmp_path / "photos"
    save_picture(folder / "a.png", grey(40))
    (folder / "b.png").write_bytes(b"no picture")
    save_picture(folder / "c.png", grey(200))
    return folder


def rows_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def run(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, **options
    )


def usage_error(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return int(str(caught.value.code))


def test_infer_writes_one_row_a_picture_and_one_bad_picture_stops_nothing(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["infer", "--bundle", bundle, str(photos)]) == 4
    out, err = capsys.readouterr()
    first, broken, last = rows_of(out)
    assert [list(row) for row in (first, broken, last)] == [ROW_KEYS] * 3
    assert first["input"] == str(photos / "a.png")
    assert (first["ok"], first["score"], first["label"]) == (True, 40.0, "normal")
    assert (first["p_value"], first["error"]) == (0.2, None)
    assert set(first["ms"]) == {"decode", "infer", "post", "total"}
    assert (last["score"], last["label"]) == (200.0, "anomaly")
    assert (broken["ok"], broken["score"], broken["label"]) == (False, None, None)
    assert set(broken["error"]) == {"code", "message", "stage"}
    assert broken["error"]["code"] == "IMAGE_UNREADABLE"
    assert all(row["threshold"] == 100.0 for row in (first, broken, last))
    assert "3 pictures: 1 anomaly, 1 normal, 1 failed" in err


def test_a_missing_file_is_one_error_row(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [str(photos / "nowhere.png"), str(photos / "a.png"), "x" * 5000]
    assert main(["infer", "--bundle", bundle, *inputs]) == 4
    rows = rows_of(capsys.readouterr().out)
    assert [row["input"] for row in rows] == inputs
    assert [row["ok"] for row in rows] == [False, True, False]
    assert rows[0]["error"]["stage"] == "read"


def test_output_takes_the_rows_and_leaves_stdout_empty(
    bundle: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    assert main(command) == 4
    assert capsys.readouterr().out == ""
    assert [row["ok"] for row in rows_of(output.read_text())] == [True, False, True]
    left = {"bundle", "photos", "rows.jsonl", ".rows.jsonl.ledger"}
    assert {p.name for p in tmp_path.iterdir()} == left


def test_an_existing_output_is_refused_and_replaced_with_force(
    bundle: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "rows.jsonl"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    assert main([*command, str(photos / "a.png")]) == 4
    before = output.read_text()
    assert main(command) == 2
    assert output.read_text() == before
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 4
    assert len(rows_of(output.read_text())) == 3
    output.write_text("")
    assert main([*command, "--force"]) == 4
    assert len(rows_of(output.read_text())) == 3


def test_force_replaces_no_file_but_rows(
    bundle: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    report.write_text('{"schema_version": "1.0", "categories": {"input": 1}}')
    for output in (
        *(photos / "a.png", report),
        *(Path(bundle) / "infer_config.json", Path(bundle) / "models" / "tiny.onnx"),
    ):
        before = output.read_bytes()
        command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
        assert main([*command, "--force"]) == 2
        assert output.read_bytes() == before
        assert "file of another kind" in capsys.readouterr().err


def test_rows_are_not_written_into_the_bundle(
    bundle: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(bundle)
    for folder in (Path(bundle), Path(bundle) / "golden", tmp_path / "link"):
        output = folder / "rows.jsonl"
        command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
        assert main(command) == 2
        assert "lies in the bundle" in capsys.readouterr().err
        assert not output.exists()


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_output_that_is_no_file_is_refused_before_any_work(
    bundle: str, photos: Path, tmp_path: Path, force: list[str]
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for output in (tmp_path, tmp_path / "fifo", "", "/", tmp_path / "no" / "rows"):
        command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
        assert main([*command, *force]) == 2
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


def test_an_interruption_keeps_the_rows_apart_and_leaves_no_half_of_the_output(
    bundle: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pyimgano_runtime.predictor import Predictor

    whole = Predictor.read

    def interrupted(self: Predictor, path: Path) -> Any:
        if path.name == "c.png":
            raise KeyboardInterrupt
        return whole(self, path)

    monkeypatch.setattr(Predictor, "read", interrupted)
    output = tmp_path / "rows.jsonl"
    command = ["infer", "--bundle", bundle, "--output", str(output), str(photos)]
    assert main(command) == 130
    left = {"bundle", "photos", "rows.jsonl.partial", ".rows.jsonl.ledger"}
    assert {p.name for p in tmp_path.iterdir()} == left
    rows = rows_of((tmp_path / "rows.jsonl.partial").read_text())
    assert [row["ok"] for row in rows] == [True, False]
    assert "interrupted" in capsys.readouterr().err


def test_a_fault_of_ours_never_ends_like_an_anomaly(
    bundle: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pyimgano_runtime.predictor import Predictor

    for error in (RuntimeError("boom"), OSError(28, "disk full")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Predictor, "read", fail)
        assert main(["infer", "--bundle", bundle, str(photos)]) == 5
    assert "disk full" in capsys.readouterr().err


def test_exit_0_where_all_were_scored(bundle: str, photos: Path) -> None:
    command = ["infer", "--bundle", bundle, str(photos / "c.png")]
    assert main(command) == 0


def test_exit_1_for_an_anomaly_only_if_asked_for(bundle: str, photos: Path) -> None:
    command = ["infer", "--bundle", bundle, "--fail-on-anomaly"]
    assert main([*command, str(photos / "c.png")]) == 1
    assert main([*command, str(photos / "a.png")]) == 0
    assert main([*command, str(photos)]) == 4, "a failed input outweighs an anomaly"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["infer"],
        ["infer", "--bundle", "b"],
        ["unknown"],
        ["check"],
        ["infer", "--bundle", "b", "--threshold", "nan", "x"],
        ["infer", "--bundle", "b", "--threshold", "inf", "x"],
        ["infer", "--bundle", "b", "--threshold", "high", "x"],
        ["infer", "--bundle", "b", "--threads", "0", "x"],
        ["infer", "--bundle", "b", "--threads", "two", "x"],
        ["infer", "--bundle", "b", "--threads", "9" * 5000, "x"],
    ],
)
def test_exit_2_for_a_wrong_command_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_error(*arguments) == 2
    err = capsys.readouterr().err
    assert "_positive" not in err
    assert "_threshold" not in err


def test_exit_2_for_inputs_that_are_none(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["infer", "--bundle", bundle, str(tmp_path / "empty")]) == 2
    assert "holds no pictures" in capsys.readouterr().err
    assert main(["infer", "--bundle", bundle, ""]) == 2
    assert main(["infer", "--bundle", bundle, "--threshold", "1e39", "x.png"]) == 2


def test_exit_3_for_a_bundle_that_is_refused(
    bundle: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(bundle) / "models" / "tiny.onnx").write_bytes(b"other")
    picture = str(photos / "a.png")
    for command in (["check", bundle], ["infer", "--bundle", bundle, picture]):
        assert main(command) == 3
    for command in (["info", str(tmp_path / "nowhere")], ["check", str(photos)]):
        assert main(command) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("pyimgano-runtime: ") == 4


def test_exit_2_lists_the_categories_where_none_or_a_wrong_one_is_named(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "two", categories=("nut", "bolt"))
    command = ["infer", "--bundle", str(folder)]
    assert main([*command, str(photos)]) == 2
    assert "bolt, nut" in capsys.readouterr().err
    assert main([*command, "--category", "nuts", str(photos)]) == 2
    assert 'did you mean "nut"?' in capsys.readouterr().err
    assert main([*command, "--category", "nut", str(photos / "a.png")]) == 0
    assert rows_of(capsys.readouterr().out)[0]["category"] == "nut"


def test_exit_5_where_the_model_scores_differently(tmp_path: Path) -> None:
    data = model(graph(scale=1.01))
    assert main(["check", str(write_bundle(tmp_path / "b", model_bytes=data))]) == 5


def test_a_threshold_on_the_command_line_wins_and_is_said_in_every_row(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["infer", "--bundle", bundle, "--threshold", "40", str(photos)])
    rows = rows_of(capsys.readouterr().out)
    assert [row["label"] for row in rows] == ["anomaly", None, "anomaly"]
    assert {row["threshold_source"] for row in rows} == {"--threshold"}


def test_a_folder_is_read_sorted_and_recursive_and_only_its_pictures(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for name in ("z.PNG", "a/2.png", "a/10.png", "B.png"):
        save_picture(folder / name, grey(1))
    np.save(folder / "a" / "x.npy", grey(1))
    (folder / "notes.txt").write_text("")
    assert main(["infer", "--bundle", bundle, str(folder)]) == 0
    found = [row["input"] for row in rows_of(capsys.readouterr().out)]
    names = ["B.png", "a/10.png", "a/2.png", "a/x.npy", "z.PNG"]
    assert found == [str(folder / name) for name in names]


def test_a_folder_that_cannot_be_listed_is_refused_not_passed_by(
    bundle: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr("pyimgano_runtime.bundle.Bundle.unlisted_files", lambda _: [])
    assert main(["infer", "--bundle", bundle, str(photos)]) == 2
    assert "cannot be listed (Permission denied)" in capsys.readouterr().err


def test_maps_are_saved_under_names_that_do_not_collide(
    bundle: str, tmp_path: Path
) -> None:
    for name in ("x/1.png", "y/x/1.png", "y/x/1.npy"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
    save_picture(tmp_path / "in" / "x" / "1.png", grey(1))
    save_picture(tmp_path / "in" / "y" / "x" / "1.png", grey(2))
    np.save(tmp_path / "in" / "y" / "x" / "1.npy", grey(3))
    maps = tmp_path / "maps"
    command = ["infer", "--bundle", bundle, "--save-maps", str(maps)]
    assert main([*command, str(tmp_path / "in")]) == 0
    found = sorted(float(np.load(path)[0, 0]) for path in maps.iterdir())
    assert found == [1.0, 2.0, 3.0]
    assert main([*command, str(tmp_path / "in")]) == 2, "maps that exist are kept"
    assert main([*command, "--force", str(tmp_path / "in")]) == 0


def test_maps_of_a_model_without_one_are_refused_before_any_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(write_bundle(tmp_path / "b", with_map=False))
    maps = str(tmp_path / "maps")
    assert main(["infer", "--bundle", folder, "--save-maps", maps, str(photos)]) == 2
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "maps").exists()


def test_unlisted_files_are_warned_of_at_infer_and_check_but_not_without_end(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(9):
        (Path(bundle) / f"extra{number}").write_text("")
    for command in (
        ["check", bundle],
        ["infer", "--bundle", bundle, str(photos / "a.png")],
    ):
        assert main(command) == 0
        err = capsys.readouterr().err
        assert "warning: extra0 is in the bundle folder" in err
        assert "warning: 4 more such files" in err


def test_info_says_what_a_bundle_is(
    bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["info", bundle]) == 0
    out = capsys.readouterr().out
    for part in (
        "bundle     tiny 1",
        "category   part",
        "detector   tiny",
        "threshold  100: conformal on 4 held-out normals in 4 groups (val); "
        "promises at most 20.00% false alarms (asked: 1.00%); set by a test",
        "0 label flips on 4 test+val images",
    ):
        assert part in out
    assert main(["info", "--json", bundle]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document.pop("signature") is None
    assert document == json.loads((Path(bundle) / "infer_config.json").read_text())


@pytest.mark.parametrize("training", [{}, {"categories": None}, {"categories": {}}])
def test_info_lives_with_little_knowledge_of_the_training(
    bundle: str, training: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    edit_document(Path(bundle), lambda d: d.update(training=training))
    assert main(["info", bundle]) == 0
    assert "detector   unknown" in capsys.readouterr().out


@pytest.mark.parametrize("warnings", [5, "x", {}, None, [1], [None]])
def test_info_refuses_training_warnings_that_are_no_texts(
    bundle: str, warnings: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def alter(document: dict[str, Any]) -> None:
        document["training"]["categories"]["part"]["warnings"] = warnings

    edit_document(Path(bundle), alter)
    assert main(["info", bundle]) == 3
    err = capsys.readouterr().err
    assert "training.categories.part.warnings" in err
    assert err.count("\n") == 1


def test_info_says_about_where_the_promise_is_approximate(
    bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def alter(document: dict[str, Any]) -> None:
        thresholds = document["categories"]["part"]["thresholds"]
        thresholds["provenance"]["image"]["approximate"] = True

    edit_document(Path(bundle), alter)
    main(["info", bundle])
    assert "promises about 20.00% false alarms" in capsys.readouterr().out


def test_check_json_is_one_object_with_a_schema_version(
    bundle: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--json", bundle]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["schema_version"], report["ok"]) == ("1.3", True)
    assert [result["agrees"] for result in report["results"]] == [True, True]


def test_a_read_only_bundle_runs_from_another_directory(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "else where" / "bundle"
    shutil.copytree(bundle, moved)
    shutil.rmtree(bundle)
    for path in (*moved.rglob("*"), moved):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in moved.rglob("*")}
    done = run("check", "../else where/bundle", cwd=photos)
    assert (done.returncode, done.stderr) == (0, "")
    environment = os.environ | {"TMPDIR": "/nowhere", "HOME": "/nowhere"}
    done = run("infer", "--bundle", moved, "a.png", cwd=photos, env=environment)
    assert done.returncode == 0
    assert rows_of(done.stdout)[0]["input"] == "a.png"
    assert {path: path.stat().st_mtime_ns for path in moved.rglob("*")} == before


def test_a_reader_that_goes_away_is_no_error(
    bundle: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides the late write
    for arguments in (
        ["infer", "--bundle", bundle, *[str(photos / "a.png")] * 50],
        ["info", "--json", bundle],
        ["info", bundle],  # so short that it is written at the very end
    ):
        source, sink = os.pipe()
        os.close(source)
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=sink, stderr=subprocess.PIPE, text=True
        )
        os.close(sink)
        assert done.returncode == 0
        assert "Traceback" not in done.stderr
        assert "BrokenPipe" not in done.stderr


def test_a_reader_of_stderr_that_goes_away_changes_neither_rows_nor_code(
    bundle: str, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    source, gone = os.pipe()
    os.close(source)
    full = os.open("/dev/full", os.O_WRONLY)
    for arguments in (["--output", output, "--force"], ["--min-processed", "9"]):
        for stderr in (gone, full):
            done = subprocess.run(
                [
                    *(*COMMAND, "infer", "--bundle", bundle, *arguments),
                    *(photos / "a.png", "no"),
                ],
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
            assert done.returncode == 4  # there is no such picture
    os.close(gone)
    os.close(full)
    assert lines_in(output) == 2


def test_an_interrupt_of_a_whole_pipeline_is_told_as_one(
    bundle: str, photos: Path
) -> None:
    """Ctrl-C reaches the reader too, whose end closes the pipe that is full."""
    child = started(bundle, *[photos / "a.png"] * 2000)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    time.sleep(0.3)  # the pipe fills
    child.send_signal(signal.SIGINT)
    time.sleep(0.1)
    child.stdout.close()
    assert child.wait(PATIENCE) == 130
    assert child.stderr.read() == "pyimgano-runtime: interrupted\n"
    child.stderr.close()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_any_file_name_gives_a_row_in_any_encoding(
    bundle: str, tmp_path: Path, encoding: str
) -> None:
    names = [b"\xff\xfe.png", "ä漢\U0001f600.png".encode(), b"new\nline.png"]
    paths = [os.fsencode(tmp_path) + b"/" + name for name in names]
    for path in paths:
        save_picture(Path(os.fsdecode(path)), grey(1))
    done = subprocess.run(
        [*COMMAND, "infer", "--bundle", bundle, *paths, b"no\xff.png"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 4, done.stderr
    rows = [json.loads(line) for line in done.stdout.decode(encoding).splitlines()]
    found = [os.fsencode(row["input"]) for row in rows]
    assert found == [*paths, b"no\xff.png"]


def test_an_output_file_holds_any_file_name(bundle: str, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    save_picture(Path(path), grey(1))
    output = tmp_path / "rows"
    assert main(["infer", "--bundle", bundle, "--output", str(output), path]) == 0
    assert rows_of(output.read_text(encoding="utf-8"))[0]["input"] == path


def test_a_bundle_under_an_odd_name_can_be_checked(bundle: str, tmp_path: Path) -> None:
    odd = Path(bundle).rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xff"))
    for command in ("check", "info"):
        done = subprocess.run([*COMMAND, command, odd], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("to_file", [False, True])
def test_sigterm_finishes_the_picture_at_hand_keeps_the_rows_and_ends_0(
    bundle: str, photos: Path, tmp_path: Path, to_file: bool
) -> None:
    output = tmp_path / "rows.jsonl"
    many = [str(photos / "a.png")] * 20_000
    listing = ["--output", str(output)] if to_file else []
    child = subprocess.Popen(
        [*COMMAND, "infer", "--bundle", bundle, *listing, str(photos / "b.png"), *many],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    first = ""
    if to_file:
        wait_for(lambda: lines_in(tmp_path / "rows.jsonl.partial"), child)
    else:
        first = child.stdout.readline()
    child.send_signal(signal.SIGTERM)
    # Not communicate(): it would lose what readline() has buffered.
    out, err = child.stdout.read(), child.stderr.read()
    assert child.wait(timeout=60) == 0, err
    child.stdout.close()
    child.stderr.close()
    rows = rows_of(output.read_text() if to_file else first + out)
    assert 0 < len(rows) < 20_001
    assert f"stopped by SIGTERM after {len(rows)} of 20001 pictures" in err
    assert not list(tmp_path.glob("*.partial"))


def test_infer_works_in_a_thread_and_leaves_signals_alone(
    bundle: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    codes: list[int] = []
    command = ["infer", "--bundle", bundle, str(photos / "a.png")]
    thread = threading.Thread(target=lambda: codes.append(main(command)))
    thread.start()
    thread.join()
    codes.append(main(command))
    assert codes == [0, 0]
    assert signal.getsignal(signal.SIGTERM) is before
    assert len(rows_of(capsys.readouterr().out)) == 2


def test_the_version_is_printed() -> None:
    from pyimgano_runtime import __version__

    assert run("--version").stdout == f"{__version__}\n"
