"""Reports say how many pictures trained, calibrated and tested, and what counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]
Train = Callable[..., dict[str, Any]]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_dataset(
        tmp_path / "data", n_train=6, n_test_normal=3, n_test_defect=4, size=(32, 32)
    )


@pytest.fixture
def summary_of(run_cli: Run, make_config: Callable[..., Path], tmp_path: Path) -> Train:
    """Give a function that trains and gives the summary of the only category."""

    def train(manifest: Path, **blocks: Any) -> dict[str, Any]:
        config = make_config(manifest, **blocks)
        run = tmp_path / "run"
        assert run_cli("train", "--config", config, "--output", run).code == 0
        report = json.loads((run / "report.json").read_text("utf-8"))
        (category,) = report["categories"].values()
        alone = json.loads((run / "categories/bracket/report.json").read_text("utf-8"))
        assert alone["dataset_summary"] == category["dataset_summary"]
        summary: dict[str, Any] = category["dataset_summary"]
        return summary

    return train


def change(manifest: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = read_rows(manifest)
    edit(rows)
    write_manifest(manifest, rows)


def test_a_full_summary(summary_of: Train, manifest: Path) -> None:
    assert summary_of(manifest) == {
        "train": 6,
        "calibration": 6,
        "test": 7,
        "test_normals": 3,
        "test_anomalies": 4,
        "test_anomaly_ratio": 4 / 7,
        "pixel_metrics": {
            "enabled": True,
            "reason": None,
            "anomalies_with_mask": 4,
            "anomalies_without_mask": 0,
            "anomalies_with_empty_mask": 0,
        },
    }


def test_val_rows_are_what_calibrates(summary_of: Train, manifest: Path) -> None:
    change(manifest, lambda rows: [row.update(split="val") for row in rows[:2]])
    summary = summary_of(manifest)
    assert (summary["train"], summary["calibration"]) == (4, 2)


def test_anomalies_without_a_mask_are_left_out_with_both_counts(
    summary_of: Train, manifest: Path
) -> None:
    change(manifest, lambda rows: rows[-1].update(mask_path=None))
    pixel = summary_of(manifest)["pixel_metrics"]
    assert pixel["enabled"]
    assert (pixel["anomalies_with_mask"], pixel["anomalies_without_mask"]) == (3, 1)


def test_an_anomaly_with_an_empty_mask_is_left_out_and_counted(
    summary_of: Train, manifest: Path
) -> None:
    mask = manifest.parent / read_rows(manifest)[-1]["mask_path"]
    assert cv2.imwrite(str(mask), np.zeros((32, 32), np.uint8))
    pixel = summary_of(manifest)["pixel_metrics"]
    assert pixel["enabled"]
    assert (pixel["anomalies_with_mask"], pixel["anomalies_with_empty_mask"]) == (3, 1)


def test_without_any_mask_pixel_metrics_are_off_and_say_why(
    summary_of: Train, manifest: Path
) -> None:
    change(manifest, lambda rows: [row.update(mask_path=None) for row in rows])
    pixel = summary_of(manifest)["pixel_metrics"]
    assert not pixel["enabled"]
    assert pixel["reason"] == "none of the 4 test anomalies has a mask"


def test_with_empty_masks_only_pixel_metrics_are_off_and_say_why(
    summary_of: Train, manifest: Path
) -> None:
    for row in read_rows(manifest):
        if row["mask_path"]:
            path = manifest.parent / row["mask_path"]
            assert cv2.imwrite(str(path), np.zeros((32, 32), np.uint8))
    pixel = summary_of(manifest)["pixel_metrics"]
    assert not pixel["enabled"]
    assert pixel["reason"] == "all 4 masks of test anomalies are empty"


def test_switched_off_pixel_metrics_say_so(summary_of: Train, manifest: Path) -> None:
    evaluation = {"pixel_metrics": False, "bootstrap_resamples": 0}
    pixel = summary_of(manifest, evaluation=evaluation)["pixel_metrics"]
    assert pixel["reason"] == "evaluation.pixel_metrics is false"


def test_without_test_rows_there_is_no_ratio(summary_of: Train, manifest: Path) -> None:
    write_manifest(manifest, read_rows(manifest)[:6])
    change(manifest, lambda rows: [row.update(split="train") for row in rows])
    summary = summary_of(manifest)
    assert summary["test"] == 0
    assert summary["test_anomaly_ratio"] is None


def test_the_benchmark_carries_the_same_summary(
    exported: Callable[[str], Exported], run_cli: Run, tmp_path: Path
) -> None:
    made = exported("pixel_stats")
    trained = json.loads((made.run / "report.json").read_text("utf-8"))
    (category,) = trained["categories"].values()
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle),
        *("--output", tmp_path / "bench", "--json"),
    )
    assert done.code == 0
    (compared,) = json.loads(done.stdout)["categories"].values()
    assert compared["dataset_summary"] == category["dataset_summary"]


def test_meta_of_the_manifest_comes_back_in_the_rows(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path, tmp_path: Path
) -> None:
    change(manifest, lambda rows: rows[-1].update(meta={"shift": "night", "n": 3}))
    run = tmp_path / "run"
    run_cli("train", "--config", make_config(manifest), "--output", run)
    lines = (run / "categories/bracket/per_image.jsonl").read_text("utf-8")
    metas = [json.loads(line)["meta"] for line in lines.splitlines()]
    assert {"shift": "night", "n": 3} in metas
