"""`train --export-infer-config` and `--export-bundle`: complete, portable, sourced."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from pyimgano.workbench.artifacts import open_run
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.check import check_bundle

Run = Callable[..., CommandResult]


@pytest.fixture
def payload(two_parts: Exported) -> dict[str, Any]:
    """The exported document of a run with two categories."""
    path = two_parts.run / "artifacts" / "infer_config.json"
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


def test_checkpoints_are_named_relative_with_their_hash(
    two_parts: Exported, payload: dict[str, Any]
) -> None:
    for name, category in payload["categories"].items():
        written = category["checkpoint"]["path"]
        assert written == f"../checkpoints/{name}/model.safetensors"
        data = (two_parts.run / "artifacts" / written).read_bytes()
        assert category["checkpoint"]["sha256"] == hashlib.sha256(data).hexdigest()


def test_nothing_in_the_document_names_a_place_of_this_machine(
    two_parts: Exported, payload: dict[str, Any]
) -> None:
    text = json.dumps(payload, ensure_ascii=False)
    assert str(two_parts.run.parent) not in text
    assert str(Path.home()) not in text


def test_every_threshold_says_where_it_comes_from(payload: dict[str, Any]) -> None:
    for category in payload["categories"].values():
        for kind in ("image", "pixel"):
            provenance = category["thresholds"]["provenance"][kind]
            assert provenance["method"] == "conformal"
            assert provenance["source"] == "kfold_pooled"
            assert provenance["requested_false_alarm_rate"] == 0.01
            assert provenance["used_false_alarm_rate"] == pytest.approx(1 / 13)
            assert provenance["n_images"] == provenance["n_groups"] == 12
            assert len(provenance["fingerprint"]) == 64
            assert provenance["bounds"]["by_images"][0] == 0.0


def test_thresholds_and_scores_are_those_of_the_run(
    two_parts: Exported, payload: dict[str, Any]
) -> None:
    run = open_run(two_parts.run)
    for name, category in payload["categories"].items():
        thresholds, calibration = run.calibration(name)
        assert category["thresholds"]["image"] == thresholds.image
        assert category["thresholds"]["pixel"] == thresholds.pixel
        scores = category["calibration"]["image_scores"]
        assert scores == list(calibration.image_scores)


def test_the_model_is_named_with_every_hyper_parameter(payload: dict[str, Any]) -> None:
    assert payload["model"] == {
        "name": "pixel_stats",
        "preset": None,
        "options": {
            "image_size": [64, 64],
            "geometry": "letterbox",
            "smoothing_px": 1.0,
            "spread_px": 3.0,
            "sigma_px": 2.0,
        },
    }
    assert payload["device"] == "cpu"


def test_the_bundle_beside_it_passes_its_check(two_parts: Exported) -> None:
    assert check_bundle(open_bundle(two_parts.bundle)).ok


def test_without_the_flags_nothing_is_exported(
    run_cli: Run, make_config: Callable[..., Path], small_dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = make_config(small_dataset)
    assert run_cli("train", "--config", config, "--output", run).code == 0
    assert not (run / "artifacts").exists()
    assert not (run / "bundle").exists()


def test_both_exports_are_named_on_the_screen_and_json_stays_json(
    run_cli: Run, make_config: Callable[..., Path], small_dataset: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = make_config(small_dataset)
    flags = ["--export-infer-config", "--export-bundle", "--json"]
    done = run_cli("train", "--config", config, "--output", run, *flags)
    assert done.code == 0
    assert json.loads(done.stdout)["detector"] == "pixel_stats"
    assert f"infer config: {run / 'artifacts' / 'infer_config.json'}" in done.stderr
    assert f"bundle: {run / 'bundle'}" in done.stderr
    digest = hashlib.sha256((run / "bundle" / "infer_config.json").read_bytes())
    assert f"sha256 of infer_config.json: {digest.hexdigest()}" in done.stderr


@pytest.mark.parametrize("flag", ["--dry-run", "--preflight"])
def test_nothing_can_be_exported_where_nothing_is_trained(
    flag: str, run_cli: Run, make_config: Callable[..., Path], small_dataset: Path
) -> None:
    config = make_config(small_dataset)
    done = run_cli("train", "--config", config, flag, "--export-bundle")
    assert done.code == 2
    assert "nothing is trained" in done.stderr


def test_a_preset_is_recorded_and_its_options_are_used(
    run_cli: Run, make_config: Callable[..., Path], small_dataset: Path, tmp_path: Path
) -> None:
    model = {"name": "pixel_stats", "preset": "fast", "options": {"sigma_px": 1.5}}
    config = make_config(small_dataset, model=model)
    run = tmp_path / "run"
    command = ["train", "--config", config, "--output", run, "--export-infer-config"]
    assert run_cli(*command).code == 0
    document = json.loads((run / "artifacts" / "infer_config.json").read_text("utf-8"))
    assert document["model"]["preset"] == "fast"
    assert document["model"]["options"]["image_size"] == [64, 64]
    assert document["model"]["options"]["sigma_px"] == 1.5


def test_an_unknown_preset_is_refused_with_the_one_that_was_meant(
    run_cli: Run, make_config: Callable[..., Path], small_dataset: Path, tmp_path: Path
) -> None:
    config = make_config(small_dataset, model={"name": "pixel_stats", "preset": "fats"})
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert 'no preset "fats" (did you mean "fast"?)' in done.stderr
