"""Training with every method: provenance, refusals before any work, the report."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CommandResult
from factories import read_rows, write_dataset, write_manifest
from pyimgano.datasets.fingerprints import fingerprint, picture_digests
from pyimgano.datasets.images import read_ahead
from pyimgano.datasets.manifest import read_manifest
from pyimgano.detectors import load_detector
from pyimgano.workbench.artifacts import Run, open_run
from pyimgano.workbench.config import load_config
from pyimgano.workbench.runner import input_rules
from pyimgano_runtime.binomial_bounds import clopper_pearson
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.calibration import MAP_TOLERANCE_OF_RANGE, threshold_above
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.thresholds import is_anomaly

MakeConfig = Callable[..., Path]
Train = Callable[..., CommandResult]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_dataset(
        tmp_path / "data",
        n_train=10,
        n_val=10,
        n_test_normal=6,
        n_test_defect=4,
        size=(48, 48),
    )


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """Other parts: 6 normals and 6 defects, beside the config."""
    manifest = write_dataset(
        tmp_path / "labelled",
        n_train=0,
        n_test_normal=6,
        n_test_defect=6,
        size=(48, 48),
        seed=77,
        with_splits=False,
    )
    rows = read_rows(manifest)
    return write_manifest(
        manifest, [row | {"group_id": f"other-{row['group_id']}"} for row in rows]
    )


@pytest.fixture
def train(
    tmp_path: Path, make_config: MakeConfig, run_cli: Callable[..., CommandResult]
) -> Train:
    def run(manifest: Path, **calibration: Any) -> CommandResult:
        config = make_config(manifest, calibration=calibration)
        return run_cli("train", "--config", config, "--output", tmp_path / "run")

    return run


def trained(tmp_path: Path) -> Run:
    return open_run(tmp_path / "run")


def report_of(run: Run) -> dict[str, Any]:
    entry: dict[str, Any] = run.report["categories"]["bracket"]
    return entry


def scored(run: Run, rows: Iterable[Any]) -> tuple[list[float], list[Any]]:
    """Scores and maps by the trained detector."""
    detector = load_detector(run.checkpoint("bracket"))
    scores, maps = [], []
    with torch.inference_mode():
        for image in read_ahead(list(rows), input_rules()):
            score, anomaly_map = detector(torch.from_numpy(image[None]))
            scores.append(float(score[0]))
            maps.append(anomaly_map[0].numpy())
    return scores, maps


def rows_of(manifest: Path, split: str) -> list[Any]:
    return [row for row in read_manifest(manifest) if row.split == split]


# --- quantile, contamination --------------------------------------------------------


@pytest.mark.parametrize(
    ("calibration", "rank"),
    [
        ({"method": "quantile", "quantile": 0.8}, 8),
        ({"method": "contamination", "contamination": 0.3}, 7),
    ],
)
def test_quantiles_of_val_normals(
    manifest: Path, tmp_path: Path, train: Train, calibration: Any, rank: int
) -> None:
    assert train(manifest, **calibration).code == 0
    run = trained(tmp_path)
    thresholds, kept = run.calibration("bracket")
    scores, maps = scored(run, rows_of(manifest, "val"))
    assert thresholds.image == threshold_above(sorted(scores)[rank - 1])
    maxima = sorted(float(m.max()) for m in maps)
    expected = threshold_above(maxima[rank - 1], MAP_TOLERANCE_OF_RANGE)
    assert thresholds.pixel == expected
    image = thresholds.provenance["image"]
    assert (image.method, image.source) == (calibration["method"], "val")
    assert image.used_false_alarm_rate is None
    assert image.bounds is not None
    assert image.bounds.images_above == 10 - rank
    assert list(kept.image_scores) == sorted(scores)
    assert report_of(run)["counts"]["calibration"] == 10


def test_a_quantile_without_val_rows_comes_from_pooled_folds(
    tmp_path: Path, train: Train
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=10, n_test_normal=2, n_test_defect=2, size=(48, 48)
    )
    assert train(manifest, method="quantile", quantile=0.9).code == 0
    image = trained(tmp_path).calibration("bracket")[0].provenance["image"]
    assert (image.source, image.approximate, image.n_images) == (
        *("kfold_pooled", True),
        10,
    )


# --- pixels -------------------------------------------------------------------------


def test_the_pixel_quantile_is_over_all_pixels_of_val_maps(
    manifest: Path, tmp_path: Path, train: Train
) -> None:
    quantile = {"pixel_method": "pixel_quantile", "pixel_quantile": 0.99}
    assert train(manifest, **quantile).code == 0
    run = trained(tmp_path)
    thresholds, _ = run.calibration("bracket")
    _, maps = scored(run, rows_of(manifest, "val"))
    every = np.sort(np.stack(maps), axis=None)
    rank = int(np.ceil(round(0.99 * every.size, 6)))
    expected = threshold_above(float(every[rank - 1]), MAP_TOLERANCE_OF_RANGE)
    assert thresholds.pixel == expected
    pixel = thresholds.provenance["pixel"]
    assert pixel.method == "quantile"
    assert pixel.parameters == {
        "statistic": "pixels of normal maps",
        "quantile": 0.99,
        "pixels": every.size,
    }
    assert pixel.used_false_alarm_rate is None
    assert thresholds.provenance["image"].method == "conformal"


def test_the_pixel_quantile_of_pooled_folds_counts_every_map(
    tmp_path: Path, train: Train
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=11, n_test_normal=2, n_test_defect=2, size=(48, 48)
    )
    assert train(manifest, pixel_method="pixel_quantile").code == 0
    pixel = trained(tmp_path).calibration("bracket")[0].provenance["pixel"]
    assert (pixel.source, pixel.approximate) == ("kfold_pooled", True)
    assert pixel.parameters["pixels"] == 11 * 64 * 64
    assert pixel.parameters["quantile"] == 0.999


# --- best F1 ------------------------------------------------------------------------


def test_best_f1_parts_the_labelled_pictures(
    manifest: Path, labelled: Path, tmp_path: Path, train: Train
) -> None:
    done = train(
        manifest, method="best_f1", labelled_manifest="labelled/manifest.jsonl"
    )
    assert done.code == 0, done.stderr
    run, rows = trained(tmp_path), read_manifest(labelled)
    thresholds, kept = run.calibration("bracket")
    scores, _ = scored(run, rows)
    image = thresholds.provenance["image"]
    assert (image.method, image.source) == ("best_f1", "labelled_manifest")
    assert image.used_false_alarm_rate is None
    assert (image.parameters["normals"], image.parameters["defects"]) == (6, 6)
    assert image.fingerprint == fingerprint(picture_digests(rows))
    flagged = [is_anomaly(score, thresholds.image) for score in scores]
    caught = sum(f and row.label == 1 for f, row in zip(flagged, rows, strict=True))
    assert image.parameters["defects_above"] == caught
    normals = [s for s, row in zip(scores, rows, strict=True) if row.label == 0]
    assert list(kept.image_scores) == sorted(normals)
    # Pixels: from held-out normals, never from labels.
    pixel = thresholds.provenance["pixel"]
    assert (pixel.method, pixel.source, pixel.n_images) == ("conformal", "val", 10)
    counts = report_of(run)["counts"]
    assert (counts["labelled_normals"], counts["labelled_defects"]) == (6, 6)
    assert load_config(run.config_path).labelled_manifest == labelled.resolve()


def test_a_run_with_best_f1_is_exported(
    manifest: Path,
    labelled: Path,
    tmp_path: Path,
    train: Train,
    run_cli: Callable[..., CommandResult],
) -> None:
    assert train(manifest, method="best_f1", labelled_manifest=str(labelled)).code == 0
    bundle = tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", tmp_path / "run", "--output", bundle)
    assert done.code == 0, done.stderr
    settings = open_bundle(bundle).config.categories["bracket"]
    thresholds, kept = trained(tmp_path).calibration("bracket")
    assert (settings.thresholds, settings.calibration) == (thresholds, kept)


def only(labelled: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    write_manifest(labelled, [row for row in read_rows(labelled) if keep(row)])


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (lambda row: row["label"] == 0, "no defects (label 1) among 6 rows"),
        (lambda row: row["label"] == 1, "no normals (label 0) among 6 rows"),
    ],
)
def test_one_kind_alone_is_refused(
    manifest: Path,
    labelled: Path,
    tmp_path: Path,
    train: Train,
    keep: Callable[[dict[str, Any]], bool],
    expected: str,
) -> None:
    only(labelled, keep)
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    assert f"bracket: {expected}" in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_category_is_refused_with_what_there_is(
    manifest: Path, labelled: Path, tmp_path: Path, train: Train
) -> None:
    rows = [row | {"category": "brackets"} for row in read_rows(labelled)]
    write_manifest(labelled, rows)
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    assert 'no rows of category "bracket" (did you mean "brackets"?)' in done.stderr
    assert "it holds: brackets" in done.stderr
    assert not (tmp_path / "run").exists()


def test_pictures_that_train_calibrate_or_test_are_refused_by_their_bytes(
    manifest: Path, labelled: Path, tmp_path: Path, train: Train
) -> None:
    taken = {}
    for split in ("train", "val", "test"):
        taken[split] = rows_of(manifest, split)[0].image_path.read_bytes()
    targets = [row for row in read_manifest(labelled) if row.label == 0][:3]
    for row, data in zip(targets, taken.values(), strict=True):
        row.image_path.write_bytes(data)
    only(labelled, lambda row: row["label"] == 0)
    write_manifest(labelled, read_rows(labelled))
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    for split in taken:
        assert f"has the bytes of a picture of {split} (" in done.stderr
    assert "no defects" in done.stderr  # all at once
    assert "4 problems" in done.stderr
    assert not (tmp_path / "run").exists()


def test_labelled_pictures_of_a_part_that_is_used_otherwise_are_refused(
    manifest: Path, labelled: Path, tmp_path: Path, train: Train
) -> None:
    rows = read_rows(labelled)
    for row, split in zip(rows, ("train", "val", "test"), strict=False):
        row["group_id"] = rows_of(manifest, split)[0].group_id
    write_manifest(labelled, [row for row in rows if row["label"] == 0])
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    for row, split in zip(rows, ("train", "val", "test"), strict=False):
        shown = f'is of group "{row["group_id"]}", as a picture of {split} ('
        assert shown in done.stderr
    assert "no defects" in done.stderr  # all at once
    assert not (tmp_path / "run").exists()


def test_the_same_picture_with_two_labels_is_refused(
    manifest: Path, labelled: Path, train: Train
) -> None:
    rows = read_manifest(labelled)
    normal = next(row for row in rows if row.label == 0)
    defect = next(row for row in rows if row.label == 1)
    defect.image_path.write_bytes(normal.image_path.read_bytes())
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    assert "decide which it is" in done.stderr


def test_a_labelled_picture_that_cannot_be_read_is_refused(
    manifest: Path, labelled: Path, train: Train
) -> None:
    read_manifest(labelled)[0].image_path.write_bytes(b"no picture")
    done = train(manifest, method="best_f1", labelled_manifest=str(labelled))
    assert done.code == 2
    assert str(labelled) in done.stderr


def test_a_labelled_manifest_that_is_not_there_is_refused(
    manifest: Path, tmp_path: Path, train: Train
) -> None:
    done = train(manifest, method="best_f1", labelled_manifest="none.jsonl")
    assert done.code == 2
    assert str(tmp_path / "none.jsonl") in done.stderr


# --- options without effect ---------------------------------------------------------


@pytest.mark.parametrize(
    ("calibration", "expected"),
    [
        ({"method": "quantile"}, "calibration.quantile: missing; method"),
        ({"method": "contamination"}, "calibration.contamination: missing"),
        ({"method": "best_f1"}, "calibration.labelled_manifest: missing"),
        ({"method": "f1"}, 'calibration.method: found "f1"'),
        ({"quantile": 0.9}, 'calibration.quantile: has no effect with method "conf'),
        ({"contamination": 0.1}, 'or set method to "contamination"'),
        ({"labelled_manifest": "m"}, 'or set method to "best_f1"'),
        ({"pixel_threshold": 1.0}, "calibration.pixel_threshold: has no effect"),
        (
            {"method": "quantile", "quantile": 0.9, "target_false_alarm_rate": 0.1},
            'target_false_alarm_rate: has no effect with method "quantile"',
        ),
        (
            {"method": "fixed", "threshold": 1.0, "folds": 3},
            'calibration.folds: has no effect with method "fixed"',
        ),
        (
            {"method": "fixed", "threshold": 1.0, "pixel_method": "pixel_quantile"},
            'calibration.pixel_method: has no effect with method "fixed"',
        ),
        (
            {"pixel_quantile": 0.99},
            'has no effect with pixel_method "image_max"; remove it, or set '
            'pixel_method to "pixel_quantile"',
        ),
        (
            {
                "method": "best_f1",
                "labelled_manifest": "m",
                "target_false_alarm_rate": 0.1,
                "pixel_method": "pixel_quantile",
            },
            "target_false_alarm_rate: has no effect",
        ),
        ({"method": "quantile", "quantile": 1}, "calibration.quantile: found 1,"),
        ({"method": "quantile", "quantile": 0}, "calibration.quantile: found 0,"),
        ({"method": "quantile", "quantile": "0.9"}, 'found "0.9", expected a finite'),
        ({"method": "contamination", "contamination": 1}, "contamination: found 1,"),
        ({"pixel_method": "max"}, 'pixel_method: found "max"'),
    ],
)
def test_options_that_do_not_belong_to_the_method_are_refused(
    make_config: MakeConfig, tmp_path: Path, calibration: Any, expected: str
) -> None:
    config = make_config(tmp_path / "m.jsonl", calibration=calibration)
    with pytest.raises(ConfigError) as caught:
        load_config(config)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "calibration",
    [
        {"method": "fixed", "threshold": 1.0, "pixel_threshold": 2.0},
        {"method": "quantile", "quantile": 0.9, "folds": 3},
        {"method": "best_f1", "labelled_manifest": "m", "target_false_alarm_rate": 0.1},
        {"pixel_method": "pixel_quantile", "pixel_quantile": 0.99},
        {"method": "conformal", "quantile": None, "threshold": None},
    ],
)
def test_the_effective_config_of_every_method_is_read_again(
    make_config: MakeConfig, tmp_path: Path, calibration: Any
) -> None:
    config = load_config(make_config(tmp_path / "m.jsonl", calibration=calibration))
    path = tmp_path / "effective.json"
    path.write_text(json.dumps(config.config.to_dict()), encoding="utf-8")
    assert load_config(path).config == config.config


# --- the report ---------------------------------------------------------------------


def test_the_report_bounds_the_achieved_rate_by_images_and_by_groups(
    manifest: Path, tmp_path: Path, train: Train
) -> None:
    rows = read_rows(manifest)
    normals = [r for r in rows if r["split"] == "test" and r["label"] == 0]
    for index, row in enumerate(normals):
        row["group_id"] = f"part-{index // 2}"
    write_manifest(manifest, rows)
    assert train(manifest, target_false_alarm_rate=0.1).code == 0
    run = trained(tmp_path)
    bounds = report_of(run)["false_alarm_rate_bounds"]
    assert (bounds["n_images"], bounds["n_groups"]) == (6, 3)
    rate = report_of(run)["false_alarm_rate"]
    assert bounds["images_above"] == round(rate * 6)
    low, high = clopper_pearson(bounds["images_above"], 6)
    assert bounds["by_images"] == [low, high]
    by_groups = clopper_pearson(bounds["groups_above"], 3)
    assert bounds["by_groups"] == list(by_groups)
    assert bounds["confidence"] == 0.95


def test_without_test_normals_there_are_no_bounds(tmp_path: Path, train: Train) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=12, n_test_normal=0, n_test_defect=2, size=(48, 48)
    )
    assert train(manifest).code == 0
    report = report_of(trained(tmp_path))
    assert report["false_alarm_rate_bounds"] is None
    assert report["false_alarm_rate"] is None


def test_test_normals_unlike_those_that_calibrated_are_warned_of(
    tmp_path: Path, train: Train
) -> None:
    import cv2

    manifest = write_dataset(
        tmp_path / "data", n_train=30, n_test_normal=12, n_test_defect=2, size=(48, 48)
    )
    for row in rows_of(manifest, "test"):
        image = cv2.imread(str(row.image_path))
        cv2.imwrite(str(row.image_path), cv2.GaussianBlur(image, (0, 0), 4))
    assert train(manifest, target_false_alarm_rate=0.1).code == 0
    warnings = report_of(trained(tmp_path))["warnings"]
    assert len([w for w in warnings if w.startswith("FALSE_ALARMS_ABOVE_PROMISE")]) == 1


def test_test_normals_like_the_others_are_not(
    manifest: Path, tmp_path: Path, train: Train
) -> None:
    assert train(manifest, target_false_alarm_rate=0.1).code == 0
    warnings = report_of(trained(tmp_path))["warnings"]
    assert not [w for w in warnings if "ABOVE_PROMISE" in w]
