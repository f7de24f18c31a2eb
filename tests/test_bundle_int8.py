"""Bundles in 8 bits: thresholds, metrics and proof of their own, or none at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Exported, config_payload
from pyimgano.cli import main
from pyimgano.detectors.interface import FitContext
from pyimgano.inference.torch_predictor import torch_predictor
from pyimgano.pipelines.int8_category import SET_BY, require
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.config import load_config
from pyimgano.workbench.fitting import CategoryFitter
from pyimgano.workbench.runner import load_splits, run_rules
from pyimgano.workbench.trained import load_trained
from pyimgano_exporters.int8_graph import quantize_detector
from pyimgano_exporters.onnx_graph import export_graph, model_spec
from pyimgano_exporters.parity import ParityMeter, allowed_int8_flips
from pyimgano_exporters.shared_backbone import Model
from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.cli import main as runtime
from pyimgano_runtime.decode import read_image
from pyimgano_runtime.errors import ParityError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.reference import distribution_of

Export = Callable[[str], Exported]


def export_int8(made: Exported, output: Path, *more: str) -> int:
    """Export a run in 8 bits; give the exit code."""
    command = ["bundle", "export", "--run", str(made.run), "--output", str(output)]
    return main([*command, "--precision", "int8", *more])


def rows_of(made: Exported, part: str) -> list[dict[str, object]]:
    """Give the manifest rows of one split."""
    rows = [json.loads(line) for line in made.manifest.read_text().splitlines()]
    return [row for row in rows if row["split"] == part]


def pictures(made: Exported, part: str) -> list[np.ndarray]:
    """Give the pictures of one split."""
    return [
        read_image(made.manifest.parent / str(row["image_path"]), InputRules())
        for row in rows_of(made, part)
    ]


@pytest.fixture(scope="module")
def made(exported: Export) -> Exported:
    """Give the small PatchCore run."""
    return exported("patchcore")


@pytest.fixture(scope="module")
def int8(made: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give its bundle in 8 bits; pictures of 64 px lose more than is allowed."""
    output = tmp_path_factory.mktemp("int8") / "bundle"
    assert export_int8(made, output, "--accept-quality-loss") == 0
    return output


def only_category(bundle: Bundle) -> str:
    """Give the name of the only category."""
    (name,) = bundle.config.categories
    return name


def test_the_graph_is_in_8_bits_and_smaller(made: Exported, int8: Path) -> None:
    before, after = open_bundle(made.bundle), open_bundle(int8)
    (old,), (new,) = (list(b.config.models.values()) for b in (before, after))
    assert (old.precision, new.precision) == ("fp32", "int8")
    assert len(after.read(new.file)) < 0.6 * len(before.read(old.file))
    assert after.config.parity.candidate.endswith(", int8")


def test_its_thresholds_are_set_by_its_own_scores(made: Exported, int8: Path) -> None:
    before, after = (
        b.config.categories[only_category(b)]
        for b in (open_bundle(made.bundle), open_bundle(int8))
    )
    assert after.thresholds.image != before.thresholds.image
    provenance = after.thresholds.provenance["image"]
    assert provenance.set_by == SET_BY
    assert provenance.source == before.thresholds.provenance["image"].source
    assert provenance.n_images == before.thresholds.provenance["image"].n_images
    assert provenance.fingerprint == before.thresholds.provenance["image"].fingerprint
    assert before.reference is not None
    assert after.reference is not None
    assert after.reference.scores == distribution_of(
        after.calibration.image_scores, provenance.n_groups
    )
    assert after.reference.scores != before.reference.scores
    assert after.reference.brightness == before.reference.brightness
    a, b = (np.asarray(c.calibration.image_scores) for c in (before, after))
    assert len(a) == len(b)
    assert not np.array_equal(a, b)
    assert np.abs(a - b).max() < 0.15 * a.max()


def test_the_folds_are_those_of_the_training(made: Exported, tmp_path: Path) -> None:
    """With the detector's own features, the scores of the training come out again."""
    run = open_run(made.run)
    name = next(iter(run.categories))
    detector = load_trained(run, name)
    loaded = load_config(run.config_path)
    context = FitContext(
        generator=torch.Generator().manual_seed(loaded.config.seed),
        device=torch.device("cpu"),
        workspace=tmp_path,
        progress=lambda step, done, total: None,
    )
    (split,) = load_splits(loaded)
    fitter = CategoryFitter(loaded.config, split, run_rules(run), context)
    predictor = torch_predictor(
        *(detector, name, open_bundle(made.bundle).config.categories[name]),
        run_rules(run),
    )
    again = fitter.score_again(detector, predictor, detector.features)
    assert again is not None
    assert again.source == "kfold_pooled"
    stored = run.calibration(name)[1].image_scores
    assert sorted(again.image.tolist()) == pytest.approx(sorted(stored), rel=1e-6)


def test_the_metrics_are_those_of_the_graph_in_8_bits(
    made: Exported, int8: Path
) -> None:
    from sklearn.metrics import roc_auc_score

    bundle = open_bundle(int8)
    predictor = Predictor.open(bundle)
    scores = [predictor.predict(image).score for image in pictures(made, "test")]
    labels = [row["label"] for row in rows_of(made, "test")]
    training = bundle.config.training["categories"][only_category(bundle)]
    assert training["metrics"]["image_auroc"] == pytest.approx(
        roc_auc_score(labels, scores)
    )
    report = open_run(made.run).report["categories"][only_category(bundle)]
    assert training["int8"]["image_auroc_fp32"] == report["image_auroc"]
    assert training["int8"]["image_threshold_fp32"] == report["image_threshold"]
    assert training["int8"]["accepted_quality_loss"] is True


def test_a_device_proves_it_and_the_run_vouches_for_it(
    made: Exported, int8: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert runtime(["check", str(int8)]) == 0
    assert main(["bundle", "verify", str(int8), "--run", str(made.run)]) == 0
    told = capsys.readouterr().out
    assert "labels of the bundle in int8 differ" in told
    assert "exported with --accept-quality-loss" in told
    assert main(["bundle", "inspect", str(int8)]) == 0
    assert "float32" in capsys.readouterr().out
    assert "Convolutions in 8 bits" in (int8 / "MODEL_CARD.md").read_text()


def edited(int8: Path, place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Give a copy of the bundle with another document."""
    shutil.copytree(int8, place)
    path = place / "infer_config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return place


def test_another_fp32_threshold_is_another_run(
    made: Exported, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change(document: dict[str, Any]) -> None:
        for training in document["training"]["categories"].values():
            training["int8"]["image_threshold_fp32"] *= 1.1

    bundle = edited(int8, tmp_path / "edited", change)
    assert main(["bundle", "verify", str(bundle), "--run", str(made.run)]) == 2
    assert "another image threshold" in capsys.readouterr().out


def test_labels_count_by_the_threshold_of_each_side(made: Exported, int8: Path) -> None:
    run, bundle = open_run(made.run), open_bundle(int8)
    (name,) = bundle.config.categories
    lines = (run.category_folder(name) / "per_image.jsonl").read_text().splitlines()
    before = [json.loads(line)["label"] for line in lines]
    predictor = Predictor.open(bundle)
    after = [predictor.predict(image).label for image in pictures(made, "test")]
    differ = sum(a != b for a, b in zip(before, after, strict=True))
    assert differ == bundle.config.parity.categories[name].label_flips
    assert differ > 1  # else the tests below would show nothing


@pytest.mark.parametrize(
    ("told", "code", "sentence"),
    [(2, 2, "parity.label_flips is 2"), (0, 1, "labels of the bundle in int8 differ")],
)
def test_too_many_other_labels_are_refused_unless_accepted(
    told: int,
    code: int,
    sentence: str,
    made: Exported,
    int8: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def change(document: dict[str, Any]) -> None:
        for training in document["training"]["categories"].values():
            training["int8"]["accepted_quality_loss"] = False
        for parity in document["parity"]["categories"].values():
            parity["label_flips"] = told

    bundle = edited(int8, tmp_path / "edited", change)
    assert main(["bundle", "verify", str(bundle), "--run", str(made.run)]) == code
    assert f"FAILED   {'recorded' if code == 2 else 'parity  '}" in (
        told_out := capsys.readouterr().out
    )
    assert sentence in told_out


@pytest.mark.slow
def test_without_acceptance_nothing_is_written(
    made: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_int8(made, tmp_path / "bundle") == 1
    assert "int8 costs too much" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_features_of_the_graph_are_what_its_score_is_made_of(made: Exported) -> None:
    run = open_run(made.run)
    detector = load_trained(run, next(iter(run.categories)))
    whole = Model(export_graph(detector), model_spec("models/a.onnx", detector))
    images = pictures(made, "train")
    graph = quantize_detector(detector, whole, images, features=True)
    assert graph.features is not None
    for image in pictures(made, "test")[:3]:
        score, anomaly_map = graph.engine.run(image[None], with_map=True)
        with torch.no_grad():
            again, map_again = detector.score_features(
                torch.from_numpy(graph.features(image[None]))
            )
        assert float(again[0]) == pytest.approx(float(score[0]), rel=1e-5)
        assert anomaly_map is not None
        assert np.abs(map_again.numpy() - anomaly_map).max() < 1e-4 * np.ptp(
            anomaly_map
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["knn", "supersimplenet", "ensemble"])
def test_other_kinds_of_detectors_are_exported_and_proven(
    name: str, exported: Export, tmp_path: Path
) -> None:
    made = exported(name)
    output = tmp_path / "bundle"
    assert export_int8(made, output, "--accept-quality-loss") == 0
    assert runtime(["check", str(output)]) == 0
    assert main(["bundle", "verify", str(output), "--run", str(made.run)]) == 0


@pytest.mark.slow
def test_every_category_has_a_graph_and_thresholds_of_its_own(
    two_parts: Exported, tmp_path: Path
) -> None:
    config_path, output = tmp_path / "config.json", tmp_path / "bundle"
    payload = config_payload(two_parts.manifest, "padim")
    config_path.write_text(json.dumps(payload), encoding="utf-8")
    made = replace(two_parts, run=tmp_path / "run")
    command = ["train", "--config", str(config_path), "--output", str(made.run)]
    assert main(command) == 0
    assert export_int8(made, output, "--accept-quality-loss") == 0
    config = open_bundle(output).config
    assert len(config.categories) == 2
    assert [c.graph for c in config.categories.values()] == [
        (name,) for name in config.models
    ]
    assert {m.precision for m in config.models.values()} == {"int8"}
    assert runtime(["check", str(output)]) == 0


@pytest.mark.slow
def test_changed_test_pictures_are_refused(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = exported("patchcore")
    row = rows_of(made, "test")[0]
    path = made.manifest.parent / str(row["image_path"])
    before = path.read_bytes()
    other = made.manifest.parent / str(rows_of(made, "test")[1]["image_path"])
    try:
        path.write_bytes(other.read_bytes())
        assert export_int8(made, tmp_path / "bundle") == 2
    finally:
        path.write_bytes(before)
    assert "the test pictures, labels or masks changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_detector_that_scores_no_features_calibrates_on_its_held_out_pictures(
    exported: Export, tmp_path: Path
) -> None:
    made = exported("stfpm")
    assert export_int8(made, tmp_path / "bundle", "--accept-quality-loss") == 0
    bundle = open_bundle(tmp_path / "bundle")
    category = bundle.config.categories[only_category(bundle)]
    assert category.thresholds.provenance["image"].source == "holdout"
    assert category.thresholds.provenance["image"].set_by == SET_BY
    assert len(category.calibration.image_scores) >= 1


def test_a_graph_without_convolutions_is_refused(
    exported: Export, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export_int8(exported("pixel_stats"), tmp_path / "bundle") == 1
    assert "int8 would change nothing" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_accepting_a_loss_goes_with_int8_alone(
    made: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bundle", "export", "--run", str(made.run), "--accept-quality-loss"]
    assert main([*command, "--output", str(tmp_path / "bundle")]) == 2
    assert "--precision int8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("n_images", "allowed"), [(0, 0), (1, 1), (50, 1), (51, 2), (200, 4)]
)
def test_two_labels_of_a_hundred_may_differ(n_images: int, allowed: int) -> None:
    assert allowed_int8_flips(n_images) == allowed


def test_each_side_is_judged_by_its_own_threshold() -> None:
    meter = ParityMeter(1.0, "test", candidate_threshold=2.0)
    meter.add("same verdict", (1.5, None), (2.5, None))
    meter.add("flip", (1.5, None), (1.9, None))
    assert meter.flipped == ["flip"]


def test_a_loss_is_refused_by_its_numbers_unless_it_is_accepted() -> None:
    meter = ParityMeter(1.0, "test")
    for number in range(50):
        meter.add(f"{number}.png", (1.5, None), (0.5 if number < 2 else 1.5, None))
    with pytest.raises(ParityError) as refused:
        require("tile", 0.95, 0.944, meter, accept=False)
    told = str(refused.value)
    assert "image AUROC is 0.9440, 0.9500 in fp32" in told
    assert "2 labels of 50 test pictures differ from fp32, at most 1 may: 0.png" in told
    assert "--accept-quality-loss" in told
    assert len(require("tile", 0.95, 0.944, meter, accept=True)) == 2


def test_a_small_loss_passes_and_an_unknown_one_does_not() -> None:
    meter = ParityMeter(1.0, "test")
    meter.add("a.png", (1.5, None), (1.4, None))
    # A fall of exactly what is allowed: 0.95 - 0.945 is 0.005000000000000004.
    assert require("tile", 0.95, 0.945, meter, accept=True) == []
    with pytest.raises(ParityError, match="nothing tells"):
        require("tile", None, None, meter, accept=False)
