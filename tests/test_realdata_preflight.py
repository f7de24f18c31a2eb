"""Preflight of the reference sets reports what is really there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult

Run = Callable[..., CommandResult]

pytestmark = pytest.mark.realdata

# Pairs of one part across train and test, all seen to be true (docs/preflight.md).
PAIRS = {
    "cookies": 0,
    "elpv_mono": 0,
    "magnetic_tile": 7,
    "mvtec_screw": 0,
    "sdu_composite": 0,
}


@pytest.fixture
def data() -> Path:
    named = os.environ.get("PYIMGANO_TEST_DATA")
    if named is None:
        pytest.skip("PYIMGANO_TEST_DATA names no reference sets")
    return Path(named)


@pytest.mark.parametrize("name", PAIRS)
def test_a_reference_set_has_no_errors_and_these_pairs(
    run_cli: Run, data: Path, name: str
) -> None:
    manifest = data / name / "manifest.jsonl"
    done = run_cli("preflight", "--manifest-path", manifest, "--json")
    assert done.code == 0
    report = json.loads(done.stdout)
    content = report["summary"]["content"]
    assert content["decoded"] == content["pictures"]
    assert content["near_duplicate_pairs"] == {name: PAIRS[name]}
    by_code = report["summary"]["issues"]["by_code"]
    # No picture of these sets is out of line with the others, nor any mask.
    assert not [code for code in by_code if code.startswith(("MASK", "DUPLICATE"))]
    pictures = {code for code in by_code if code.startswith("IMAGE")}
    assert pictures <= {"IMAGE_SIZES_VARY"}


def test_the_conflicts_of_magnetic_tile_are_reported_exactly(
    run_cli: Run, data: Path
) -> None:
    manifest = data / "magnetic_tile" / "manifest_conflicts.jsonl"
    done = run_cli("preflight", "--manifest-path", manifest, "--json")
    assert done.code == 2
    report = json.loads(done.stdout)
    errors = [i["code"] for i in report["issues"] if i["severity"] == "error"]
    assert errors == ["MANIFEST_GROUP_SPLIT_CONFLICT"] * 10


@pytest.mark.parametrize("name", PAIRS)
def test_a_manifest_made_from_the_folders_agrees_with_the_sets_own(
    run_cli: Run, data: Path, tmp_path: Path, name: str
) -> None:
    made = tmp_path / "manifest.jsonl"
    arguments = ("--from", data / name, "--output", made)
    assert run_cli("manifest", "create", *arguments).code == 0

    def known(path: Path) -> set[tuple[str, int, str]]:
        rows = map(json.loads, path.read_text("utf-8").splitlines())
        return {(row["image_path"], row["label"], row["split"]) for row in rows}

    own = known(data / name / "manifest.jsonl")
    found = known(made)
    # The folders of magnetic_tile also hold the 31 pictures of its conflicts.
    assert own <= found
    assert len(found) - len(own) == (31 if name == "magnetic_tile" else 0)
