"""Training: the run folder, held-out calibration, honest reports, clean failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from conftest import SMALL_OPTIONS, CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest
from pyimgano.datasets.fingerprints import fingerprint, picture_digests
from pyimgano.datasets.images import read_ahead, read_mask
from pyimgano.datasets.manifest import read_manifest
from pyimgano.datasets.rows import ManifestRow
from pyimgano.datasets.splits import folds
from pyimgano.detectors import create_detector, detector_class, load_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.thresholds import is_anomaly, p_value

REPORT_KEYS = {
    *("image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate"),
    *("pixel_auroc", "aupro_0.3", "aupro_0.05", "latency_ms", "fit_seconds"),
    *("detector", "hyper_parameters", "counts", "data_fingerprint"),
    *("image_threshold", "pixel_threshold", "pixel_metrics", "reasons", "warnings"),
}

Run = Callable[..., CommandResult]
MakeConfig = Callable[..., Path]


def report_of(folder: Path, category: str = "bracket") -> dict[str, Any]:
    report = json.loads((folder / "report.json").read_text("utf-8"))
    entry: dict[str, Any] = report["categories"][category]
    return entry


def rows_of(manifest: Path, split: str) -> list[ManifestRow]:
    return [row for row in read_manifest(manifest) if row.split == split]


def scores_of(detector: Any, rows: Sequence[ManifestRow]) -> list[float]:
    with torch.inference_mode():
        return [
            float(detector(torch.from_numpy(image[None]))[0][0])
            for image in read_ahead(rows, input_rules())
        ]


def fit_pixel_stats(rows: Sequence[ManifestRow], workspace: Path) -> Any:
    """Fit on these rows alone, without the runner."""
    context = FitContext(
        generator=torch.Generator(),
        device=torch.device("cpu"),
        workspace=workspace,
        progress=lambda step, done, total: None,
    )
    detector = create_detector("pixel_stats", SMALL_OPTIONS["pixel_stats"])
    data = RowTrainingData(rows, input_rules())
    return detector.fit(data, context=context).eval()


def files_in(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_a_run_folder_holds_exactly_what_is_documented(
    exported: Callable[[str], Exported],
) -> None:
    assert files_in(exported("pixel_stats").run) == [
        "categories/bracket/calibration.json",
        "categories/bracket/data.json",
        "categories/bracket/per_image.jsonl",
        "categories/bracket/report.json",
        "checkpoints/bracket/model.safetensors",
        "config.json",
        "environment.json",
        "report.json",
    ]


@pytest.mark.parametrize("name", sorted(SMALL_OPTIONS))
def test_the_report_has_every_key(
    name: str, exported: Callable[[str], Exported]
) -> None:
    report = report_of(exported(name).run)
    assert set(report) >= REPORT_KEYS
    assert report["counts"] == {
        "train_normals": 20,
        "train_defects": 0,
        # What trains by gradient holds a fifth out; the others score out of fold.
        "calibration": 4 if detector_class(name).trains else 20,
        "test_normals": 6,
        "test_anomalies": 6,
    }
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}


def test_every_json_of_a_run_has_a_schema_version(
    exported: Callable[[str], Exported],
) -> None:
    run = exported("pixel_stats").run
    for path in run.rglob("*.json"):
        assert "schema_version" in json.loads(path.read_text("utf-8")), path
    for line in (run / "categories/bracket/per_image.jsonl").read_text().splitlines():
        assert "schema_version" in json.loads(line)


def test_the_effective_config_trains_the_same_run(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    again = tmp_path / "again"
    done = run_cli("train", "--config", made.run / "config.json", "--output", again)
    assert done.code == 0
    checkpoint = "checkpoints/bracket/model.safetensors"
    assert (again / checkpoint).read_bytes() == (made.run / checkpoint).read_bytes()


@pytest.mark.parametrize("name", ["patchcore", "pixel_stats"])
def test_the_same_config_gives_the_same_checkpoint_and_thresholds(
    name: str,
    exported: Callable[[str], Exported],
    small_dataset: Path,
    tmp_path: Path,
    make_config: MakeConfig,
    run_cli: Run,
) -> None:
    made, again = exported(name), tmp_path / "again"
    config = make_config(small_dataset, name)
    assert run_cli("train", "--config", config, "--output", again).code == 0
    checkpoint = "checkpoints/bracket/model.safetensors"
    assert (again / checkpoint).read_bytes() == (made.run / checkpoint).read_bytes()
    first, second = (report_of(folder) for folder in (made.run, again))
    for key in ("image_threshold", "pixel_threshold", "image_auroc", "pixel_auroc"):
        assert first[key] == second[key]


def test_another_seed_gives_patchcore_another_bank(
    exported: Callable[[str], Exported],
    small_dataset: Path,
    tmp_path: Path,
    make_config: MakeConfig,
    run_cli: Run,
) -> None:
    other = tmp_path / "other"
    config = make_config(small_dataset, "patchcore", seed=1)
    assert run_cli("train", "--config", config, "--output", other).code == 0
    banks = [
        load_detector(run / "checkpoints/bracket/model.safetensors").bank
        for run in (exported("patchcore").run, other)
    ]
    assert not torch.equal(*banks)


def test_a_dry_run_prints_the_effective_config_and_writes_nothing(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = make_config(small_dataset, seed=5)
    output = tmp_path / "run"
    done = run_cli("train", "--config", config, "--output", output, "--dry-run")
    assert done.code == 0
    payload = json.loads(done.stdout)
    assert payload["seed"] == 5
    assert payload["calibration"]["target_false_alarm_rate"] == 0.01
    assert files_in(tmp_path) == ["config.json"]


def test_json_prints_the_report_and_nothing_else_on_stdout(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config, output = make_config(small_dataset), tmp_path / "run"
    done = run_cli("train", "--config", config, "--output", output, "--json")
    assert done.code == 0
    assert json.loads(done.stdout) == json.loads((output / "report.json").read_text())


def test_without_json_the_table_names_the_run_folder(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    output = tmp_path / "run"
    done = run_cli("train", "--config", make_config(small_dataset), "--output", output)
    assert "bracket" in done.stdout
    assert f"run: {output}" in done.stdout
    assert "CALIBRATION_SMALL_N" in done.stdout


# --- calibration --------------------------------------------------------------------


def test_val_rows_calibrate_where_there_are_some(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=8, n_val=9, n_test_normal=2, n_test_defect=2
    )
    calibration = {"target_false_alarm_rate": 0.1}
    config = make_config(manifest, calibration=calibration)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    run = open_run(tmp_path / "run")
    thresholds, kept = run.calibration("bracket")
    image = thresholds.provenance["image"]
    val = rows_of(manifest, "val")
    assert (image.source, image.n_images, image.approximate) == ("val", 9, False)
    assert image.fingerprint == fingerprint(picture_digests(val))
    scores = scores_of(load_detector(run.checkpoint("bracket")), val)
    assert list(kept.image_scores) == sorted(scores)
    assert image.warnings == ()
    assert not any(is_anomaly(score, thresholds.image) for score in scores)


def test_val_rows_are_not_trained_on(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=8, n_val=4, n_test_normal=2, n_test_defect=2
    )
    config = make_config(manifest)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    run, train = open_run(tmp_path / "run"), rows_of(manifest, "train")
    expected = fit_pixel_stats(train, tmp_path).state_dict()
    found = load_detector(run.checkpoint("bracket")).state_dict()
    assert all(torch.equal(expected[key], value) for key, value in found.items())
    report = report_of(run.folder)
    assert report["counts"]["train_normals"] == 8
    assert report["data_fingerprint"] == fingerprint(picture_digests(train))


def test_without_val_rows_each_normal_is_scored_by_a_model_that_never_saw_its_group(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=12, n_test_normal=2, n_test_defect=2, size=(64, 64)
    )
    rows = read_rows(manifest)
    for index, row in enumerate(r for r in rows if r["split"] == "train"):
        row["group_id"] = f"part-{index // 2}"
    write_manifest(manifest, rows)
    config = make_config(manifest, calibration={"folds": 3})
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    thresholds, kept = open_run(tmp_path / "run").calibration("bracket")

    train = rows_of(manifest, "train")
    expected = []
    for part in folds([row.group for row in train], n_folds=3, seed=0):
        held = {train[index].group for index in part}
        others = [row for row in train if row.group not in held]
        detector = fit_pixel_stats(others, tmp_path)
        expected += scores_of(detector, [train[index] for index in part])
    image = thresholds.provenance["image"]
    assert (image.source, image.n_images, image.n_groups) == ("kfold_pooled", 12, 6)
    assert image.approximate
    np.testing.assert_allclose(kept.image_scores, sorted(expected), rtol=1e-5)


def test_a_fixed_threshold_is_taken_as_it_is(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    calibration = {"method": "fixed", "threshold": 2.5, "pixel_threshold": 3.0}
    config = make_config(small_dataset, calibration=calibration)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    thresholds, kept = open_run(tmp_path / "run").calibration("bracket")
    assert (thresholds.image, thresholds.pixel) == (2.5, 3.0)
    assert thresholds.provenance["image"].method == "fixed"
    assert kept.image_scores == ()


def test_one_part_without_val_rows_is_refused_before_any_work(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=1, n_test_normal=1, n_test_defect=1, size=(32, 32)
    )
    done = run_cli(
        *("train", "--config", make_config(manifest)), "--output", tmp_path / "run"
    )
    assert done.code == 2
    assert '"fixed" with a threshold' in done.stderr
    assert not (tmp_path / "run").exists()


# --- evaluation ---------------------------------------------------------------------


def per_image(run: Path) -> list[dict[str, Any]]:
    text = (run / "categories/bracket/per_image.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_every_test_picture_has_a_row_judged_by_the_threshold(
    exported: Callable[[str], Exported],
) -> None:
    made = exported("pixel_stats")
    thresholds, kept = open_run(made.run).calibration("bracket")
    rows = per_image(made.run)
    test = rows_of(made.manifest, "test")
    assert [row["input"] for row in rows] == [row.image for row in test]
    assert [row["label_true"] for row in rows] == [row.label for row in test]
    for row in rows:
        flagged = is_anomaly(row["score"], thresholds.image)
        assert row["label"] == ("anomaly" if flagged else "normal")
        assert row["p_value"] == p_value(row["score"], kept.image_scores)
        assert row["ok"] is True


def test_image_metrics_are_those_of_the_rows(
    exported: Callable[[str], Exported],
) -> None:
    made = exported("pixel_stats")
    report, rows = report_of(made.run), per_image(made.run)
    labels = np.array([row["label_true"] for row in rows])
    flagged = np.array([row["label"] == "anomaly" for row in rows])
    scores = [row["score"] for row in rows]
    assert report["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
    assert report["recall"] == pytest.approx(flagged[labels == 1].mean())
    assert report["false_alarm_rate"] == pytest.approx(flagged[labels == 0].mean())


def test_pixel_metrics_are_those_of_the_maps_at_mask_size(
    exported: Callable[[str], Exported],
) -> None:
    made = exported("pixel_stats")
    detector = load_detector(made.run / "checkpoints/bracket/model.safetensors")
    test, rules = rows_of(made.manifest, "test"), input_rules()
    values, truth = [], []
    for row, image in zip(test, read_ahead(test, rules), strict=True):
        size = (image.shape[0], image.shape[1])
        with torch.inference_mode():
            _, maps = detector(torch.from_numpy(image[None]))
        values.append(map_to_image(maps[0].numpy(), size).ravel())
        mask = read_mask(row.mask_path, size, rules)
        truth.append((np.zeros(size, np.bool_) if mask is None else mask).ravel())
    expected = roc_auc_score(np.concatenate(truth), np.concatenate(values))
    # Pixels are counted in bins of the map's values.
    assert report_of(made.run)["pixel_auroc"] == pytest.approx(expected, abs=1e-3)


def test_without_masks_pixel_metrics_are_off_with_the_reason(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=6, n_test_normal=2, n_test_defect=2, size=(32, 32)
    )
    rows = [row | {"mask_path": None} for row in read_rows(manifest)]
    config = make_config(write_manifest(manifest, rows))
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 0
    report = report_of(tmp_path / "run")
    assert report["pixel_auroc"] is None
    reason = "none of the 2 test anomalies has a mask"
    assert report["pixel_metrics"]["reason"] == reason
    assert report["reasons"]["pixel_auroc"] == reason
    assert reason in done.stdout


def test_without_test_rows_a_run_is_made_and_says_what_was_not_measured(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=6, n_test_normal=0, n_test_defect=0, size=(32, 32)
    )
    config = make_config(manifest)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    report = report_of(tmp_path / "run")
    assert report["image_auroc"] is None
    assert report["latency_ms"] is None
    assert "image_auroc" in report["reasons"]


def test_a_mask_of_another_size_is_refused_with_both_sizes(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=6, n_test_normal=2, n_test_defect=1, size=(32, 48)
    )
    other = write_dataset(
        tmp_path / "other", n_train=0, n_test_normal=0, n_test_defect=1, size=(40, 48)
    )
    (mask,) = [row["mask_path"] for row in read_rows(manifest) if row["mask_path"]]
    (manifest.parent / mask).write_bytes((other.parent / mask).read_bytes())
    config = make_config(manifest)
    done = run_cli("train", "--config", config, "--output", tmp_path / "run")
    assert done.code == 2
    assert "mask is 40x48, its picture is 32x48" in done.stderr
    assert not (tmp_path / "run").exists()


def test_grey_levels_above_half_are_defect(tmp_path: Path) -> None:
    levels = np.array([[0, 127], [128, 255]], np.uint8)
    np.save(tmp_path / "mask.npy", levels)
    mask = read_mask(tmp_path / "mask.npy", (2, 2), input_rules())
    assert mask is not None
    assert mask.tolist() == [[False, False], [True, True]]


# --- categories ---------------------------------------------------------------------


def two_categories(folder: Path, names: tuple[str, str]) -> Path:
    rows = []
    for number, name in enumerate(names):
        manifest = write_dataset(
            folder / f"set{number}",
            n_train=5,
            n_test_normal=2,
            n_test_defect=1,
            size=(32, 32),
            seed=number,
        )
        for row in read_rows(manifest):
            for key in ("image_path", "mask_path"):
                if row[key]:
                    row[key] = f"set{number}/{row[key]}"
            rows.append(row | {"category": name})
    return write_manifest(folder / "manifest.jsonl", rows)


def test_every_category_gets_a_folder_that_any_file_system_can_hold(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = two_categories(tmp_path / "data", ("con", "left/../right ü"))
    config = make_config(manifest)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    run = open_run(tmp_path / "run")
    assert run.categories == ["con", "left/../right ü"]
    for name in run.categories:
        assert run.checkpoint(name).is_file()
        assert run.category_folder(name).parent == run.folder / "categories"
    assert run.category_folder("con").name != "con"  # a device on Windows


def test_only_the_wanted_category_is_trained(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = two_categories(tmp_path / "data", ("one", "two"))
    dataset = {"manifest_path": str(manifest), "categories": ["two"]}
    config = make_config(manifest, dataset=dataset)
    assert run_cli("train", "--config", config, "--output", tmp_path / "run").code == 0
    assert open_run(tmp_path / "run").categories == ["two"]


# --- complete or absent -------------------------------------------------------------


def kill_while_training(config: Path, output: Path, *more: str) -> None:
    """Start a training in a process of its own and kill it in the middle."""
    unfinished = output.with_name(f".{output.name}.new")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pyimgano.cli", "train", "--config", str(config)),
            *("--output", str(output), *more),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    end = time.monotonic() + 120
    while not unfinished.exists() and time.monotonic() < end:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_training_leaves_no_run_and_the_next_one_succeeds(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config, output = make_config(small_dataset), tmp_path / "run"
    kill_while_training(config, output)
    assert not output.exists()
    again = run_cli("train", "--config", config, "--output", output, "--force")
    assert again.code == 0, again.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "run"]


def test_a_training_killed_before_its_first_file_leaves_nothing_in_the_way(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config, output = make_config(small_dataset), tmp_path / "run"
    begun = tmp_path / ".run.work"
    begun.mkdir()
    (begun / ".work.json.4711.new").write_text('{"half')
    done = run_cli("train", "--config", config, "--output", output)
    assert done.code == 0, done.stderr
    assert not begun.exists()


def test_a_killed_replacement_leaves_the_old_run(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config, output = make_config(small_dataset), tmp_path / "run"
    assert run_cli("train", "--config", config, "--output", output).code == 0
    before = (output / "report.json").read_bytes()
    kill_while_training(config, output, "--force")
    assert (output / "report.json").read_bytes() == before
    assert open_run(output).categories == ["bracket"]


def test_force_replaces_a_run_and_keeps_nothing_of_it(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config, output = make_config(small_dataset), tmp_path / "run"
    output.mkdir()
    (output / "report.json").write_text("{}")
    (output / "of_the_old_one.txt").write_text("x")
    done = run_cli("train", "--config", config, "--output", output, "--force")
    assert done.code == 0
    assert "of_the_old_one.txt" not in files_in(output)
    assert "report.json" in files_in(output)
