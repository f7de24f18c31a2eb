"""`pyimgano bundle diff`: what changed, in facts and in scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import copy_of, edit_document, remove_goldens, set_threshold
from conftest import CommandResult, Exported
from pyimgano_runtime.bundle import open_bundle

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


@pytest.fixture
def made(exported: Export) -> Exported:
    return exported("pixel_stats")


@pytest.fixture
def other(made: Exported, tmp_path: Path) -> Path:
    """Give a copy of the bundle, to be changed."""
    return copy_of(made.bundle, tmp_path / "b")


@pytest.fixture
def diff(run_cli: Run) -> Callable[[Path, Path], dict[str, Any]]:
    """Give a function that compares two bundles and gives the JSON."""

    def compare(a: Path, b: Path) -> dict[str, Any]:
        done = run_cli("bundle", "diff", a, b, "--json")
        assert done.code == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return compare


Diff = Callable[[Path, Path], dict[str, Any]]


def changed(found: dict[str, Any]) -> dict[str, Any]:
    """The rows of the category that changed, by their names."""
    facts = found["categories"]["bracket"]["facts"]
    return {row["what"]: row for row in facts if row["changed"]}


def test_a_bundle_and_itself_are_identical(made: Exported, diff: Diff) -> None:
    found = diff(made.bundle, made.bundle)
    assert found["verdict"] == "identical: same infer_config.json"
    assert changed(found) == {}
    goldens = found["categories"]["bracket"]["goldens"]
    assert [row["in"] for row in goldens] == ["both"] * 4
    assert {row["relative_difference"] for row in goldens} == {0.0}
    assert {row["map_difference_of_range"] for row in goldens} == {0.0}


def test_another_threshold_is_the_same_model(
    made: Exported, other: Path, diff: Diff
) -> None:
    threshold = open_bundle(made.bundle).config.categories["bracket"].thresholds.image
    set_threshold(other, 2 * threshold)
    found = diff(made.bundle, other)
    assert found["verdict"].startswith("same model, other thresholds")
    assert list(changed(found)) == ["threshold.image"]
    assert changed(found)["threshold.image"]["relative_change"] == pytest.approx(1)


def test_labels_that_flip_are_counted_and_named(
    made: Exported, other: Path, diff: Diff, run_cli: Run
) -> None:
    set_threshold(other, 1e6)
    found = diff(made.bundle, other)
    category = found["categories"]["bracket"]
    assert category["label_flips"] == [
        row["image"] for row in category["goldens"] if row["label_a"] == "anomaly"
    ]
    assert category["label_flips"]
    n = len(category["label_flips"])
    assert f"{n} of 4 goldens get another label" in found["verdict"]
    table = run_cli("bundle", "diff", made.bundle, other).stdout
    assert table.count("FLIPS") == n


def test_the_first_line_of_the_table_is_the_verdict(
    made: Exported, other: Path, run_cli: Run
) -> None:
    set_threshold(other, 1e6)
    table = run_cli("bundle", "diff", made.bundle, other).stdout
    assert table.startswith("verdict: same model, other thresholds, ")
    assert "threshold.image" in table
    assert "same: detector, hyper_parameters, " in table


def test_another_detector_is_another_model_scored_on_the_goldens_of_both(
    exported: Export, made: Exported, diff: Diff
) -> None:
    found = diff(made.bundle, exported("padim").bundle)
    assert "other model (detector pixel_stats -> padim)" in found["verdict"]
    rows = changed(found)
    assert {"detector", "model.sha256", "threshold.image"} <= set(rows)
    assert rows["backbone.licence"]["a"] is None
    assert "data_fingerprint" not in rows
    goldens = found["categories"]["bracket"]["goldens"]
    assert len({row["pixels_sha256"] for row in goldens}) == len(goldens)
    for row in goldens:
        assert row["score_a"] is not None
        assert row["score_b"] is not None


def test_each_picture_is_scored_by_both_as_a_device_would(
    exported: Export, made: Exported, diff: Diff
) -> None:
    padim = exported("padim").bundle
    found = diff(made.bundle, padim)["categories"]["bracket"]["goldens"]
    by_pixels = {row["pixels_sha256"]: row for row in found}
    for bundle, side in ((made.bundle, "a"), (padim, "b")):
        for golden in open_bundle(bundle).config.parity.goldens:
            row = by_pixels[golden.pixels_sha256]
            assert row[f"score_{side}"] == pytest.approx(golden.score, rel=1e-5)


def test_facts_that_differ_are_named_alone(
    made: Exported, other: Path, diff: Diff
) -> None:
    def change(document: dict[str, Any]) -> None:
        training = document["training"]["categories"]["bracket"]
        training["hyper_parameters"]["sigma_px"] = 9.0
        training["metrics"]["image_auroc"] = 0.5

    edit_document(other, change)
    rows = changed(diff(made.bundle, other))
    assert set(rows) == {"hyper_parameters.sigma_px", "metrics.image_auroc"}


def test_categories_that_come_and_go_are_named(
    made: Exported, other: Path, diff: Diff, run_cli: Run
) -> None:
    def rename(document: dict[str, Any]) -> None:
        for block in (
            document["categories"],
            document["parity"]["categories"],
            document["training"]["categories"],
        ):
            block["Größe 7"] = block.pop("bracket")
        for golden in document["parity"]["goldens"]:
            golden["category"] = "Größe 7"

    edit_document(other, rename)
    found = diff(made.bundle, other)
    assert found["verdict"] == "added: Größe 7; removed: bracket"
    assert found["categories"]["bracket"]["status"] == "removed"
    table = run_cli("bundle", "diff", made.bundle, other).stdout
    assert "category Größe 7: added (only in B, not in A)" in table


def test_without_goldens_the_facts_are_compared(
    made: Exported, other: Path, run_cli: Run
) -> None:
    first = copy_of(made.bundle, other.parent / "a")
    remove_goldens(first)
    remove_goldens(other)
    done = run_cli("bundle", "diff", first, other)
    assert done.code == 0
    assert "no goldens in either bundle" in done.stdout


def test_a_golden_that_the_other_bundle_refuses_is_a_row_without_score(
    made: Exported, other: Path, diff: Diff
) -> None:
    edit_document(other, lambda document: document["input"].update(max_pixels=100))
    found = diff(made.bundle, other)
    assert "other input rules" in found["verdict"]
    row = found["categories"]["bracket"]["goldens"][0]
    assert row["score_a"] is not None
    assert row["score_b"] is None
    assert "100" in row["error_b"]


def test_a_bundle_whose_file_was_changed_is_refused(
    made: Exported, other: Path, run_cli: Run
) -> None:
    (other / "MODEL_CARD.md").write_text("x")
    done = run_cli("bundle", "diff", made.bundle, other)
    assert done.code == 2
    assert "the file was changed after export" in done.stderr


def test_an_unlisted_file_is_a_warning(
    made: Exported, other: Path, run_cli: Run
) -> None:
    (other / "notes.txt").write_text("x")
    done = run_cli("bundle", "diff", made.bundle, other)
    assert done.code == 0
    assert "notes.txt is not in the list of files" in done.stderr


def test_categories_that_change_differently_are_told_apart(
    made: Exported, other: Path, diff: Diff
) -> None:
    def add_washer(document: dict[str, Any]) -> None:
        for block in (
            document["categories"],
            document["parity"]["categories"],
            document["training"]["categories"],
        ):
            block["washer"] = block["bracket"]

    first = copy_of(made.bundle, other.parent / "a")
    edit_document(first, add_washer)
    edit_document(other, add_washer)
    set_threshold(other, 1e6)
    verdict = diff(first, other)["verdict"]
    assert verdict.startswith("bracket: same model, other thresholds, ")
    assert verdict.endswith("; washer: same model, same thresholds")


def test_metrics_stand_with_their_intervals(
    made: Exported, other: Path, run_cli: Run
) -> None:
    def change(document: dict[str, Any]) -> None:
        metrics = document["training"]["categories"]["bracket"]["metrics"]
        metrics |= {"recall": 0.5, "recall_ci95": [0.25, 0.75]}

    edit_document(other, change)
    table = run_cli("bundle", "diff", made.bundle, other).stdout
    assert "0.5 [0.250, 0.750]" in table
    assert "recall_ci95" not in table


def test_a_picture_that_stands_twice_in_a_bundle_is_scored_once(
    made: Exported, other: Path, diff: Diff
) -> None:
    def repeat(document: dict[str, Any]) -> None:
        goldens = document["parity"]["goldens"]
        goldens.append(goldens[1] | {"map": None})

    first = copy_of(made.bundle, other.parent / "a")
    remove_goldens(other)
    edit_document(first, repeat)
    goldens = diff(first, other)["categories"]["bracket"]["goldens"]
    assert [row["in"] for row in goldens] == ["a"] * 4
