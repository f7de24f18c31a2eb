"""The block `reference`: made of values, read strictly, carried to where it is used."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import category, edit_document, write_bundle

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import BundleError
from pyimgano_runtime.infer_config import Calibration
from pyimgano_runtime.picture_statistics import PictureStatistics
from pyimgano_runtime.reference import (
    Reference,
    bin_counts,
    distribution_of,
    picture_reference,
    with_scores,
)

VALUES = np.random.default_rng(5).normal(100, 10, 60)


def reference() -> Reference:
    pictures = [PictureStatistics(value, 2 * value) for value in VALUES]
    return picture_reference(pictures, 60)


def with_block(folder: Path, block: Any) -> Path:
    write_bundle(folder)

    def edit(document: dict[str, Any]) -> None:
        document["schema_version"] = "1.3"
        document["categories"]["part"]["reference"] = block

    edit_document(folder, edit)
    return folder


def block() -> dict[str, Any]:
    scored = with_scores(reference(), category().thresholds, category().calibration)
    plain: dict[str, Any] = json.loads(json.dumps(asdict(scored)))
    return plain


def test_each_bin_holds_as_many_values() -> None:
    found = distribution_of(np.arange(100), 100)
    assert found.counts == (10,) * 10
    assert len(found.edges) == 9
    assert (found.n, found.mean, found.sd) == (100, 49.5, np.arange(100).std())


@pytest.mark.parametrize(("n", "bins"), [(1, 2), (9, 2), (20, 4), (50, 10), (999, 10)])
def test_few_values_get_few_bins(n: int, bins: int) -> None:
    found = distribution_of(np.arange(n), n)
    assert len(found.counts) == bins
    assert sum(found.counts) == n


def test_equal_values_share_one_edge() -> None:
    found = distribution_of([7.0] * 30, 30)
    assert (found.edges, found.counts, found.sd) == ((7.0,), (0, 30), 0.0)


def test_a_value_on_an_edge_counts_above_it() -> None:
    assert bin_counts([1, 2, 2, 3], (2.0,)).tolist() == [1, 3]


def test_no_values_have_no_distribution() -> None:
    with pytest.raises(ValueError, match="no values"):
        distribution_of([], 0)


def test_the_scores_are_those_of_the_calibration() -> None:
    settings = category()
    found = with_scores(reference(), settings.thresholds, settings.calibration).scores
    assert found is not None
    assert (found.n, found.n_groups, found.mean) == (4, 4, 20.0)
    none = with_scores(reference(), settings.thresholds, Calibration((), 0))
    assert none.scores is None
    assert none.brightness == reference().brightness


def test_a_block_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = open_bundle(with_block(tmp_path / "b", block())).config
    assert json.loads(json.dumps(asdict(found.categories["part"])))["reference"] == (
        block()
    )


def test_a_block_may_lack_scores(tmp_path: Path) -> None:
    found = open_bundle(with_block(tmp_path / "b", block() | {"scores": None})).config
    assert found.categories["part"].reference == reference()


def test_all_problems_of_a_broken_block_are_said_at_once(tmp_path: Path) -> None:
    broken = block()
    broken["scores"]["edges"] = [3.0, 3.0]
    broken["scores"]["n_groups"] = 99
    broken["brightness"]["counts"][0] += 1
    broken["brightness"]["colour"] = 1
    broken["sharpness"]["sd"] = -1
    broken["sharpness"]["counts"][1] = 2.5
    broken["shapness"] = None
    with pytest.raises(BundleError) as caught:
        open_bundle(with_block(tmp_path / "b", broken))
    said = str(caught.value)
    for line in (
        "categories.part.reference.scores.edges: expected ascending numbers, none",
        "categories.part.reference.scores.n_groups: found 99, expected at most n, 4",
        "categories.part.reference.brightness.counts: add up to 61, expected n, 60",
        "categories.part.reference.brightness.colour: unknown key",
        "categories.part.reference.sharpness.sd: found -1, expected a finite number",
        "categories.part.reference.sharpness.counts[1]: expected a whole number",
        'categories.part.reference.shapness: unknown key (did you mean "sharpness"?)',
    ):
        assert line in said
    assert said.startswith("7 problems")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": []}, "edges: found 0 numbers, expected 1 to 1000"),
        ({"edges": [1e39]}, "edges: expected numbers that float32 can hold"),
        ({"counts": [60]}, "counts: found 1 numbers for 9 edges, expected one more"),
        ({"n": 0}, "n: found 0, expected a whole number of at least 1"),
    ],
)
def test_numbers_that_contradict_each_other_are_no_distribution(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    broken = block()
    broken["brightness"] |= change
    with pytest.raises(BundleError) as caught:
        open_bundle(with_block(tmp_path / "b", broken))
    assert f"reference.brightness.{message}" in str(caught.value)


def test_settings_without_a_reference_are_equal_to_before() -> None:
    assert category().reference is None
    assert replace(category(), reference=reference()) != category()
