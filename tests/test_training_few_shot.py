"""Few good pictures: 1, 5 and 20 train, and what they cannot promise is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult
from factories import write_dataset
from learning_detector import HOME, Learning
from pyimgano.detectors import DETECTORS, detector_class
from pyimgano.workbench.artifacts import Run as RunFolder
from pyimgano.workbench.artifacts import open_run

Run = Callable[..., CommandResult]
MakeConfig = Callable[..., Path]

FIXED = {"method": "fixed", "threshold": 1.0}
NAMES = sorted(DETECTORS)
FITTED = [name for name in NAMES if not detector_class(name).trains]
TRAINED = [name for name in NAMES if detector_class(name).trains]
QUICK = ("padim", "patchcore", "pixel_stats")


def slow_but_for(quick: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Give the names; those that are not quick take part in the whole run only."""
    return [
        name if name in quick else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


@pytest.fixture(autouse=True)
def learning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a detector that trains by gradient."""
    monkeypatch.setitem(DETECTORS, "learning", HOME)
    monkeypatch.setattr(Learning, "given", [])


def few(folder: Path, count: int) -> Path:
    return write_dataset(
        folder / "data", n_train=count, n_test_normal=2, n_test_defect=2, size=(64, 64)
    )


def config_of(
    make_config: MakeConfig, manifest: Path, name: str, **blocks: object
) -> Path:
    if name == "learning":
        return make_config(manifest, model={"name": name}, **blocks)
    return make_config(manifest, name, **blocks)


def trained(folder: Path, config: Path, run_cli: Run) -> RunFolder:
    done = run_cli("train", "--config", config, "--output", folder / "run")
    assert done.code == 0, done.stderr
    return open_run(folder / "run")


@pytest.mark.parametrize("name", [*NAMES, "learning"])
def test_one_picture_trains_with_a_threshold_that_a_person_chose(
    name: str, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = config_of(make_config, few(tmp_path, 1), name, calibration=FIXED)
    run = trained(tmp_path, config, run_cli)
    report = run.report["categories"]["bracket"]
    assert report["learned_from"]["samples"] == 1
    assert report["image_threshold"] == 1.0
    assert report["counts"]["calibration"] == 0


@pytest.mark.parametrize("name", [*NAMES, "learning"])
def test_one_picture_sets_no_threshold_and_is_told_so(
    name: str, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = config_of(make_config, few(tmp_path, 1), name)
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert "a threshold needs normals that the model was not fitted on" in done.stderr
    assert 'calibration.method to "fixed" with a threshold' in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [5, 20])
@pytest.mark.parametrize("name", slow_but_for(QUICK, FITTED))
def test_a_few_pictures_all_train_and_all_calibrate(
    name: str, count: int, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    run = trained(tmp_path, config_of(make_config, few(tmp_path, count), name), run_cli)
    report = run.report["categories"]["bracket"]
    assert report["learned_from"]["samples"] == count
    assert report["counts"]["calibration"] == count
    (warning,) = [w for w in report["warnings"] if "CALIBRATION_SMALL_N" in w]
    assert f"{1 / (count + 1):.2%}" in warning


@pytest.mark.parametrize("name", slow_but_for(("supersimplenet",), TRAINED))
def test_five_pictures_train_and_one_of_them_calibrates(
    name: str, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    run = trained(tmp_path, config_of(make_config, few(tmp_path, 5), name), run_cli)
    report = run.report["categories"]["bracket"]
    assert report["learned_from"]["samples"] == 4
    assert report["counts"]["calibration"] == 1


@pytest.mark.parametrize(
    ("count", "held_out", "tuning"),
    [(2, 1, 0), (3, 1, 0), (4, 1, 0), (5, 1, 0), (13, 3, 1), (20, 4, 2)],
)
def test_a_detector_that_trains_spares_some_and_says_what_they_promise(
    count: int,
    held_out: int,
    tuning: int,
    tmp_path: Path,
    make_config: MakeConfig,
    run_cli: Run,
) -> None:
    config = config_of(make_config, few(tmp_path, count), "learning")
    report = trained(tmp_path, config, run_cli).report["categories"]["bracket"]
    assert report["counts"]["calibration"] == held_out
    assert report["learned_from"]["tuning"] == tuning
    assert report["learned_from"]["normals"] == count - held_out - tuning
    (warning,) = [w for w in report["warnings"] if "CALIBRATION_SMALL_N" in w]
    assert f"{1 / (held_out + 1):.2%}" in warning


def test_nothing_is_varied_unless_asked_for(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = config_of(make_config, few(tmp_path, 5), "pixel_stats")
    report = trained(tmp_path, config, run_cli).report["categories"]["bracket"]
    assert report["learned_from"]["copies"] == 0
    assert report["learned_from"]["augmentation"] is None


def test_preflight_counts_the_normals_that_really_calibrate(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = few(tmp_path, 20)
    for name, words in (
        ("learning", "4 train normals, a fifth of 20, can promise no"),
        ("pixel_stats", "20 train normals can promise no"),
    ):
        config = config_of(make_config, manifest, name)
        assert words in run_cli("train", "--config", config, "--preflight").stdout
