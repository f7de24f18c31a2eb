"""`pyimgano benchmark`: torch and the bundle on the same pictures, in both modes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import roc_auc_score

from conftest import CommandResult, Exported
from factories import write_dataset
from pyimgano.workbench.artifacts import open_run
from pyimgano_exporters.parity import MAP_OF_RANGE, SCORE_REL
from pyimgano_runtime.bundle import open_bundle

Run = Callable[..., CommandResult]
ENGINE_KEYS = {
    *("seg_f1", "oracle_image_f1", "oracle_threshold", "oracle_recall_at_promise"),
    *("oracle_seg_f1", "cpu_ms", "warm_up_ms", "start", "peak_rss_mb", "file_mb"),
    "precision",
    *("image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate"),
    *("pixel_auroc", "aupro_0.3", "aupro_0.05", "latency_ms", "reasons", "engine"),
}
PARITY_KEYS = {
    "problems",
    *("label_flips", "flipped_images", "max_abs_score_diff", "max_rel_score_diff"),
    *("max_abs_map_diff", "max_map_diff_of_range", "min_threshold_distance"),
}


@pytest.fixture(scope="module")
def compared(
    exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give the report folder of a run against its bundle."""
    from pyimgano.cli import main

    made = exported("patchcore")
    output = tmp_path_factory.mktemp("benchmark") / "bench"
    arguments = ["--run", str(made.run), "--bundle", str(made.bundle)]
    assert main(["benchmark", *arguments, "--output", str(output)]) == 0
    return output


@pytest.fixture
def category(compared: Path) -> dict[str, Any]:
    report = json.loads((compared / "report.json").read_text("utf-8"))
    entry: dict[str, Any] = report["categories"]["bracket"]
    return entry


def test_the_report_has_every_key(category: dict[str, Any]) -> None:
    assert set(category["engines"]) == {"torch", "onnx"}
    for engine in category["engines"].values():
        assert set(engine) >= ENGINE_KEYS
        assert set(engine["latency_ms"]) == {"p50", "p95", "p99"}
        assert engine["latency_ms"]["p50"] > 0
    assert set(category["parity"]) == PARITY_KEYS
    assert category["fit_seconds"] > 0
    assert category["counts"] == {"test_normals": 6, "test_anomalies": 6}


def test_each_engine_is_measured_alone_in_a_process(category: dict[str, Any]) -> None:
    torch, onnx = category["engines"]["torch"], category["engines"]["onnx"]
    for engine in (torch, onnx):
        assert set(engine["start"]) == {"import_ms", "open_ms", "first_ms"}
        assert all(ms > 0 for ms in engine["start"].values())
        assert engine["file_mb"] > 0
    # Without torch in its process: less than half of what torch needs.
    assert onnx["peak_rss_mb"] < torch["peak_rss_mb"] * 0.7


def test_the_bundle_is_compared_with_torch(category: dict[str, Any]) -> None:
    onnx = category["engines"]["onnx"]
    assert onnx["label_flips"] == 0
    assert onnx["flips"] == []
    assert onnx["max_abs_score_diff"] >= onnx["p99_abs_score_diff"]
    assert onnx["score_spearman"] == pytest.approx(1)
    assert onnx["map_spearman"] > 0.999
    low, high = onnx["difference_ci95"]["image_auroc"]
    assert low <= 0 <= high
    assert "label_flips" not in category["engines"]["torch"]


def test_a_page_and_tables_lie_beside_the_report(compared: Path) -> None:
    lines = (compared / "leaderboard.csv").read_text("utf-8").splitlines()
    assert lines[0].startswith("model,dataset,category,seed,precision,engine,")
    assert len(lines) == 3  # torch and onnx
    assert (compared / "leaderboard.html").is_file()
    assert (compared / "leaderboard.md").is_file()
    assert (compared / "categories/bracket/gallery/gallery.json").is_file()


def test_no_label_flips_between_torch_and_the_bundle(category: dict[str, Any]) -> None:
    parity = category["parity"]
    assert parity["label_flips"] == 0
    assert parity["flipped_images"] == []
    assert parity["max_rel_score_diff"] <= SCORE_REL
    assert parity["max_map_diff_of_range"] <= MAP_OF_RANGE
    assert parity["min_threshold_distance"] > 0


def test_both_engines_reach_the_same_metrics(category: dict[str, Any]) -> None:
    torch, onnx = category["engines"]["torch"], category["engines"]["onnx"]
    for key in ("image_auroc", "image_ap", "image_f1", "recall", "false_alarm_rate"):
        assert torch[key] == onnx[key]
    for key in ("pixel_auroc", "aupro_0.3", "aupro_0.05"):
        assert torch[key] == pytest.approx(onnx[key], abs=1e-4)


def test_the_metrics_are_those_of_training(
    category: dict[str, Any], exported: Callable[[str], Exported]
) -> None:
    trained = open_run(exported("patchcore").run).report["categories"]["bracket"]
    for key in ("image_auroc", "recall", "false_alarm_rate", "pixel_auroc"):
        assert category["engines"]["torch"][key] == trained[key]
    assert category["threshold"] == trained["image_threshold"]


def test_every_picture_has_a_row_of_each_engine(
    compared: Path, category: dict[str, Any]
) -> None:
    path = compared / "categories/bracket/per_image.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for engine in ("torch", "onnx"):
        own = [row for row in rows if row["engine"] == engine]
        assert len(own) == 12
        labels, scores = zip(*((r["label_true"], r["score"]) for r in own), strict=True)
        auroc = category["engines"][engine]["image_auroc"]
        assert auroc == pytest.approx(roc_auc_score(labels, scores))


def test_the_report_names_the_bundle_exactly(
    compared: Path, exported: Callable[[str], Exported]
) -> None:
    report = json.loads((compared / "report.json").read_text("utf-8"))
    assert report["bundle_sha256"] == open_bundle(exported("patchcore").bundle).sha256
    assert report["kind"] == "benchmark"
    assert report["schema_version"] == "1.0"


def test_a_manifest_and_a_model_are_enough(
    small_dataset: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "bench"
    done = run_cli(
        *("benchmark", "--dataset", "manifest", "--manifest-path", small_dataset),
        *("--model", "pixel_stats", "--model-options", '{"image_size": [32, 32]}'),
        *("--no-pixel-metrics", "--no-process-costs", "--json", "--output", output),
    )
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((output / "report.json").read_text("utf-8"))
    category = report["categories"]["bracket"]
    assert category["parity"]["label_flips"] == 0
    engines = category["engines"]
    assert engines["torch"]["image_auroc"] == engines["onnx"]["image_auroc"]
    assert open_run(output / "run").categories == ["bracket"]
    open_bundle(output / "bundle").verify_files()
    for engine in engines.values():
        assert engine["pixel_auroc"] is None
        assert engine["reasons"]["pixel_auroc"] == "evaluation.pixel_metrics is false"


def test_one_engine_can_be_measured_alone(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle),
        *("--compare", "onnx", "--json", "--output", tmp_path / "bench"),
    )
    assert done.code == 0, done.stderr
    category = json.loads(done.stdout)["categories"]["bracket"]
    assert list(category["engines"]) == ["onnx"]
    assert "parity" not in category


def test_the_table_says_what_was_promised_and_what_was_reached(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    output = tmp_path / "bench"
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle),
        *("--output", output),
    )
    assert done.code == 0, done.stderr
    assert "promised about 4.76% false alarms, achieved" in done.stdout
    assert "torch and onnx: 0 label flips" in done.stdout
    assert f"report: {output}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--run", "r"], "--bundle: missing"),
        (["--bundle", "b"], "--run: missing"),
        (["--dataset", "manifest"], "--manifest-path: missing"),
        (
            ["--run", "r", "--bundle", "b", "--model", "padim"],
            "--model: has no effect with --run",
        ),
        (
            ["--dataset", "manifest", "--manifest-path", "m", "--run", "r"],
            "--bundle: missing",
        ),
        (
            ["--run", "r", "--bundle", "b", "--compare", "torch,tensorrt"],
            '--compare: found "torch,tensorrt", expected some of torch,onnx,onnx-int8',
        ),
        ([], "nothing to run: give --manifest-path M"),
        (["--dataset", "mvtec"], "--root: missing; --dataset mvtec needs the folder"),
        (
            ["--dataset", "mvtec", "--manifest-path", "m", "--root", "r"],
            '--manifest-path: has no effect with --dataset "mvtec"',
        ),
        (["--dataset", "mvtecc", "--root", "r"], 'did you mean "mvtec"?'),
        (["--manifest-path", "m", "--resume"], "--resume: has no effect without"),
        (["--suite", "s", "--model", "padim"], "--model: has no effect with --suite"),
        (
            ["--manifest-path", "m", "--robustness-images", "5"],
            "--robustness-images: has no effect without --robustness",
        ),
        (["--manifest-path", "m", "--min", "recal=1"], 'did you mean "recall"?'),
        (["--manifest-path", "m", "--max", "recall=x"], 'found "x", expected a finite'),
        (["--manifest-path", "m", "--max", "recall"], "expected KEY=NUMBER"),
        (["--run", "r", "--bundle", "b", "--compare", "onnx,onnx"], "--compare: found"),
        (
            [
                *("--dataset", "manifest", "--manifest-path", "m"),
                *("--model", "pixelstats"),
            ],
            'no detector "pixelstats"',
        ),
        (
            [
                *("--dataset", "manifest", "--manifest-path", "m"),
                *("--model-options", "{bank: 1}"),
            ],
            "--model-options: line 1, column 2",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], expected: str, tmp_path: Path, run_cli: Run
) -> None:
    done = run_cli("benchmark", *arguments, "--output", tmp_path / "bench")
    assert done.code == 2
    assert expected in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_model_options_that_are_no_object_are_refused(
    tmp_path: Path, run_cli: Run
) -> None:
    done = run_cli(
        *("benchmark", "--dataset", "manifest", "--manifest-path", "m"),
        *("--model-options", "[1]", "--output", tmp_path / "bench"),
    )
    assert done.code == 2
    assert "expected an object" in done.stderr


def test_a_bundle_of_other_data_is_refused(
    exported: Callable[[str], Exported],
    make_config: Callable[..., Path],
    tmp_path: Path,
    run_cli: Run,
) -> None:
    manifest = write_dataset(
        tmp_path / "data",
        **{"n_train": 5, "n_test_normal": 1, "n_test_defect": 1, "seed": 9},
    )
    other = tmp_path / "other"
    assert (
        run_cli("train", "--config", make_config(manifest), "--output", other).code == 0
    )
    done = run_cli(
        *("benchmark", "--run", other, "--bundle", exported("pixel_stats").bundle),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 2
    assert "was exported from another run than" in done.stderr
    assert not (tmp_path / "bench").exists()


def test_a_bundle_whose_model_was_changed_is_refused(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    copy = tmp_path / "bundle"
    shutil.copytree(made.bundle, copy)
    model = copy / "models/bracket.onnx"
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(bytes(data))
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", copy),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 2
    assert "the file was changed after export" in done.stderr
    assert not (tmp_path / "bench").exists()


def test_an_existing_output_is_refused(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    output = tmp_path / "bench"
    output.mkdir()
    (output / "mine.txt").write_text("keep me")
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle),
        *("--output", output),
    )
    assert done.code == 2
    assert "already exists and nothing is overwritten" in done.stderr
    assert [p.name for p in output.iterdir()] == ["mine.txt"]
