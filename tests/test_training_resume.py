"""A killed training goes on by --resume and gives the same model to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import learning_detector
from conftest import CommandResult
from factories import read_rows, write_dataset, write_manifest
from learning_detector import HOME, Learning
from pyimgano.detectors import DETECTORS

Run = Callable[..., CommandResult]

CHILD = f"""
import sys
from pyimgano.cli import main
from pyimgano.detectors import DETECTORS

DETECTORS["learning"] = "{HOME}"
sys.exit(main(sys.argv[1:]))
"""
FINDS_THIS_DETECTOR = {
    "PYTHONPATH": os.pathsep.join(
        [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    )
}
STEPS = 60
# Wall-clock time is no part of a model, and the memory of a process is its own.
OF_THE_MOMENT = {"finished", "peak_rss_mb", "fit_seconds", "latency_ms", "set_at"}


@pytest.fixture(autouse=True)
def learning(monkeypatch: pytest.MonkeyPatch) -> type[Learning]:
    """Give the test detector, registered for one test."""
    monkeypatch.setitem(DETECTORS, "learning", HOME)
    monkeypatch.setattr(Learning, "given", [])
    return Learning


def write_config(folder: Path, **options: Any) -> Path:
    """Give a config over two categories, which trains long enough to be killed."""
    rows = []
    for name in ("a", "b"):
        manifest = write_dataset(
            folder / name,
            n_train=12,
            n_test_normal=2,
            n_test_defect=2,
            size=(32, 32),
            seed=ord(name),
        )
        for row in read_rows(manifest):
            for key in ("image_path", "mask_path"):
                row[key] = f"{name}/{row[key]}" if row[key] else None
            rows.append(row | {"category": name})
    manifest = write_manifest(folder / "manifest.jsonl", rows)
    payload = {
        "device": "cpu",
        "dataset": {"manifest_path": str(manifest)},
        "model": {"name": "learning", "options": {"steps": STEPS} | options},
        "evaluation": {"bootstrap_resamples": 0},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(payload), encoding="utf-8")
    return path


def kill_when(there: Path, config: Path, output: Path, *more: str) -> None:
    """Train in a process of its own, and kill it as soon as a file is there."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", CHILD, "train", "--config", str(config)),
            *("--output", str(output), *more),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | FINDS_THIS_DETECTOR,
    )
    end = time.monotonic() + 120
    while not there.exists() and time.monotonic() < end:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def contents(run: Path) -> dict[str, Any]:
    """Give what a run is, without what differs between two starts anyway."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in OF_THE_MOMENT}
        return value

    found: dict[str, Any] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if path.suffix == ".json":
            found[name] = timeless(json.loads(path.read_text("utf-8")))
        elif path.suffix == ".jsonl":
            found[name] = len(path.read_text("utf-8").splitlines())
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture
def interrupt(
    monkeypatch: pytest.MonkeyPatch, run_cli: Run
) -> Callable[..., CommandResult]:
    """Give a function that trains until the 35th step of the second category."""

    def train(config: Path, output: Path, *more: str) -> CommandResult:
        steps = 0

        def stop(seconds: float) -> None:
            nonlocal steps
            steps += 1
            if steps == STEPS + 35:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(learning_detector, "pause", stop)
            return run_cli("train", "--config", config, "--output", output, *more)

    return train


@pytest.fixture
def stopped(
    tmp_path: Path, interrupt: Callable[..., CommandResult]
) -> tuple[Path, Path]:
    """Give config and output of a training that was interrupted."""
    config, output = write_config(tmp_path), tmp_path / "run"
    done = interrupt(config, output)
    assert done.code == 130
    assert "not finished; go on by --resume" in done.stderr
    assert not output.exists()
    return config, output


def test_a_killed_and_resumed_training_gives_the_run_of_an_uninterrupted_one(
    tmp_path: Path, run_cli: Run, learning: type[Learning]
) -> None:
    config, output = write_config(tmp_path, sleep_ms=20), tmp_path / "run"
    kill_when(tmp_path / ".run.work/states/b/training.state", config, output)
    assert not output.exists()
    assert (tmp_path / ".run.work/finished/a/entry.json").is_file()
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 0, done.stderr
    assert len(learning.given) == 1  # of category b: a was finished
    whole = tmp_path / "whole"
    assert run_cli("train", "--config", config, "--output", whole).code == 0
    assert len(learning.given) == 3
    assert contents(output) == contents(whole)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["a", "b", "config.json", "manifest.jsonl", "run", "whole"]


def test_only_the_steps_since_the_last_state_are_taken_again(
    stopped: tuple[Path, Path], run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = stopped
    steps = []
    monkeypatch.setattr(learning_detector, "pause", steps.append)
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 0
    assert len(steps) == STEPS - 30  # a state is kept every 5th step


def test_without_resume_an_interrupted_training_is_named_and_left_alone(
    stopped: tuple[Path, Path], run_cli: Run
) -> None:
    config, output = stopped
    done = run_cli("train", "--config", config, "--output", output)
    assert done.code == 2
    assert "was interrupted and can go on; pass --resume" in done.stderr
    assert "--force to begin anew" in done.stderr
    assert (
        run_cli("train", "--config", config, "--output", output, "--resume").code == 0
    )


def test_force_begins_anew(
    stopped: tuple[Path, Path], run_cli: Run, learning: type[Learning]
) -> None:
    config, output = stopped
    learning.given.clear()
    done = run_cli("train", "--config", config, "--output", output, "--force")
    assert done.code == 0
    assert len(learning.given) == 2
    assert not (output.parent / ".run.work").exists()


def test_another_config_is_refused_with_what_differs(
    stopped: tuple[Path, Path], run_cli: Run
) -> None:
    config, output = stopped
    payload = json.loads(config.read_text("utf-8"))
    payload["seed"] = 7
    config.write_text(json.dumps(payload), encoding="utf-8")
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 2
    assert "config.seed: found 7, expected 0" in done.stderr
    assert "--force in place of --resume" in done.stderr
    payload["seed"] = 0
    config.write_text(json.dumps(payload), encoding="utf-8")
    assert (
        run_cli("train", "--config", config, "--output", output, "--resume").code == 0
    )


def test_other_pictures_are_refused(stopped: tuple[Path, Path], run_cli: Run) -> None:
    config, output = stopped
    rows = read_rows(config.parent / "manifest.jsonl")
    first, second = (config.parent / row["image_path"] for row in rows[:2])
    first.write_bytes(second.read_bytes())
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 2
    assert "data.a.train and val pictures: found" in done.stderr


def test_a_replacement_goes_on_and_keeps_the_old_run_until_it_is_complete(
    tmp_path: Path, run_cli: Run, interrupt: Callable[..., CommandResult]
) -> None:
    config, output = write_config(tmp_path), tmp_path / "run"
    assert run_cli("train", "--config", config, "--output", output).code == 0
    old = (output / "report.json").read_bytes()
    assert interrupt(config, output, "--force").code == 130
    assert (output / "report.json").read_bytes() == old
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 0, done.stderr
    assert (output / "report.json").read_bytes() != old


def test_a_finished_run_has_nothing_to_resume(tmp_path: Path, run_cli: Run) -> None:
    config, output = write_config(tmp_path), tmp_path / "run"
    # Nothing was interrupted either: it begins, so that a script may always say it.
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 0, done.stderr
    done = run_cli("train", "--config", config, "--output", output, "--resume")
    assert done.code == 2
    assert "there is nothing to resume" in done.stderr


def test_resume_and_force_exclude_each_other(tmp_path: Path, run_cli: Run) -> None:
    config = write_config(tmp_path)
    done = run_cli("train", "--config", config, "--resume", "--force")
    assert done.code == 2
    assert "--resume, --force: one goes on, the other begins anew" in done.stderr


def test_a_refusal_in_the_middle_leaves_nothing(tmp_path: Path, run_cli: Run) -> None:
    config, output = write_config(tmp_path), tmp_path / "run"
    manifest = tmp_path / "manifest.jsonl"
    (broken,) = [
        tmp_path / row["image_path"]
        for row in read_rows(manifest)
        if row["category"] == "b" and row["split"] == "train"
    ][:1]
    data = bytearray(broken.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)  # the header stands, decoding fails
    broken.write_bytes(bytes(data))
    done = run_cli("train", "--config", config, "--output", output)
    assert done.code == 2
    assert not output.exists()
    assert not (tmp_path / ".run.work").exists()


def test_an_interruption_before_anything_was_learned_leaves_nothing(
    tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, output = write_config(tmp_path), tmp_path / "run"

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(learning_detector, "pause", stop)
    done = run_cli("train", "--config", config, "--output", output)
    assert done.code == 130
    assert "--resume" not in done.stderr
    assert not (tmp_path / ".run.work").exists()


def test_a_folder_of_somebody_else_is_not_deleted(tmp_path: Path, run_cli: Run) -> None:
    config, output = write_config(tmp_path), tmp_path / "run"
    (tmp_path / ".run.work").mkdir()
    (tmp_path / ".run.work/notes.txt").write_text("mine")
    done = run_cli("train", "--config", config, "--output", output, "--force")
    assert done.code == 2
    assert "is not a folder that a training began" in done.stderr
    assert (tmp_path / ".run.work/notes.txt").read_text() == "mine"
