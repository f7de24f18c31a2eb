"""What was trained is what is exported and compared: changed data is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult
from factories import read_rows, write_dataset, write_manifest
from pyimgano.detectors import create_detector
from pyimgano_runtime.errors import ConfigError

Run = Callable[..., CommandResult]


@pytest.fixture
def trained(
    tmp_path: Path, make_config: Callable[..., Path], run_cli: Run
) -> tuple[Path, Path]:
    """A manifest and the run that was trained on it."""
    manifest = write_dataset(
        tmp_path / "data", n_train=6, n_test_normal=3, n_test_defect=3
    )
    run = tmp_path / "run"
    done = run_cli("train", "--config", make_config(manifest), "--output", run)
    assert done.code == 0, done.stderr
    return manifest, run


def test_export_refuses_a_manifest_that_changed_since_training(
    trained: tuple[Path, Path], tmp_path: Path, run_cli: Run
) -> None:
    manifest, run = trained
    rows = read_rows(manifest)
    rows[0]["split"] = "test"
    write_manifest(manifest, rows)
    done = run_cli("bundle", "export", "--run", run, "--output", tmp_path / "bundle")
    assert done.code == 2
    assert f"1 train pictures changed: {rows[0]['image_path']} is gone" in done.stderr
    assert not (tmp_path / "bundle").exists()


def test_export_refuses_a_picture_whose_bytes_changed(
    trained: tuple[Path, Path], tmp_path: Path, run_cli: Run
) -> None:
    manifest, run = trained
    rows = read_rows(manifest)
    first, second = (manifest.parent / rows[i]["image_path"] for i in (0, 1))
    first.write_bytes(second.read_bytes())
    done = run_cli("bundle", "export", "--run", run, "--output", tmp_path / "bundle")
    assert done.code == 2
    assert f"{rows[0]['image_path']} has other bytes" in done.stderr


def test_export_refuses_a_manifest_that_lost_a_category(
    trained: tuple[Path, Path], tmp_path: Path, run_cli: Run
) -> None:
    manifest, run = trained
    rows = [row | {"category": "other"} for row in read_rows(manifest)]
    write_manifest(manifest, rows)
    done = run_cli("bundle", "export", "--run", run, "--output", tmp_path / "bundle")
    assert done.code == 2
    assert "does not hold this category any more" in done.stderr


def test_benchmark_refuses_test_pictures_that_trained(
    trained: tuple[Path, Path], tmp_path: Path, run_cli: Run
) -> None:
    manifest, run = trained
    bundle = tmp_path / "bundle"
    assert run_cli("bundle", "export", "--run", run, "--output", bundle).code == 0
    rows = read_rows(manifest)
    rows[0]["split"] = "test"
    other = manifest.with_name("other.jsonl")
    write_manifest(other, rows)
    done = run_cli(
        *("benchmark", "--run", run, "--bundle", bundle, "--manifest-path", other),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 2
    assert "1 test pictures were trained or calibrated on" in done.stderr
    assert not (tmp_path / "bench").exists()


def test_a_category_named_like_markup_is_shown_as_it_is(
    tmp_path: Path, make_config: Callable[..., Path], run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=4, n_test_normal=1, n_test_defect=1
    )
    rows = [row | {"category": "a[/b]"} for row in read_rows(manifest)]
    write_manifest(manifest, rows)
    done = run_cli(
        "train", "--config", make_config(manifest), "--output", tmp_path / "r"
    )
    assert done.code == 0, done.stderr
    assert "a[/b]" in done.stdout


def test_a_threshold_beyond_float32_is_refused_before_the_fit(
    trained: tuple[Path, Path], tmp_path: Path, run_cli: Run
) -> None:
    config = json.loads((trained[1] / "config.json").read_text("utf-8"))
    config["calibration"] |= {"method": "fixed", "threshold": 1e39}
    path = tmp_path / "fixed.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    done = run_cli("train", "--config", path, "--output", tmp_path / "fixed")
    assert done.code == 2
    assert "calibration.threshold: found 1e+39" in done.stderr


def test_patchcore_refuses_more_neighbours_than_its_bank_has() -> None:
    with pytest.raises(ConfigError, match="neighbours: found 3, expected fewer than"):
        create_detector("patchcore", {"neighbours": 3, "bank_size": 2})
