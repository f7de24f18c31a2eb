"""`pyimgano bundle accept`: a verdict that a release process can stand on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import copy_of, edit_document, remove_goldens, set_threshold
from conftest import CommandResult, Exported
from factories import read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]


@pytest.fixture
def made(exported: Callable[[str], Exported]) -> Exported:
    return exported("patchcore")


def _accept(
    run_cli: Run, made: Exported, output: Path, *more: str | Path
) -> tuple[CommandResult, dict[str, Any]]:
    done = run_cli(
        *("bundle", "accept", made.bundle, "--manifest-path", made.manifest),
        *("--output", output, "--json", *more),
    )
    return done, json.loads(done.stdout)


def test_a_bundle_that_meets_every_gate_is_accepted(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    done, report = _accept(
        *(run_cli, made, tmp_path / "verdict"),
        *("--min", "recall=0.1", "--max", "latency_ms.p95=60000"),
        *("--max", "max_abs_score_diff=0.01", "--min", "image_auroc=0.1"),
    )
    assert done.code == 0, done.stderr
    assert report["accepted"] is True
    assert all(gate["met"] for gate in report["gates"])
    written = json.loads((tmp_path / "verdict/report.json").read_text("utf-8"))
    assert written == report
    rows = (tmp_path / "verdict/categories/bracket/per_image.jsonl").read_text()
    assert len(rows.splitlines()) == 12


def test_the_numbers_are_those_of_the_benchmark(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    _, report = _accept(run_cli, made, tmp_path / "verdict")
    done = run_cli(
        *("benchmark", "--run", made.run, "--bundle", made.bundle, "--json"),
        *("--no-process-costs", "--output", tmp_path / "bench"),
    )
    onnx = json.loads(done.stdout)["categories"]["bracket"]["engines"]["onnx"]
    found = report["categories"]["bracket"]
    for key in ("image_auroc", "recall", "false_alarm_rate", "pixel_auroc", "seg_f1"):
        assert found[key] == onnx[key]


def test_the_difference_is_taken_over_the_goldens(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    _, report = _accept(run_cli, made, tmp_path / "verdict")
    found = report["categories"]["bracket"]
    assert found["goldens"] >= 4
    assert 0 <= found["max_abs_score_diff"] < 0.01
    assert found["goldens_disagreeing"] == 0


def test_without_goldens_their_difference_is_not_met(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(made.bundle, tmp_path / "bundle")
    remove_goldens(bundle)
    done = run_cli(
        *("bundle", "accept", bundle, "--manifest-path", made.manifest, "--json"),
        *("--max", "max_abs_score_diff=1", "--output", tmp_path / "verdict"),
    )
    assert done.code == 1, done.stderr
    (missed,) = [gate for gate in json.loads(done.stdout)["gates"] if not gate["met"]]
    assert missed["key"] == "max_abs_score_diff"
    assert missed["reason"] == "no golden of this category could be replayed here"


@pytest.mark.parametrize(
    "gate",
    [
        ("--min", "image_auroc=1.01"),
        ("--max", "latency_ms.p95=0.0001"),
        ("--max", "max_abs_score_diff=-1"),
        ("--min", "recall=1.01"),
    ],
)
def test_a_missed_floor_ends_with_1_and_writes_the_verdict(
    gate: tuple[str, str], made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    done, report = _accept(run_cli, made, tmp_path / "verdict", *gate)
    assert done.code == 1
    assert report["accepted"] is False
    (missed,) = [g for g in report["gates"] if not g["met"]]
    assert missed["key"] == gate[1].split("=")[0]


def test_a_number_that_was_not_measured_is_not_met(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    done, report = _accept(
        *(run_cli, made, tmp_path / "verdict", "--no-pixel-metrics"),
        *("--min", "pixel_auroc=0"),
    )
    assert done.code == 1
    missed = report["gates"][-1]
    assert missed["value"] is None
    assert missed["reason"] == "evaluation.pixel_metrics is false"


def test_a_detector_that_finds_nothing_is_never_ready(
    tmp_path: Path, run_cli: Run, made: Exported
) -> None:
    """Its threshold is out of reach: no false alarm, and no defect found."""
    bundle = copy_of(made.bundle, tmp_path / "deaf")
    set_threshold(bundle, 1e9)
    done = run_cli(
        *("bundle", "accept", bundle, "--manifest-path", made.manifest),
        *("--max", "false_alarm_rate=0.02", "--output", tmp_path / "verdict"),
    )
    assert done.code == 1, done.stderr
    assert "NOT accepted" in done.stdout
    report = json.loads((tmp_path / "verdict/report.json").read_text("utf-8"))
    assert report["categories"]["bracket"]["false_alarm_rate"] == 0
    missed = [gate for gate in report["gates"] if not gate["met"]]
    assert [(g["key"], g["bound"], g["value"]) for g in missed] == [
        ("recall", "above", 0.0)
    ]


def test_every_category_of_the_bundle_must_be_judged(
    two_parts: Exported, tmp_path: Path, run_cli: Run
) -> None:
    manifest, root = _rows(two_parts, tmp_path, lambda r: r["category"] == "bracket")
    command = ("bundle", "accept", two_parts.bundle, "--manifest-path", manifest)
    done = run_cli(*command, "--root", root, "--json", "--output", tmp_path / "verdict")
    assert done.code == 1, done.stderr
    report = json.loads(done.stdout)
    assert report["not_judged"] == ["connector"]
    (missed,) = [
        g for g in report["gates"] if not g["met"] and g["where"] == "connector"
    ]
    assert missed["reason"] == "the data holds no test pictures of this category"


def test_a_category_that_is_left_out_must_still_agree_with_its_goldens(
    two_parts: Exported, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(two_parts.bundle, tmp_path / "bundle")

    def falsify(document: dict[str, Any]) -> None:
        for golden in document["parity"]["goldens"]:
            if golden["category"] == "connector":
                golden["score"] *= 2

    edit_document(bundle, falsify)
    done = run_cli(
        *("bundle", "accept", bundle, "--manifest-path", two_parts.manifest),
        *("--category", "bracket", "--json", "--output", tmp_path / "verdict"),
    )
    report = json.loads(done.stdout)
    assert done.code == 1
    missed = [gate for gate in report["gates"] if not gate["met"]]
    assert ("connector", "goldens_disagreeing") in [
        (gate["where"], gate["key"]) for gate in missed
    ]


def _rows(
    made: Exported, tmp_path: Path, keep: Callable[[dict[str, Any]], bool]
) -> tuple[Path, Path]:
    rows = [row for row in read_rows(made.manifest) if keep(row)]
    return write_manifest(tmp_path / "own/manifest.jsonl", rows), made.manifest.parent


def test_a_manifest_of_test_pictures_alone_is_enough(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    manifest, root = _rows(made, tmp_path, lambda row: row["split"] == "test")
    done = run_cli(
        *("bundle", "accept", made.bundle, "--manifest-path", manifest),
        *("--root", root, "--json", "--output", tmp_path / "verdict"),
    )
    assert done.code == 0, done.stderr
    held_out = json.loads(done.stdout)["categories"]["bracket"]["held_out"]
    assert held_out == 'as told: the rows are of split "test"'


def test_the_training_manifest_proves_that_the_pictures_are_held_out(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    _, report = _accept(run_cli, made, tmp_path / "verdict")
    assert report["categories"]["bracket"]["held_out"].startswith("proven")


def test_pictures_that_may_have_trained_accept_nothing(
    tmp_path: Path, run_cli: Run
) -> None:
    """The training manifest, its rows without a split, but another seed."""
    manifest = write_dataset(
        tmp_path / "data", n_train=20, size=(32, 32), with_splits=False
    )
    options = '{"image_size": [32, 32]}'
    done = run_cli(
        *("benchmark", "--manifest-path", manifest, "--model", "pixel_stats"),
        *("--model-options", options, "--no-process-costs"),
        *("--output", tmp_path / "bench"),
    )
    assert done.code == 0, done.stderr
    command = ("bundle", "accept", tmp_path / "bench/bundle", "--json")
    kept = {}
    for seed in ("0", "7"):
        done = run_cli(
            *(*command, "--manifest-path", manifest, "--manifest-split-seed", seed),
            *("--output", tmp_path / seed),
        )
        report = json.loads(done.stdout)
        kept[seed] = [g["key"] for g in report["gates"] if not g["met"]]
    assert "held_out" not in kept["0"]
    assert "held_out" in kept["7"]


def test_without_anomalies_nothing_is_accepted(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    manifest, root = _rows(made, tmp_path, lambda row: row["label"] == 0)
    done = run_cli(
        *("bundle", "accept", made.bundle, "--manifest-path", manifest),
        *("--root", root, "--output", tmp_path / "verdict"),
    )
    assert done.code == 1
    assert "recall not measured: needs an anomalous image" in done.stdout


def test_a_manifest_of_other_categories_is_refused(
    made: Exported, two_parts: Exported, tmp_path: Path, run_cli: Run
) -> None:
    manifest, root = _rows(two_parts, tmp_path, lambda r: r["category"] == "connector")
    done = run_cli(
        *("bundle", "accept", made.bundle, "--manifest-path", manifest),
        *("--root", root, "--output", tmp_path / "verdict"),
    )
    assert done.code == 2
    assert "no category of the bundle (bracket); it holds: connector" in done.stderr
    assert not (tmp_path / "verdict").exists()


def test_the_default_place_is_beside_the_bundle_and_is_renewed(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(made.bundle, tmp_path / "release")
    command = ("bundle", "accept", bundle, "--manifest-path", made.manifest)
    for _ in range(2):
        done = run_cli(*command)
        assert done.code == 0, done.stderr
    assert (tmp_path / "release.acceptance/report.json").is_file()
    assert run_cli("bundle", "verify", bundle).code == 0  # nothing was put into it


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "which pictures judge?"),
        (["--manifest-path", "m", "--min", "recal=1"], 'did you mean "recall"?'),
        (["--manifest-path", "m", "--min", "recall=1", "--min", "recall=0"], "twice"),
        (["--manifest-path", "none.jsonl"], "none.jsonl"),
        (["--manifest-path", "m", "--max", "recall=0.9"], "give --min recall=0.9"),
        (
            ["--manifest-path", "m", "--min", "latency_ms.p95=50"],
            "give --max latency_ms.p95=50",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    arguments: list[str], expected: str, made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    done = run_cli(
        "bundle", "accept", made.bundle, *arguments, "--output", tmp_path / "verdict"
    )
    assert done.code == 2
    assert expected in done.stderr
    assert not (tmp_path / "verdict").exists()


def test_a_changed_bundle_is_refused(
    made: Exported, tmp_path: Path, run_cli: Run
) -> None:
    bundle = copy_of(made.bundle, tmp_path / "bundle")
    model = next((bundle / "models").iterdir())
    model.write_bytes(model.read_bytes() + b" ")
    done = run_cli(
        *("bundle", "accept", bundle, "--manifest-path", made.manifest),
        *("--output", tmp_path / "verdict"),
    )
    assert done.code == 2
    assert not (tmp_path / "verdict").exists()
