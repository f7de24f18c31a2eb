"""Preflight and training of data sets in folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import CommandResult
from factories import texture_image
from pyimgano.datasets.catalog import LAYOUTS, DataSource, list_dataset_categories
from pyimgano.workbench.config import load_config
from pyimgano.workbench.preflight import (
    PreflightPlan,
    PreflightReport,
    examine,
    run_preflight,
)

Run = Callable[..., CommandResult]


def draw(folder: Path, n: int, *, seed: int) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        picture = texture_image(rng, size=(48, 48))
        assert cv2.imwrite(str(folder / f"{number:03}.png"), picture)


@pytest.fixture
def custom_root(tmp_path: Path) -> Path:
    root = tmp_path / "bolts"
    draw(root / "train/good", 8, seed=0)
    draw(root / "test/good", 2, seed=1)
    draw(root / "test/dent", 2, seed=2)
    (root / "ground_truth/dent").mkdir(parents=True)
    for number in range(2):
        mask = np.zeros((48, 48), np.uint8)
        mask[10:20, 10:20] = 255
        cv2.imwrite(str(root / f"ground_truth/dent/{number:03}_mask.png"), mask)
    return root


def preflight(dataset: str, root: Path | None, *categories: str) -> PreflightReport:
    source = DataSource(dataset, root=root)
    return examine(PreflightPlan(source=source, categories=categories)).report


def codes(report: PreflightReport, severity: str = "error") -> list[str]:
    return [issue.code for issue in report.issues if issue.severity == severity]


def test_a_custom_folder_is_read_and_counted(custom_root: Path) -> None:
    report = preflight("custom", custom_root)
    assert not report.has_errors
    assert report.dataset == "custom"
    counts = report.summary["categories"]["bolts"]["counts"]
    assert counts["assigned"] == {"train": 8, "val": 0, "test": 4}
    assert report.summary["mask_coverage"]["assigned_test"]["share"] == 1.0
    assert report.summary["content"]["decoded"] == 12


def test_pictures_of_folders_are_decoded_too(custom_root: Path) -> None:
    path = custom_root / "train/good/003.png"
    path.write_bytes(path.read_bytes()[:200])
    report = preflight("custom", custom_root)
    assert codes(report) == ["IMAGE_TRUNCATED"]
    assert report.issues[0].context["image"] == "train/good/003.png"


def test_a_structure_that_is_none_says_what_is_expected(custom_root: Path) -> None:
    (custom_root / "train").rename(custom_root / "teach")
    report = preflight("custom", custom_root)
    assert "DATASET_INVALID_STRUCTURE" in codes(report)
    assert any("<root>/train/good/" in issue.message for issue in report.issues)


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_a_missing_root_is_said(dataset: str, tmp_path: Path) -> None:
    assert codes(preflight(dataset, tmp_path / "gone")) == ["DATASET_ROOT_MISSING"]
    assert codes(preflight(dataset, None)) == ["DATASET_ROOT_MISSING"]


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_an_empty_root_has_no_category(dataset: str, tmp_path: Path) -> None:
    assert codes(preflight(dataset, tmp_path)) == ["DATASET_CATEGORY_EMPTY"]


def test_an_unknown_category_is_one_issue_that_lists_the_known(
    custom_root: Path,
) -> None:
    report = preflight("custom", custom_root, "bolt")
    assert codes(report) == ["DATASET_CATEGORY_EMPTY"]
    assert report.issues[0].context["known"] == ["bolts"]
    assert report.issues[0].context["suggestion"] == "bolts"


def test_an_unknown_kind_of_data_set_suggests_a_known_one(tmp_path: Path) -> None:
    report = preflight("mvtek", tmp_path)
    assert codes(report) == ["DATASET_UNKNOWN"]
    assert report.issues[0].context["suggestion"] == "mvtec"


@pytest.fixture
def folder_config(tmp_path: Path) -> Callable[..., Path]:
    def make(**dataset: Any) -> Path:
        path = tmp_path / "config.json"
        payload = {
            "device": "cpu",
            "dataset": dataset,
            "model": {"name": "pixel_stats", "options": {"image_size": [48, 48]}},
            "evaluation": {"bootstrap_resamples": 0},
        }
        path.write_text(json.dumps(payload), encoding="utf-8")
        return path

    return make


def test_a_config_names_the_layout(
    folder_config: Callable[..., Path], custom_root: Path
) -> None:
    loaded = load_config(folder_config(name="custom", root="bolts"))
    assert not run_preflight(loaded).has_errors
    assert list_dataset_categories("custom", custom_root) == ["bolts"]


def test_a_config_with_an_unknown_kind_is_an_issue(
    folder_config: Callable[..., Path],
) -> None:
    report = run_preflight(load_config(folder_config(name="mvtek", root=".")))
    assert codes(report) == ["DATASET_UNKNOWN"]


def test_a_folder_is_trained_exported_and_benchmarked(
    folder_config: Callable[..., Path], custom_root: Path, tmp_path: Path, run_cli: Run
) -> None:
    config = folder_config(name="custom", root=str(custom_root))
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    assert run_cli("train", "--config", config, "--output", run).code == 0
    export = run_cli("bundle", "export", "--run", run, "--output", bundle)
    assert export.code == 0
    done = run_cli(
        *("benchmark", "--run", run, "--bundle", bundle),
        *("--output", tmp_path / "bench", "--json"),
    )
    assert done.code == 0
    report = json.loads(done.stdout)
    assert report["dataset"] == "custom"
    assert report["categories"]["bolts"]["dataset_summary"]["test"] == 4
    rows = (tmp_path / "bench/categories/bolts/per_image.jsonl").read_text("utf-8")
    first = json.loads(rows.splitlines()[0])
    assert first["input"] == "test/dent/000.png"
    assert first["meta"] == {"defect": "dent"}


def test_training_refuses_a_broken_folder(
    folder_config: Callable[..., Path], custom_root: Path, tmp_path: Path, run_cli: Run
) -> None:
    config = folder_config(name="custom", root=str(custom_root), categories=["nuts"])
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert 'no category "nuts"' in done.stderr
    assert not (tmp_path / "run").exists()
