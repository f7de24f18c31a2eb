"""`pyimgano runs compare`: real runs of the same pictures, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from conftest import CommandResult, Exported, config_payload
from factories import read_rows, write_dataset, write_manifest
from pyimgano.metrics import auroc, bootstrap_difference
from pyimgano.metrics.paired import sign_test
from pyimgano.pipelines.regression_gates import parse_regression_gates

Run = Callable[..., CommandResult]
Edit = Callable[[dict[str, Any]], None]


@pytest.fixture(scope="module")
def trained(
    small_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """Give a function that trains pixel_stats, once for the same name."""
    from pyimgano.cli import main

    folder = tmp_path_factory.mktemp("runs")

    def train(name: str, manifest: Path = small_dataset, **blocks: Any) -> Path:
        run = folder / name
        if not run.exists():
            config = folder / f"{name}.json"
            config.write_text(json.dumps(config_payload(manifest) | blocks), "utf-8")
            assert main(["train", "--config", str(config), "--output", str(run)]) == 0
        return run

    return train


Train = Callable[..., Path]


@pytest.fixture
def reference(trained: Train) -> Path:
    return trained("reference")


@pytest.fixture
def candidate(trained: Train) -> Path:
    """Give a run with a blur so wide, and a threshold so low, that much differs."""
    return trained(
        "candidate",
        model={
            "name": "pixel_stats",
            "options": {"image_size": [48, 48], "sigma_px": 8.0},
        },
        calibration={"target_false_alarm_rate": 0.3},
    )


@pytest.fixture(scope="module")
def benchmarked(
    exported: Callable[[str], Exported], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Give a benchmark of a run and its bundle."""
    from pyimgano.cli import main

    made = exported("pixel_stats")
    output = tmp_path_factory.mktemp("benchmarks") / "bench"
    command = ["benchmark", "--run", str(made.run), "--bundle", str(made.bundle)]
    assert main([*command, "--output", str(output)]) == 0
    return output


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[Path, Edit], Path]:
    """Give a function that copies a run and changes its category's report."""

    def edit(run: Path, change: Edit) -> Path:
        copy = tmp_path / f"{run.name}_{len(list(tmp_path.iterdir()))}"
        shutil.copytree(run, copy)
        path = copy / "report.json"
        report = json.loads(path.read_text("utf-8"))
        change(report)
        path.write_text(json.dumps(report), encoding="utf-8")
        return copy

    return edit


Edited = Callable[[Path, Edit], Path]


@pytest.fixture
def compare(run_cli: Run) -> Callable[..., dict[str, Any]]:
    """Give a function that compares and gives the JSON."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        done = run_cli("runs", "compare", *arguments, "--json")
        assert done.code == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


Compare = Callable[..., dict[str, Any]]


def metrics_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    rows = found["categories"]["bracket"]["metrics"]
    return {row["key"]: row for row in rows}


def category_of(report: dict[str, Any]) -> dict[str, Any]:
    category: dict[str, Any] = report["categories"]["bracket"]
    return category


def setter(key: str, value: Any) -> Edit:
    def change(report: dict[str, Any]) -> None:
        category_of(report)[key] = value

    return change


def test_a_run_and_itself_do_not_differ(reference: Path, compare: Compare) -> None:
    found = compare(reference, reference)
    assert {row["verdict"] for row in metrics_of(found).values()} == {"same"}
    assert metrics_of(found)["image_auroc"]["difference_ci95"] == [0.0, 0.0]
    assert found["changed"] == {"config": [], "environment": []}
    assert found["passed"]


def test_metrics_stand_side_by_side_with_their_direction(
    reference: Path, candidate: Path, compare: Compare
) -> None:
    rows = metrics_of(compare(reference, candidate))
    reports = [
        category_of(json.loads((run / "report.json").read_text("utf-8")))
        for run in (reference, candidate)
    ]
    for key, row in rows.items():
        if "latency" not in key:
            assert [row["a"], row["b"]] == [report[key] for report in reports]
        assert row["difference"] == row["b"] - row["a"]
    assert rows["false_alarm_rate"]["difference"] > 0
    assert rows["false_alarm_rate"]["verdict"] == "worse"
    assert rows["recall"]["difference"] > 0
    assert rows["recall"]["verdict"] == "better"


def test_the_interval_is_the_paired_bootstrap_of_the_rows(
    reference: Path, candidate: Path, compare: Compare
) -> None:
    a, b = (
        {row["input"]: row for row in read_rows(place)}
        for run in (reference, candidate)
        for place in [run / "categories/bracket/per_image.jsonl"]
    )
    expected = bootstrap_difference(
        auroc,
        [row["score"] for row in a.values()],
        [b[name]["score"] for name in a],
        [row["label_true"] for row in a.values()],
        generator=np.random.default_rng(0),
    )
    row = metrics_of(compare(reference, candidate))["image_auroc"]
    assert row["difference_ci95"] == list(expected)
    assert row["distinguishable"] is (expected.low > 0 or expected.high < 0)


def test_the_order_of_rows_in_a_file_does_not_matter(
    reference: Path, candidate: Path, edited: Edited, compare: Compare
) -> None:
    turned = edited(candidate, lambda report: None)
    path = turned / "categories/bracket/per_image.jsonl"
    write_manifest(path, reversed(read_rows(path)))
    before, after = compare(reference, candidate), compare(reference, turned)
    assert before["categories"] == after["categories"]


def test_pictures_that_only_one_side_judges_rightly_are_counted(
    reference: Path, candidate: Path, compare: Compare
) -> None:
    found = compare(reference, candidate)
    for key, truth in (("recall", 1), ("false_alarm_rate", 0)):
        paired = found["categories"]["bracket"]["paired"][key]
        right = "anomaly" if truth else "normal"
        a, b = (
            {
                row["input"]
                for row in read_rows(run / "categories/bracket/per_image.jsonl")
                if row["label_true"] == truth and row["label"] == right
            }
            for run in (reference, candidate)
        )
        assert set(paired["right_in_a_only"]) == a - b
        assert set(paired["right_in_b_only"]) == b - a
        assert paired["right_in_both"] == len(a & b)
        assert paired["p_value"] == pytest.approx(sign_test(len(a - b), len(b - a)))


@pytest.mark.parametrize("counts", [(0, 1), (0, 5), (0, 6), (3, 9), (7, 7), (40, 900)])
def test_the_p_value_is_that_of_scipys_exact_test(counts: tuple[int, int]) -> None:
    expected = binomtest(counts[0], sum(counts), 0.5).pvalue
    assert sign_test(*counts) == pytest.approx(expected, rel=1e-9)
    assert sign_test(*reversed(counts)) == sign_test(*counts)


def test_two_that_agree_everywhere_are_not_distinguishable() -> None:
    assert sign_test(0, 0) == 1.0


def test_changed_options_are_named(
    reference: Path, candidate: Path, compare: Compare
) -> None:
    changed = compare(reference, candidate)["changed"]
    named = {row["what"]: (row["a"], row["b"]) for row in changed["config"]}
    assert named == {
        "model.options.image_size": ([64, 64], [48, 48]),
        "model.options.sigma_px": (None, 8.0),
        "calibration.target_false_alarm_rate": (0.01, 0.3),
    }
    assert changed["environment"] == []


def test_another_machine_is_named_and_its_times_are_doubted(
    reference: Path, edited: Edited, compare: Compare
) -> None:
    other = edited(reference, lambda report: None)
    path = other / "environment.json"
    facts = json.loads(path.read_text("utf-8")) | {"machine": "abacus, 1 core"}
    path.write_text(json.dumps(facts), encoding="utf-8")
    found = compare(reference, other)
    assert [row["what"] for row in found["changed"]["environment"]] == ["machine"]
    assert "do not compare their times" in found["notes"][0]


def test_the_table_says_what_is_noise(
    reference: Path, candidate: Path, run_cli: Run
) -> None:
    done = run_cli("runs", "compare", reference, candidate)
    assert done.code == 0
    assert "within noise" in done.stdout
    assert "model.options.sigma_px" in done.stdout
    assert "promises about 30.00% false alarms" in done.stdout


# What cannot be compared


def test_another_split_seed_is_refused(
    trained: Train, tmp_path_factory: pytest.TempPathFactory, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path_factory.mktemp("free"), n_train=20, size=(64, 64), with_splits=False
    )
    a = trained("seed0", manifest)
    b = trained("seed1", manifest, seed=1)
    done = run_cli("runs", "compare", a, b)
    assert done.code == 2
    assert "bracket: A and B were tested on other pictures" in done.stderr
    relaxed = run_cli("runs", "compare", a, b, "--allow-other-training-data")
    assert relaxed.code == 2


def test_other_training_pictures_are_refused_unless_allowed(
    trained: Train, reference: Path, small_dataset: Path, run_cli: Run
) -> None:
    fewer = small_dataset.with_name("fewer.jsonl")
    write_manifest(fewer, read_rows(small_dataset)[1:])
    other = trained("fewer", fewer)
    done = run_cli("runs", "compare", reference, other)
    assert done.code == 2
    assert "same test pictures, but other pictures in train" in done.stderr
    assert "--allow-other-training-data" in done.stderr
    allowed = ("--allow-other-training-data", "--json")
    done = run_cli("runs", "compare", reference, other, *allowed)
    assert done.code == 0
    category = json.loads(done.stdout)["categories"]["bracket"]
    assert category["same_training_data"] is False


def test_a_val_row_that_was_none_is_told_from_train(
    trained: Train, small_dataset: Path, run_cli: Run
) -> None:
    rows = read_rows(small_dataset)
    one = [row | {"split": "val"} if i < 5 else row for i, row in enumerate(rows)]
    a = trained("val5", write_manifest(small_dataset.with_name("v5.jsonl"), one))
    less = [row for i, row in enumerate(one) if i != 4]
    b = trained("val4", write_manifest(small_dataset.with_name("v4.jsonl"), less))
    done = run_cli("runs", "compare", a, b)
    assert done.code == 2
    assert "other pictures in val" in done.stderr


def test_another_label_in_test_is_another_test(
    trained: Train, reference: Path, small_dataset: Path, run_cli: Run
) -> None:
    rows = read_rows(small_dataset)
    rows[-1] |= {"label": 0, "mask_path": None}
    other = trained("label", write_manifest(small_dataset.with_name("l.jsonl"), rows))
    done = run_cli("runs", "compare", reference, other)
    assert done.code == 2
    assert "other labels" in done.stderr


def test_a_report_of_an_earlier_version_is_refused_with_what_to_do(
    reference: Path, edited: Edited, run_cli: Run
) -> None:
    old = edited(reference, lambda r: category_of(r).pop("split_fingerprint"))
    done = run_cli("runs", "compare", reference, old)
    assert done.code == 2
    assert str(old) in done.stderr
    assert "make it again" in done.stderr


def test_runs_without_a_common_category_are_refused_by_name(
    reference: Path, two_parts: Exported, edited: Edited, run_cli: Run
) -> None:
    only = edited(two_parts.run, lambda r: r["categories"].pop("bracket"))
    done = run_cli("runs", "compare", reference, only)
    assert done.code == 2
    assert "has bracket;" in done.stderr
    assert "has connector" in done.stderr


def test_an_unknown_category_is_refused_naming_the_closest(
    reference: Path, run_cli: Run
) -> None:
    done = run_cli("runs", "compare", reference, reference, "--category", "brackt")
    assert done.code == 2
    assert 'did you mean "bracket"?' in done.stderr


def test_rows_that_lack_a_picture_are_refused(
    reference: Path, edited: Edited, run_cli: Run
) -> None:
    cut = edited(reference, lambda report: None)
    path = cut / "categories/bracket/per_image.jsonl"
    write_manifest(path, read_rows(path)[1:])
    done = run_cli("runs", "compare", reference, cut)
    assert done.code == 2
    assert "1 pictures of per_image.jsonl are in one folder only" in done.stderr


def test_an_engine_of_two_training_runs_is_refused(
    reference: Path, run_cli: Run
) -> None:
    done = run_cli("runs", "compare", reference, reference, "--engine", "onnx")
    assert done.code == 2
    assert "only benchmarks have engines" in done.stderr


# Benchmarks


def test_a_run_compares_with_its_benchmark_by_onnx(
    exported: Callable[[str], Exported], benchmarked: Path, compare: Compare
) -> None:
    found = compare(exported("pixel_stats").run, benchmarked)
    category = found["categories"]["bracket"]
    assert [category["engine_a"], category["engine_b"]] == [None, "onnx"]
    assert metrics_of(found)["image_auroc"]["difference"] == 0
    assert any("times were taken in different ways" in note for note in found["notes"])


def test_another_engine_can_be_named(benchmarked: Path, compare: Compare) -> None:
    found = compare(benchmarked, benchmarked, "--engine", "torch")
    assert found["categories"]["bracket"]["engine_b"] == "torch"


def test_an_engine_that_was_not_measured_is_refused(
    benchmarked: Path, run_cli: Run
) -> None:
    engine = ("--engine", "onnx-int8")
    done = run_cli("runs", "compare", benchmarked, benchmarked, *engine)
    assert done.code == 2
    assert "was not measured; there: torch, onnx" in done.stderr


# Gates


def test_a_gate_that_is_missed_exits_1_and_says_by_how_much(
    reference: Path, edited: Edited, run_cli: Run
) -> None:
    a = edited(reference, setter("recall", 0.9))
    b = edited(reference, setter("recall", 0.7))
    done = run_cli("runs", "compare", a, b, "--fail-on-regression", "recall=0.1")
    assert done.code == 1
    assert "bracket: recall may be worse by 0.1, is worse by 0.2" in done.stderr


@pytest.mark.parametrize(
    ("key", "a", "b", "allowed", "code"),
    [
        ("recall", 0.9, 0.8, 0.1, 0),  # 0.9 - 0.8 is more than 0.1 by rounding
        ("recall", 0.9, 0.8, 0.099, 1),
        ("recall", 0.8, 0.9, 0.0, 0),
        ("recall", 0.8, 0.8, 0.0, 0),
        ("false_alarm_rate", 0.1, 0.2, 0.05, 1),
        ("false_alarm_rate", 0.2, 0.1, 0.0, 0),
        ("image_auroc", 0.9, None, 0.5, 1),
        ("latency_ms", {"p95": 5.0}, {"p95": 9.0}, 3.0, 1),
        ("latency_ms", {"p95": 5.0}, {"p95": 9.0}, 4.0, 0),
    ],
)
def test_a_gate_knows_direction_rounding_and_what_is_missing(
    key: str,
    a: Any,
    b: Any,
    allowed: float,
    code: int,
    reference: Path,
    edited: Edited,
    run_cli: Run,
) -> None:
    folders = [edited(reference, setter(key, value)) for value in (a, b)]
    name = "latency_ms.p95" if key == "latency_ms" else key
    gate = ("--fail-on-regression", f"{name}={allowed}")
    assert run_cli("runs", "compare", *folders, *gate).code == code


def test_all_missed_gates_are_listed_and_json_is_still_printed(
    reference: Path, edited: Edited, run_cli: Run
) -> None:
    def worse(report: dict[str, Any]) -> None:
        category_of(report).update({"recall": 0.0, "image_f1": 0.0})

    a = edited(reference, lambda r: category_of(r).update(recall=0.9, image_f1=0.9))
    b = edited(reference, worse)
    gates = ("recall=0.1", "image_f1=0.1", "pixel_auroc=0")
    options = [part for gate in gates for part in ("--fail-on-regression", gate)]
    done = run_cli("runs", "compare", a, b, *options, "--json")
    assert done.code == 1
    found = json.loads(done.stdout)
    assert [gate["met"] for gate in found["gates"]] == [False, False, True]
    assert found["passed"] is False
    assert len(done.stderr.splitlines()) == 2


def test_a_category_that_the_candidate_lost_is_a_regression(
    two_parts: Exported, edited: Edited, run_cli: Run
) -> None:
    lost = edited(two_parts.run, lambda r: r["categories"].pop("connector"))
    gate = ("--fail-on-regression", "image_auroc=0")
    done = run_cli("runs", "compare", two_parts.run, lost, *gate)
    assert done.code == 1
    assert "connector" in done.stderr
    assert "B has no such category" in done.stderr
    chosen = (*gate, "--category", "bracket")
    assert run_cli("runs", "compare", two_parts.run, lost, *chosen).code == 0


@pytest.mark.parametrize(
    ("gate", "said"),
    [
        ("recal=0.1", 'did you mean "recall"?'),
        ("recall=-0.1", "expected how much worse it may be, at least 0"),
        ("recall", "expected KEY=NUMBER"),
        ("recall=nan", "expected a finite number"),
        ("label_flips=0", "nothing could be judged"),
    ],
)
def test_a_gate_that_cannot_be_held_is_refused(
    gate: str, said: str, reference: Path, run_cli: Run
) -> None:
    option = ("--fail-on-regression", gate)
    done = run_cli("runs", "compare", reference, reference, *option)
    assert done.code == 2
    assert said in done.stderr


def test_a_gate_given_twice_is_refused() -> None:
    with pytest.raises(Exception, match="given twice"):
        parse_regression_gates(["recall=0.1", "recall=0.2"])
