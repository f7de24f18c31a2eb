"""Health files: what a supervisor may believe, at every moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import graph, grey, model, save_picture, write_bundle

from pyimgano_runtime import Predictor
from pyimgano_runtime.cli import main
from pyimgano_runtime.health import EVERY_S, FAILING, HealthFile


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "health.json"


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def row(*, ok: bool = True, label: str | None = "normal") -> dict[str, Any]:
    error = {"code": "IMAGE_UNREADABLE", "message": "a.png: broken", "stage": "decode"}
    return {
        "input": "a.png",
        "ok": ok,
        "label": label if ok else None,
        "error": None if ok else error,
    }


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(bundle: Path, file: Path, clock: Clock) -> HealthFile:
    return HealthFile(file, Predictor.open(bundle), say=print, clock=clock)


def test_a_check_that_passes_writes_ok_and_what_was_checked(
    bundle: Path, file: Path
) -> None:
    assert main(["check", str(bundle), "--health-file", str(file)]) == 0
    found = read(file)
    assert (found["schema_version"], found["ok"]) == ("1.0", True)
    assert found["goldens"] == {"agree": 2, "judged": 2, "all": 2}
    assert found["provider"] == "CPUExecutionProvider"
    assert len(found["bundle_sha256"]) == 64
    assert found["checked_at"].endswith("Z")
    assert found["problems"] == []


def test_a_check_that_fails_says_so_and_why(tmp_path: Path, file: Path) -> None:
    other = write_bundle(tmp_path / "b", model_bytes=model(graph(scale=1.01)))
    assert main(["check", str(other), "--health-file", str(file)]) == 5
    found = read(file)
    assert found["ok"] is False
    assert found["goldens"] == {"agree": 0, "judged": 2, "all": 2}
    assert "scores differently here" in found["problems"][0]


def test_a_check_of_nothing_proven_is_not_ok(tmp_path: Path, file: Path) -> None:
    bare = write_bundle(tmp_path / "bare", golden_levels=())
    assert main(["check", str(bare), "--health-file", str(file)]) == 5
    assert read(file)["ok"] is False


def test_a_bundle_that_is_refused_takes_back_an_earlier_ok(
    bundle: Path, file: Path
) -> None:
    command = ["check", str(bundle), "--health-file", str(file)]
    assert main(command) == 0
    (bundle / "models" / "tiny.onnx").write_bytes(b"other")
    assert main(command) == 3
    found = read(file)
    assert (found["ok"], found["bundle_sha256"]) == (False, None)
    assert "tiny.onnx" in found["problems"][0]


def test_while_a_check_is_under_way_the_file_is_not_ok(
    bundle: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["check", str(bundle), "--health-file", str(file)]
    assert main(command) == 0

    def interrupted(self: Predictor, *_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "predict", interrupted)
    assert main(command) == 130
    found = read(file)
    assert found["ok"] is False
    assert found["problems"] == ["the check has not come to its end"]


def test_a_health_file_replaces_no_file_of_another_kind(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"schema_version": "1.0", "input": "a.png"}\n')
    for place in (rows, bundle / "health.json", tmp_path / "no" / "h.json", tmp_path):
        assert main(["check", str(bundle), "--health-file", str(place)]) == 2
    assert "input" in rows.read_text()
    assert "lies in the bundle" in capsys.readouterr().err
    assert not (bundle / "health.json").exists()


def test_a_running_program_is_ok_before_its_first_picture(
    health: HealthFile, file: Path
) -> None:
    found = read(file)
    assert (found["ok"], found["state"], found["pictures"]) == (True, "running", 0)


def test_rows_are_counted_and_written_no_more_often_than_every_few_seconds(
    health: HealthFile, file: Path, clock: Clock
) -> None:
    health.row(row(label="anomaly"))
    health.row(row(ok=False))
    assert read(file)["pictures"] == 0
    clock.now = EVERY_S
    health.row(row())
    found = read(file)
    counts = [found[name] for name in ("pictures", "failed", "anomalies")]
    assert counts == [3, 1, 1]
    assert found["last_error"]["code"] == "IMAGE_UNREADABLE"
    assert found["last_error"]["input"] == "a.png"
    assert found["ok"] is True


def test_a_loop_that_waits_for_pictures_shows_that_it_lives(
    health: HealthFile, file: Path, clock: Clock
) -> None:
    file.unlink()
    health.beat()
    assert not file.exists()
    clock.now = EVERY_S
    health.beat()
    assert read(file)["ok"] is True


def test_many_failures_in_a_row_are_not_ok_until_a_picture_is_scored_again(
    health: HealthFile, file: Path, clock: Clock
) -> None:
    for number in range(FAILING):
        clock.now += EVERY_S
        assert read(file)["ok"] is True, number
        health.row(row(ok=False))
    assert read(file)["ok"] is False
    clock.now += EVERY_S
    health.row(row())
    assert read(file)["ok"] is True


def test_a_file_that_cannot_be_written_is_said_once_and_stops_nothing(
    bundle: Path, tmp_path: Path, clock: Clock
) -> None:
    said: list[str] = []
    gone = tmp_path / "gone"
    gone.mkdir()
    file = gone / "health.json"
    health = HealthFile(file, Predictor.open(bundle), say=said.append, clock=clock)
    file.unlink()
    gone.rmdir()
    for _ in range(3):
        clock.now += EVERY_S
        health.row(row())
    assert len(said) == 1
    assert "--health-file" in said[0]


def test_infer_leaves_its_last_counts_and_that_it_has_stopped(
    bundle: Path, file: Path, tmp_path: Path
) -> None:
    pictures = [str(save_picture(tmp_path / f"{n}.png", grey(n))) for n in (7, 200)]
    command = ["infer", "--bundle", str(bundle), "--health-file", str(file)]
    assert main([*command, *pictures, str(tmp_path / "no.png")]) == 4
    found = read(file)
    assert (found["ok"], found["state"]) == (False, "stopped")
    counts = [found[name] for name in ("pictures", "failed", "anomalies")]
    assert counts == [3, 1, 1]


def test_infer_that_ends_by_an_error_says_which(
    bundle: Path, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "disk full")

    monkeypatch.setattr(Predictor, "read", fail)
    picture = str(save_picture(tmp_path / "a.png", grey(7)))
    command = ["infer", "--bundle", str(bundle), "--health-file", str(file)]
    assert main([*command, picture]) == 5
    found = read(file)
    assert (found["ok"], found["state"]) == (False, "failed")
    assert "disk full" in found["problems"][0]


def test_rows_that_wait_for_pictures_say_so_each_time(bundle: Path) -> None:
    from pyimgano_runtime.inputs import Input
    from pyimgano_runtime.predictor import Predictor
    from pyimgano_runtime.row_output import PictureSaver, RowWriter, write_rows

    predictor = Predictor.open(bundle)
    inputs = (None, Input("n.png", Path("n.png")), None, None)
    beats = []
    tally = write_rows(
        *(predictor, inputs, RowWriter(None, force=False)),
        PictureSaver(None, None, predictor, force=False),
        say=lambda line: None,
        decode_workers=0,
        idle=lambda: beats.append(1),
    )
    assert tally.done == 1
    assert len(beats) == 3
