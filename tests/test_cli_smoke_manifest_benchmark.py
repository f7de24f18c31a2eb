"""`pyimgano benchmark --dataset manifest` from the command line to the report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest
from pyimgano.datasets.catalog import DataSource, read_dataset
from pyimgano.datasets.splits import split_manifest

Run = Callable[..., CommandResult]
QUICK = (
    *("--model", "pixel_stats", "--model-options", '{"image_size": [32, 32]}'),
    "--no-process-costs",
)


def test_the_script_trains_exports_and_compares(
    small_dataset: Path, tmp_path: Path
) -> None:
    """As a process: what users type."""
    output = tmp_path / "bench"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pyimgano.benchmark_cli"),
            *("--dataset", "manifest", "--manifest-path", str(small_dataset)),
            *(*QUICK, "--output", str(output)),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "torch and onnx: 0 label flips" in done.stdout
    report = json.loads((output / "report.json").read_text("utf-8"))
    assert report["dataset"] == "manifest"
    assert report["dataset_name"] == small_dataset.parent.name
    assert set(report["categories"]["bracket"]["engines"]) == {"torch", "onnx"}


@pytest.mark.parametrize(
    ("seeds", "split_seed"),
    [
        (("--manifest-split-seed", "3"), 3),
        (("--seed", "5"), 5),  # the split's too, where that is not given
    ],
)
def test_the_split_is_that_of_the_workbench(
    seeds: tuple[str, ...], split_seed: int, tmp_path: Path, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=14, size=(32, 32), with_splits=False
    )
    output = tmp_path / "bench"
    done = run_cli(
        *("benchmark", "--manifest-path", manifest, *QUICK, "--output", output),
        *("--manifest-test-normal-fraction", "0.4", *seeds),
    )
    assert done.code == 0, done.stderr
    splits = {
        seed: split_manifest(
            read_dataset(DataSource("manifest", manifest)),
            test_normal_fraction=0.4,
            seed=seed,
        )[0]
        for seed in (0, split_seed)
    }
    lines = (output / "categories/bracket/per_image.jsonl").read_text().splitlines()
    tested = {json.loads(line)["input"] for line in lines}
    assert tested == {row.image for row in splits[split_seed].test}
    assert tested != {row.image for row in splits[0].test}  # the default's


def test_the_root_is_only_a_fallback(tmp_path: Path, run_cli: Run) -> None:
    """Pictures beside the manifest come first, the others from --root."""
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    moved = write_manifest(tmp_path / "lists/manifest.jsonl", read_rows(manifest))
    first = read_rows(moved)[0]["image_path"]
    wrong = moved.parent / first
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"not a picture")
    command = ("benchmark", "--manifest-path", moved, "--root", manifest.parent, *QUICK)
    done = run_cli(*command, "--output", tmp_path / "bench")
    assert done.code == 2
    assert str(wrong) in done.stderr  # its own folder was looked at first
    wrong.unlink()
    assert run_cli(*command, "--output", tmp_path / "bench").code == 0


def test_a_missing_manifest_says_how_to_make_one(tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("benchmark", "--dataset", "manifest", "--output", tmp_path / "out")
    assert done.code == 2
    assert "--manifest-path: missing" in done.stderr
    assert "pyimgano manifest create" in done.stderr


@pytest.mark.parametrize("dataset", ["manifest", "mvtec"])
def test_another_input_mode_is_refused(
    dataset: str, small_dataset: Path, tmp_path: Path, run_cli: Run
) -> None:
    place = ("--manifest-path", small_dataset)
    if dataset != "manifest":
        place = ("--root", small_dataset.parent)
    done = run_cli(
        *("benchmark", "--dataset", dataset, *place, "--input-mode", "numpy"),
        *("--output", tmp_path / "out"),
    )
    assert done.code == 2
    assert f'data set "{dataset}" is read from paths only' in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_layout_is_trained_and_compared(tmp_path: Path, run_cli: Run) -> None:
    manifest = write_dataset(tmp_path / "data", size=(32, 32))
    root = tmp_path / "custom"
    for row in read_rows(manifest):
        part = "train" if row["split"] == "train" else "test"
        kind = "bad" if row["label"] else "good"
        target = root / part / kind / Path(row["image_path"]).name
        target.parent.mkdir(parents=True, exist_ok=True)
        data = (manifest.parent / row["image_path"]).read_bytes()
        target.with_stem(f"{kind}{len(data)}{target.stem}").write_bytes(data)
    done = run_cli(
        *("benchmark", "--dataset", "custom", "--root", root, *QUICK, "--json"),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["dataset"] == "custom"
    (category,) = report["categories"].values()
    assert category["pixel_metrics"]["reason"] == (
        "none of the 4 test anomalies has a mask"
    )


def test_a_gate_on_an_engine_that_cannot_run_is_missed(
    small_dataset: Path, tmp_path: Path, run_cli: Run
) -> None:
    """pixel_stats has nothing to quantize: no green light for an int8 that is not."""
    done = run_cli(
        *("benchmark", "--manifest-path", small_dataset, *QUICK),
        *("--compare", "torch,onnx-int8", "--min", "image_auroc=0"),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 1
    assert "bracket (onnx-int8): image_auroc not measured" in done.stderr


def test_a_run_is_judged_by_test_pictures_alone(
    exported: Callable[[str], Exported], tmp_path: Path, run_cli: Run
) -> None:
    made = exported("pixel_stats")
    rows = [row for row in read_rows(made.manifest) if row["split"] == "test"]
    manifest = write_manifest(tmp_path / "own/manifest.jsonl", rows)
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle, "--json"),
        *("--manifest-path", manifest, "--root", made.manifest.parent),
        *("--no-process-costs", "--output", tmp_path / "bench"),
    )
    assert done.code == 0, done.stderr
    category = json.loads(done.stdout)["categories"]["bracket"]
    trained = json.loads((made.run / "report.json").read_text("utf-8"))
    # What it learned from is the run's, whatever data judges it.
    for key in ("training_fingerprint", "test_fingerprint", "split_fingerprint"):
        assert category[key] == trained["categories"]["bracket"][key]


def test_a_gate_that_is_missed_ends_with_1_and_keeps_the_report(
    small_dataset: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "bench"
    done = run_cli(
        *("benchmark", "--manifest-path", small_dataset, *QUICK, "--output", output),
        *("--min", "image_auroc=1.01", "--max", "label_flips=0"),
    )
    assert done.code == 1
    assert "image_auroc" in done.stderr
    assert "MISSED" in done.stderr
    assert "label_flips 0, asked at most 0: met" in done.stderr
    assert (output / "report.json").is_file()
