"""The main path on real photographs: train, export, copy, check, benchmark."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult
from pyimgano_runtime.cli import main as runtime

pytestmark = pytest.mark.realdata

Run = Callable[..., CommandResult]

# Floors of image AUROC that a 60-line script reaches; measured here: 1.000 and 0.988.
COOKIES_FLOORS = {"patchcore": 0.98, "padim": 0.97}


@pytest.fixture
def data() -> Path:
    """The folder of the reference sets."""
    folder = os.environ.get("PYIMGANO_TEST_DATA")
    if not folder:
        pytest.skip("PYIMGANO_TEST_DATA is not set")
    return Path(folder)


@pytest.mark.parametrize("model", sorted(COOKIES_FLOORS))
def test_cookies_reach_their_floor_through_the_copied_bundle(
    data: Path, tmp_path: Path, run_cli: Run, model: str
) -> None:
    config = tmp_path / "config.json"
    manifest = str(data / "cookies" / "manifest.jsonl")
    payload = {"dataset": {"manifest_path": manifest}, "model": {"name": model}}
    config.write_text(json.dumps(payload), encoding="utf-8")
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert run_cli("train", "--config", config, "--output", run).code == 0
    assert run_cli("bundle", "export", "--run", run, "--output", bundle).code == 0
    copy = tmp_path / "on the device" / "bundle"
    shutil.move(bundle, copy)
    assert runtime(["check", str(copy)]) == 0

    bench = tmp_path / "bench"
    done = run_cli("benchmark", "--run", run, "--bundle", copy, "--output", bench)
    assert done.code == 0, done.stderr
    report = json.loads((bench / "report.json").read_text("utf-8"))
    category = report["categories"]["cookies"]
    assert category["engines"]["onnx"]["image_auroc"] >= COOKIES_FLOORS[model]
    assert category["parity"]["label_flips"] == 0
    assert category["parity"]["max_rel_score_diff"] <= 1e-5
    assert category["parity"]["max_map_diff_of_range"] <= 1e-4


def test_the_tile_groups_that_stand_in_two_splits_are_refused(
    data: Path, tmp_path: Path, run_cli: Run
) -> None:
    config = tmp_path / "config.json"
    manifest = str(data / "magnetic_tile" / "manifest_conflicts.jsonl")
    payload = {"dataset": {"manifest_path": manifest}}
    config.write_text(json.dumps(payload), encoding="utf-8")
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert done.stderr.count('group "tile_') == 10
    assert not (tmp_path / "run").exists()
