"""The benchmark's report says which pictures it stands on, and what was skipped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]
Benchmark = Callable[[Path], dict[str, Any]]
QUICK = (
    *("--model", "pixel_stats", "--model-options", '{"image_size": [32, 32]}'),
    "--no-process-costs",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a benchmark's folder, with run and bundle that other test rows judge."""
    from pyimgano.cli import main

    folder = tmp_path_factory.mktemp("trained")
    manifest = write_dataset(folder / "data", n_val=3, size=(32, 32))
    command = ["benchmark", "--manifest-path", str(manifest), *QUICK]
    assert main([*command, "--compare", "onnx", "--output", str(folder / "out")]) == 0
    return folder / "out"


@pytest.fixture
def benchmark(trained: Path, tmp_path: Path, run_cli: Run) -> Benchmark:
    def run(manifest: Path) -> dict[str, Any]:
        done = run_cli(
            *("benchmark", "--run", trained / "run", "--bundle", trained / "bundle"),
            *("--manifest-path", manifest, "--no-process-costs", "--json"),
            *("--compare", "onnx", "--output", tmp_path / "bench"),
        )
        assert done.code == 0, done.stderr
        category: dict[str, Any] = json.loads(done.stdout)["categories"]["bracket"]
        return category

    return run


def test_the_summary_counts_every_use(trained: Path) -> None:
    report = json.loads((trained / "report.json").read_text("utf-8"))
    assert report["categories"]["bracket"]["dataset_summary"] == {
        "train": 12,
        "calibration": 3,
        "test": 8,
        "test_normals": 4,
        "test_anomalies": 4,
        "test_anomaly_ratio": 0.5,
        "pixel_metrics": {
            "enabled": True,
            "reason": None,
            "anomalies_with_mask": 4,
            "anomalies_without_mask": 0,
            "anomalies_with_empty_mask": 0,
        },
    }


def _without_masks(manifest: Path, count: int) -> Path:
    rows = read_rows(manifest)
    bad = [row for row in rows if row["label"]]
    for row in bad[:count]:
        row["mask_path"] = None
    return write_manifest(manifest, rows)


def test_without_masks_the_reason_stands_at_every_pixel_metric(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    category = benchmark(_without_masks(manifest, 4))
    reason = "none of the 4 test anomalies has a mask"
    assert category["dataset_summary"]["pixel_metrics"]["reason"] == reason
    onnx = category["engines"]["onnx"]
    for key in ("pixel_auroc", "aupro_0.3", "aupro_0.05", "seg_f1", "oracle_seg_f1"):
        assert onnx[key] is None
        assert onnx["reasons"][key] == reason
    assert onnx["image_auroc"] is not None


def test_masks_for_some_are_used_and_the_others_counted(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    category = benchmark(_without_masks(manifest, 1))
    pixels = category["dataset_summary"]["pixel_metrics"]
    assert (pixels["anomalies_with_mask"], pixels["anomalies_without_mask"]) == (3, 1)
    assert category["engines"]["onnx"]["pixel_images"] == 7  # 4 normals, 3 anomalies


def test_a_category_without_anomalies_says_what_cannot_be_measured(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    manifest = write_dataset(tmp_path / "data", n_test_defect=0, size=(32, 32))
    category = benchmark(manifest)
    onnx = category["engines"]["onnx"]
    assert onnx["image_auroc"] is onnx["recall"] is None
    assert "found 4 normal and 0 anomalous" in onnx["reasons"]["image_auroc"]
    assert onnx["false_alarm_rate"] is not None
    assert category["pixel_metrics"]["reason"] == "the test rows hold no anomalies"


def test_a_category_without_test_normals_says_what_cannot_be_measured(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    manifest = write_dataset(tmp_path / "data", n_test_normal=0, size=(32, 32))
    onnx = benchmark(manifest)["engines"]["onnx"]
    assert onnx["image_auroc"] is onnx["false_alarm_rate"] is None
    assert onnx["oracle_recall_at_promise"] is None
    assert onnx["recall"] is not None


def test_one_test_picture_is_enough_for_a_report(
    tmp_path: Path, benchmark: Benchmark
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_test_normal=0, n_test_defect=1, size=(32, 32)
    )
    category = benchmark(manifest)
    assert category["dataset_summary"]["test"] == 1
    assert category["engines"]["onnx"]["latency_ms"]["p50"] > 0


def test_a_category_without_test_rows_is_refused(
    trained: Path, tmp_path: Path, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_test_normal=0, n_test_defect=0, size=(32, 32)
    )
    done = run_cli(
        *("benchmark", "--run", trained / "run", "--bundle", trained / "bundle"),
        *("--manifest-path", manifest, "--no-process-costs"),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 2
    assert "bracket: no test rows to compare on" in done.stderr
    assert not (tmp_path / "bench").exists()


def test_the_summary_is_that_of_training(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle, "--json"),
        *("--compare", "onnx", "--output", tmp_path / "bench"),
    )
    category = json.loads(done.stdout)["categories"]["bracket"]
    report = json.loads((made.run / "report.json").read_text("utf-8"))
    trained = report["categories"]["bracket"]
    assert category["dataset_summary"] == trained["dataset_summary"]
    assert category["split_fingerprint"] == trained["split_fingerprint"]
