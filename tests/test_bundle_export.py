"""Bundles: complete, reproducible, silent about the machine, equal to the training."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import CommandResult, Exported
from factories import read_rows, write_dataset
from pyimgano.detectors import load_detector
from pyimgano.detectors.layers import PixelInput
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.run_document import run_document
from pyimgano.workbench.runner import input_rules
from pyimgano_exporters import parity
from pyimgano_exporters.bundle_writer import (
    BundleRequest,
    CategoryExport,
    write_bundle,
)
from pyimgano_exporters.goldens import synthetic_goldens
from pyimgano_exporters.onnx_graph import export_graph
from pyimgano_exporters.parity import ParityMeter
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.check import check_bundle
from pyimgano_runtime.cli import main as runtime_main
from pyimgano_runtime.errors import ConfigError, ExportError, ParityError
from pyimgano_runtime.picture_statistics import picture_statistics
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.reference import picture_reference

REPOSITORY = Path(__file__).resolve().parents[1]

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def made(exported: Export) -> Exported:
    return exported("pixel_stats")


@pytest.fixture
def export(run_cli: Run, made: Exported, tmp_path: Path) -> Callable[..., Path]:
    """Give a function that exports the run under the name "bundle"."""

    def run(*options: str) -> Path:
        output = tmp_path / "elsewhere/bundle"
        done = run_cli(
            *("bundle", "export", "--run", made.run, "--output", output, *options)
        )
        assert done.code == 0, done.stderr
        return output

    return run


# --- content ------------------------------------------------------------------------


def test_the_same_run_gives_the_same_bundle_to_the_byte(
    made: Exported, export: Callable[..., Path]
) -> None:
    assert bytes_of(export()) == bytes_of(made.bundle)


def test_source_date_epoch_is_the_date_of_the_bundle(
    export: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    config = open_bundle(export("--goldens", "none")).config
    assert config.bundle.created == "2023-11-14T22:13:20Z"


def test_a_wrong_source_date_epoch_is_refused(
    made: Exported, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    output = tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", made.run, "--output", output)
    assert done.code == 2
    assert 'SOURCE_DATE_EPOCH: found "yesterday"' in done.stderr
    assert not output.exists()


def test_without_it_the_date_is_the_end_of_the_training(made: Exported) -> None:
    created = open_bundle(made.bundle).config.bundle.created
    assert created == open_run(made.run).report["finished"]


@pytest.mark.parametrize("name", ["padim", "patchcore", "pixel_stats"])
def test_the_files_are_the_listed_ones_with_size_and_hash(
    name: str, exported: Export
) -> None:
    folder = exported(name).bundle
    bundle, found = open_bundle(folder), bytes_of(folder)
    listed = {entry.path: entry for entry in bundle.config.files}
    assert set(found) == set(listed) | {"infer_config.json"}
    for path, entry in listed.items():
        assert entry.size == len(found[path])
        assert entry.sha256 == hashlib.sha256(found[path]).hexdigest()
    assert bundle.unlisted_files() == []


@pytest.mark.parametrize("name", ["padim", "patchcore", "pixel_stats"])
def test_nothing_in_a_bundle_names_this_machine_or_its_folders(
    name: str, exported: Export
) -> None:
    made = exported(name)
    secrets = {
        str(REPOSITORY),
        str(made.run.parent),
        str(made.manifest.parent),
        str(Path.home()) + "/",
        str(Path(torch.__file__).parent),
        "site-packages",
        "images/bracket",  # where the user's pictures lie
    }
    secrets |= {platform.node()} if len(platform.node()) > 5 else set()
    for path, data in bytes_of(made.bundle).items():
        for secret in secrets:
            assert secret.encode() not in data, f"{path} holds {secret}"


def test_no_link_is_in_a_bundle(made: Exported) -> None:
    for path in made.bundle.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or path.stat().st_nlink == 1


def test_the_document_says_what_was_trained(exported: Export) -> None:
    made = exported("patchcore")
    config = open_bundle(made.bundle).config
    report = open_run(made.run).report["categories"]["bracket"]
    training = config.training["categories"]["bracket"]
    for key in ("detector", "hyper_parameters", "counts", "data_fingerprint"):
        assert training[key] == report[key]
    assert training["metrics"]["image_auroc"] == report["image_auroc"]
    assert training["backbone"]["licence"] == "Apache-2.0"
    assert len(training["backbone"]["sha256"]) == 64
    assert json.loads(json.dumps(config.to_dict()))["kind"] == "bundle"


def test_thresholds_and_scores_are_those_of_the_run(made: Exported) -> None:
    category = open_bundle(made.bundle).config.categories["bracket"]
    thresholds, calibration = open_run(made.run).calibration("bracket")
    assert category.thresholds == thresholds
    assert category.calibration == calibration


def test_the_drift_reference_is_that_of_the_run_and_of_its_normals(
    made: Exported,
) -> None:
    run, config = open_run(made.run), open_bundle(made.bundle).config
    reference = config.categories["bracket"].reference
    assert reference is not None
    assert reference == run.reference("bracket")
    ours = run_document(run).categories["bracket"]
    assert ours.reference == reference
    assert config.schema_version == "1.3"
    assert reference.scores is not None
    assert reference.scores.n == len(ours.calibration.image_scores)
    predictor, found = Predictor.open(made.bundle), []
    for row in read_rows(made.manifest):
        if row["split"] in ("train", "val") and row["label"] == 0:
            image = predictor.read(made.manifest.parent / row["image_path"])
            found.append(picture_statistics(image))
    normals = picture_reference(found, reference.brightness.n_groups)
    assert reference.brightness == normals.brightness
    assert reference.sharpness == normals.sharpness


def test_parity_was_measured_on_every_held_out_picture(made: Exported) -> None:
    measured = open_bundle(made.bundle).config.parity.categories["bracket"]
    assert (measured.n_images, measured.images) == (12, "test+val")
    assert measured.label_flips == 0
    assert 0 <= measured.max_rel_score_diff <= parity.SCORE_REL
    assert measured.min_threshold_distance > 0


def test_fewer_parity_pictures_can_be_asked_for(export: Callable[..., Path]) -> None:
    bundle = open_bundle(export("--parity-images", "3", "--goldens", "none"))
    assert bundle.config.parity.categories["bracket"].n_images == 3


def test_the_model_card_tells_what_to_know_before_trusting(exported: Export) -> None:
    made = exported("patchcore")
    card = (made.bundle / "MODEL_CARD.md").read_text("utf-8")
    category = open_bundle(made.bundle).config.categories["bracket"]
    report = open_run(made.run).report["categories"]["bracket"]
    for expected in (
        "# bundle 1\n",
        "## bracket\n",
        "- Detector: `patchcore`",
        "licence Apache-2.0",
        "- Trained on 20 normal images; tested on 6 normal and 6 anomalous",
        f"- Data fingerprint: `{report['data_fingerprint']}`",
        f"- Image threshold {category.thresholds.image:.6g}: conformal on 20 held-out "
        "normals in 20 groups (kfold_pooled); promises about 4.76% false alarms "
        "(asked: 1.00%); 0 of 20 normals reach it (95% bounds 0.00% to 16.84%); set by",
        "about, since the folds' models are not the final one",
        "- Pixel threshold ",
        "- Warning: CALIBRATION_SMALL_N",
        "- Parity with torch on 12 test+val images",
        "0 label flips",
        f"| image_auroc | {report['image_auroc']:.4f} |",
        "no photograph is in this bundle",
    ):
        assert expected in card


def test_the_bundle_is_printed_with_its_identity(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "b7"
    done = run_cli(
        *("bundle", "export", "--run", made.run, "--output", output),
        *("--goldens", "none", "--release", "1.2"),
    )
    bundle = open_bundle(output)
    assert (bundle.config.bundle.name, bundle.config.bundle.version) == ("b7", "1.2")
    assert f"sha256 of infer_config.json: {bundle.sha256}" in done.stdout


# --- goldens ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["padim", "patchcore", "pixel_stats"])
def test_every_golden_agrees_on_this_machine(name: str, exported: Export) -> None:
    report = check_bundle(open_bundle(exported(name).bundle))
    assert [result.agrees for result in report.results] == [True] * 4
    assert [result.decoder for result in report.results] == ["same"] * 4
    assert report.ok


def test_synthetic_goldens_travel_unless_asked_otherwise(made: Exported) -> None:
    goldens = open_bundle(made.bundle).config.parity.goldens
    assert {golden.kind for golden in goldens} == {"synthetic"}
    assert [Path(golden.image).suffix for golden in goldens] == [".jpg"] + [".png"] * 3


def test_real_goldens_are_photographs_with_their_licence(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "bundle"
    done = run_cli(
        *("bundle", "export", "--run", made.run, "--output", output),
        *("--goldens", "real", "--image-licence", "CC0"),
    )
    assert done.code == 0
    assert "puts photographs of yours into the bundle" in done.stderr
    bundle = open_bundle(output)
    predictor = Predictor.open(bundle)
    shipped = {
        predictor.read(output / golden.image).tobytes()
        for golden in bundle.config.parity.goldens
    }
    test = [row for row in read_rows(made.manifest) if row["split"] == "test"]
    own = {
        predictor.read(made.manifest.parent / row["image_path"]).tobytes()
        for row in test
    }
    assert 1 <= len(shipped) <= 8
    assert shipped <= own
    assert "Licence of the photographs: CC0." in (output / "MODEL_CARD.md").read_text()
    assert check_bundle(bundle).ok


def test_without_goldens_check_says_that_nothing_is_proven(
    export: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output = export("--goldens", "none")
    assert sorted(p.name for p in output.iterdir()) == [
        *("MODEL_CARD.md", "infer_config.json", "models"),
    ]
    assert runtime_main(["check", str(output)]) == 5
    assert "nothing is proven" in capsys.readouterr().err


def test_few_normals_leave_no_trace_in_synthetic_goldens() -> None:
    random = np.random.default_rng(0)
    normals = [random.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(19)]
    others = [random.integers(0, 256, (40, 50, 3), dtype=np.uint8) for _ in range(19)]
    first, second = (synthetic_goldens(images, seed=3) for images in (normals, others))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_many_normals_shape_the_synthetic_goldens() -> None:
    bright = np.zeros((40, 50, 3), np.uint8)
    bright[:, 25:] = 200
    plain = synthetic_goldens([bright] * 20, seed=3)[0]
    assert plain[:, 30:].mean() > 190
    assert plain[:, :20].mean() < 10


# --- parity -------------------------------------------------------------------------


class Wrapped(torch.nn.Module):
    """A fitted detector with another forward."""

    def __init__(self, detector: Any, change: Callable[..., Any]) -> None:
        super().__init__()
        self.detector = detector
        self.change = change
        self.name, self.has_map = "wrapped", detector.has_map

    def forward(self, images_u8: torch.Tensor) -> Any:
        return self.change(*self.detector(images_u8))

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("detector"), name)


def write(
    made: Exported, output: Path, change: Callable[..., Any], **changes: Any
) -> Any:
    """Write a bundle of a detector whose outputs are changed."""
    run = open_run(made.run)
    detector = load_detector(run.checkpoint("bracket"))
    thresholds, calibration = run.calibration("bracket")
    random = np.random.default_rng(0)
    images = [
        (str(n), random.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for n in range(3)
    ]
    report = run.report["categories"]["bracket"]
    export = CategoryExport(
        name="bracket",
        detector=Wrapped(detector, change),
        thresholds=thresholds,
        calibration=calibration,
        held_out=lambda: images,
        held_out_rows="test+val",
        normals=list,
        training={"metrics": {}, **{key: report[key] for key in (
            "detector", "counts", "data_fingerprint")}},
    )  # fmt: skip
    request = BundleRequest(
        name="b",
        version="1",
        created="2024-01-01T00:00:00Z",
        producer={},
        machine="m",
        rules=input_rules(),
        goldens="none",
    )
    return write_bundle(
        output,
        replace(request, **changes),
        [export],
        force=False,
        progress=lambda step, done, total: None,
    )


def test_a_detector_that_is_not_changed_is_written(
    made: Exported, tmp_path: Path
) -> None:
    config = write(made, tmp_path / "b", lambda score, map_: (score, map_))
    assert config.parity.categories["bracket"].label_flips == 0


def test_a_graph_that_scores_unlike_torch_is_no_bundle(
    made: Exported, tmp_path: Path
) -> None:
    def other_in_the_graph(score: torch.Tensor, map_: torch.Tensor) -> Any:
        shift = 1.0001 if torch.compiler.is_exporting() else 1.0
        return score * shift, map_

    with pytest.raises(ParityError, match=r"scores differ by 1\.0\de-04 relative"):
        write(made, tmp_path / "b", other_in_the_graph)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_whose_map_is_unlike_torch_is_no_bundle(
    made: Exported, tmp_path: Path
) -> None:
    def other_in_the_graph(score: torch.Tensor, map_: torch.Tensor) -> Any:
        return score, map_ * (1.01 if torch.compiler.is_exporting() else 1.0)

    with pytest.raises(ParityError, match="maps differ by"):
        write(made, tmp_path / "b", other_in_the_graph)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_scores_that_are_no_numbers_is_no_bundle(
    made: Exported, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="scores that are not finite"):
        write(made, tmp_path / "b", lambda score, map_: (score * math.nan, map_))
    assert list(tmp_path.iterdir()) == []


def test_a_graph_with_a_fixed_batch_is_no_bundle(
    made: Exported, tmp_path: Path
) -> None:
    # The example batch holds two pictures, so that this does export.
    def of_two(score: torch.Tensor, map_: torch.Tensor) -> Any:
        return score.reshape(2), map_

    with pytest.raises(ExportError, match=r"\[2, 'height', 'width', 3\]"):
        write(made, tmp_path / "b", of_two)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_draws_random_numbers_is_no_bundle(
    made: Exported, tmp_path: Path
) -> None:
    def random(score: torch.Tensor, map_: torch.Tensor) -> Any:
        return score + 0 * torch.rand_like(score), map_

    with pytest.raises(ExportError, match="RandomUniformLike"):
        write(made, tmp_path / "b", random)
    assert list(tmp_path.iterdir()) == []


def test_the_command_fails_with_exit_code_1_and_leaves_nothing(
    made: Exported, tmp_path: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "SCORE_REL", -1.0)
    output = tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", made.run, "--output", output)
    assert done.code == 1
    assert "does not score like the trained detector on 12 test+val" in done.stderr
    assert "no bundle was written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def meter_of(*pairs: tuple[float, float], threshold: float = 1.0) -> ParityMeter:
    meter = ParityMeter(threshold, "test")
    for number, (reference, candidate) in enumerate(pairs):
        map_ = np.ones((2, 2), np.float32)
        meter.add(str(number), (reference, map_), (candidate, map_))
    return meter


def test_a_difference_within_the_tolerance_passes() -> None:
    meter_of((2.0, 2.0 * (1 + 0.9e-5))).require("b")


def test_a_difference_above_the_tolerance_is_refused() -> None:
    with pytest.raises(ParityError, match="scores differ by"):
        meter_of((0.5, 0.5), (2.0, 2.0 * (1 + 1.1e-5))).require("b")


def test_a_flipped_label_is_refused_and_named() -> None:
    meter = meter_of((0.5, 0.5), (0.9999, 1.0), (0.999999, 1.0), (1.0, 1.0))
    assert meter.flipped == ["1", "2"]
    assert meter.result().label_flips == 2
    with pytest.raises(ParityError, match="1 labels flip: 1;"):
        meter.require("b")


def test_a_label_that_rounding_decides_is_told_and_no_refusal() -> None:
    meter = meter_of((0.5, 0.5), (0.999999, 1.0))
    meter.require("b")
    assert meter.result().label_flips == 1
    (warning,) = meter.warnings()
    assert warning.startswith("SCORE_AT_THRESHOLD: 1 picture scores the threshold but")
    assert warning.endswith("torch and onnxruntime label it differently: 1")


def test_scores_that_agree_do_not_excuse_another_threshold() -> None:
    meter = ParityMeter(1.0, "test", candidate_threshold=1.0 + 2e-5)
    meter.add("a", (1.00001, None), (1.00001, None))
    with pytest.raises(ParityError, match="1 labels flip: a"):
        meter.require("b")


def test_the_smallest_distance_to_the_threshold_is_kept() -> None:
    assert meter_of((0.5, 0.5), (1.25, 1.25)).result().min_threshold_distance == 0.25


@pytest.mark.parametrize("pair", [(1.0, math.nan), (math.nan, math.nan)])
def test_a_score_that_is_no_number_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ParityError, match="scores differ"):
        meter_of((2.0, 2.0), pair, (2.0, 2.0)).require("b")


def test_a_map_that_holds_no_numbers_is_refused() -> None:
    meter = ParityMeter(1.0, "test")
    good, bad = np.ones((2, 2), np.float32), np.full((2, 2), np.nan, np.float32)
    meter.add("a", (2.0, good), (2.0, bad))
    with pytest.raises(ParityError, match="maps differ"):
        meter.require("b")


# --- the whole chain ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["padim", "patchcore", "pixel_stats"])
def test_a_copied_bundle_judges_the_test_pictures_as_training_did(
    name: str, exported: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exported(name)
    copy = tmp_path / "device/b"
    shutil.copytree(made.bundle, copy)
    monkeypatch.chdir(tmp_path)
    predictor = Predictor.open("device/b")
    rows = made.run / "categories/bracket/per_image.jsonl"
    for row in map(json.loads, rows.read_text().splitlines()):
        image = predictor.read(made.manifest.parent / row["input"])
        found = predictor.predict(image)
        assert found.score == pytest.approx(row["score"], rel=parity.SCORE_REL)
        assert found.label == row["label"]
        assert found.threshold == row["threshold"]
        assert found.p_value == row["p_value"]


@pytest.mark.parametrize("size", [(64, 64), (90, 37), (480, 640), (20, 300)])
def test_the_pixels_of_the_graph_are_an_antialiased_average(
    size: tuple[int, int],
) -> None:
    """Held against Pillow-style triangle weights of 8 bits, written out in float64."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    mean, std = (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)
    layer = PixelInput((32, 32), mean=mean, std=std)
    found = layer(torch.from_numpy(image[None]))[0].permute(1, 2, 0).numpy()
    rows, columns = (triangle_weights(side, 32) for side in size)
    resized = np.einsum("ih,hwc,jw->ijc", rows, image.astype(np.float64), columns)
    np.testing.assert_allclose(found, (resized - mean) / std, atol=1e-4)


def triangle_weights(n_in: int, n_out: int) -> np.ndarray:
    """Weights (n_out, n_in) of a bilinear resize that averages when it shrinks."""
    scale = n_in / n_out
    reach = max(scale, 1.0)
    centres = (np.arange(n_out) + 0.5) * scale
    distance = np.abs(np.arange(n_in)[None] + 0.5 - centres[:, None]) / reach
    weights = np.floor(np.clip(1 - distance, 0, None) * 255 + 0.5 + 1e-9)  # halves up
    result: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return result


# --- refusals -----------------------------------------------------------------------


def test_an_existing_output_is_refused(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/mine.txt").write_text("keep me")
    output = tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", made.run, "--output", output)
    assert done.code == 2
    assert "already exists and nothing is overwritten" in done.stderr
    assert bytes_of(output) == {"mine.txt": b"keep me"}


def test_force_replaces_the_output(export: Callable[..., Path], tmp_path: Path) -> None:
    old = tmp_path / "elsewhere/bundle"
    old.mkdir(parents=True)
    (old / "infer_config.json").write_text("{}")
    (old / "old.txt").write_text("x")
    assert "old.txt" not in bytes_of(export("--force", "--goldens", "none"))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, run_cli: Run) -> None:
    output = tmp_path / "bundle"
    done = run_cli("bundle", "export", "--run", tmp_path, "--output", output)
    assert done.code == 2
    assert "is not a finished run (no report.json)" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", ["0", "-1", "some", "1.5"])
def test_a_wrong_number_of_parity_pictures_is_refused(
    count: str, made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    done = run_cli(
        *("bundle", "export", "--run", made.run, "--output", tmp_path / "b"),
        *("--parity-images", count),
    )
    assert done.code == 2
    assert 'expected a positive number or "all"' in done.stderr


def test_pictures_that_are_gone_are_named(
    tmp_path: Path, make_config: Callable[..., Path], run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=5, n_test_normal=1, n_test_defect=1, size=(32, 32)
    )
    run, output = tmp_path / "run", tmp_path / "bundle"
    assert (
        run_cli("train", "--config", make_config(manifest), "--output", run).code == 0
    )
    gone = read_rows(manifest)[-1]["image_path"]
    (manifest.parent / gone).unlink()
    done = run_cli("bundle", "export", "--run", run, "--output", output)
    assert done.code == 2
    assert f'"{gone}" is no file in' in done.stderr
    assert not output.exists()


def test_an_unknown_goldens_mode_is_refused(made: Exported, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='--goldens: found "some"'):
        write(made, tmp_path / "b", lambda s, m: (s, m), goldens="some")


def test_exporting_does_not_change_the_detector(made: Exported) -> None:
    detector = load_detector(made.run / "checkpoints/bracket/model.safetensors")
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    export_graph(detector)
    after: Iterable[tuple[str, torch.Tensor]] = detector.state_dict().items()
    assert all(torch.equal(before[key], value) for key, value in after)
