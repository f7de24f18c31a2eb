"""Defects in train: refused, or handed over where the detector can use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import SMALL_OPTIONS, CommandResult
from factories import read_rows, write_dataset, write_manifest
from learning_detector import HOME, Learning
from pyimgano.datasets.fingerprints import training_fingerprint
from pyimgano.datasets.manifest import read_manifest
from pyimgano.datasets.splits import split_manifest
from pyimgano.detectors import DETECTORS, detector_class
from pyimgano.workbench.artifacts import open_run

Run = Callable[..., CommandResult]
MakeConfig = Callable[..., Path]
NORMALS_ONLY = [n for n in sorted(DETECTORS) if not detector_class(n).uses_defects]


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> type[Learning]:
    """Give the test detector, registered for one test."""
    monkeypatch.setitem(DETECTORS, "learning", HOME)
    monkeypatch.setattr(Learning, "given", [])
    return Learning


def with_train_defects(folder: Path, count: int) -> Path:
    """Give a manifest whose first test defects stand in train."""
    manifest = write_dataset(
        folder, n_train=10, n_test_normal=3, n_test_defect=4, size=(32, 40)
    )
    rows = read_rows(manifest)
    defects = [row for row in rows if row["label"] == 1]
    for row in defects[:count]:
        row["split"] = "train"
    return write_manifest(manifest, rows)


def config_of(
    make_config: MakeConfig, manifest: Path, name: str, **blocks: Any
) -> Path:
    if name in SMALL_OPTIONS:
        return make_config(manifest, name, **blocks)
    return make_config(manifest, model={"name": name}, **blocks)


@pytest.mark.parametrize("name", NORMALS_ONLY)
def test_a_detector_that_learns_from_normals_only_refuses_defects_in_train(
    name: str, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = config_of(make_config, with_train_defects(tmp_path / "data", 1), name)
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert "is an anomaly in train, which holds normals only" in done.stderr
    assert 'set its split to "test"' in done.stderr
    assert not (tmp_path / "run").exists()
    report = run_cli("train", "--config", config, "--preflight")
    assert report.code == 2
    assert '"MANIFEST_ANOMALY_IN_TRAIN"' in report.stdout


def test_a_detector_that_uses_defects_is_given_each_with_its_mask(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run, learning: type[Learning]
) -> None:
    manifest = with_train_defects(tmp_path / "data", 2)
    config = config_of(make_config, manifest, "learning")
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 0, done.stderr
    (given,) = learning.given
    assert len(given["defects"]) == 2
    for image, mask in given["defects"]:
        assert image.shape == (32, 40, 3)
        assert mask.shape == (32, 40)
        assert 0 < int(mask.sum()) < mask.numel()
    report = open_run(tmp_path / "run").report["categories"]["bracket"]
    assert report["counts"]["train_defects"] == 2
    assert report["counts"]["test_anomalies"] == 2
    assert report["learned_from"]["defects"] == 2
    assert "; 2 defects" in done.stdout


def test_defects_are_turned_with_their_masks(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run, learning: type[Learning]
) -> None:
    manifest = with_train_defects(tmp_path / "data", 1)
    augmentation = {"flip": "horizontal"}
    config = config_of(make_config, manifest, "learning", augmentation=augmentation)
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 0, done.stderr
    (image, mask), (mirrored, mirrored_mask) = learning.given[0]["defects"]
    assert bool((mirrored == image.flip(1)).all())
    assert bool((mirrored_mask == mask.flip(1)).all())


def test_another_mask_in_train_is_another_training(tmp_path: Path) -> None:
    manifest = with_train_defects(tmp_path / "data", 2)

    def fingerprint() -> str:
        (split,) = split_manifest(read_manifest(manifest), uses_defects=True)
        return training_fingerprint(split)

    before = fingerprint()
    first, second = (
        manifest.parent / row["mask_path"]
        for row in read_rows(manifest)
        if row["label"] == 1 and row["split"] == "train"
    )
    first.write_bytes(second.read_bytes())
    assert fingerprint() != before
