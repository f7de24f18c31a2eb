"""The catalog: folders of known layouts and manifests as one kind of data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layout_folders import (
    BUILDERS,
    btad,
    codes,
    draw,
    every_layout,
    mvtec,
    rows_of,
    scan,
)
from pyimgano.datasets.catalog import (
    DATASETS,
    DataSource,
    list_dataset_categories,
    read_dataset,
    scan_dataset,
)
from pyimgano.datasets.issues import IssueLog
from pyimgano.datasets.layouts import LAYOUTS, recognise
from pyimgano_runtime.errors import DatasetError


def test_every_layout_is_built_here_and_named_in_the_catalog() -> None:
    assert list(BUILDERS) == list(LAYOUTS)
    assert ("manifest", *LAYOUTS) == DATASETS
    assert [layout.name for layout in LAYOUTS.values()] == list(LAYOUTS)


@every_layout
def test_a_data_set_of_each_layout_is_read_without_a_remark(
    tmp_path: Path, name: str
) -> None:
    rows = rows_of(name, BUILDERS[name](tmp_path))
    assert {row.label for row in rows} == {0, 1}
    assert all(row.image_path.is_file() and row.line == 0 for row in rows)
    assert all(row.folder == tmp_path for row in rows)


@every_layout
def test_every_anomaly_has_its_mask_and_no_normal_has_one(
    tmp_path: Path, name: str
) -> None:
    for row in rows_of(name, BUILDERS[name](tmp_path)):
        assert (row.mask is not None) == (row.label == 1)
        assert row.mask_path is None or row.mask_path.exists()
        assert (row.meta["defect"] is None) == (row.label == 0)


@every_layout
def test_rows_are_sorted_by_name_and_the_same_each_time(
    tmp_path: Path, name: str
) -> None:
    root = BUILDERS[name](tmp_path)
    rows = rows_of(name, root)
    assert rows == rows_of(name, root)
    assert [row.image for row in rows] == sorted(row.image for row in rows)


@every_layout
def test_each_layout_is_recognised_by_its_folders(tmp_path: Path, name: str) -> None:
    assert recognise(BUILDERS[name](tmp_path)) == name


@every_layout
def test_categories_are_those_of_the_rows(tmp_path: Path, name: str) -> None:
    root = BUILDERS[name](tmp_path)
    names = list_dataset_categories(name, str(root))
    assert names == sorted({row.category for row in rows_of(name, root)})


@every_layout
def test_an_empty_root_is_refused_with_the_folders_that_are_expected(
    tmp_path: Path, name: str
) -> None:
    rows, issues = scan(name, tmp_path)
    assert not rows
    assert codes(issues) == ["DATASET_CATEGORY_EMPTY"]
    assert LAYOUTS[name].picture in issues[0].message


@every_layout
def test_listing_the_categories_refuses_in_the_words_of_the_scan(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(DatasetError) as listing:
        list_dataset_categories(name, tmp_path)
    with pytest.raises(DatasetError) as reading:
        read_dataset(DataSource(name, root=tmp_path))
    assert str(listing.value) == str(reading.value)


@pytest.mark.parametrize(
    "root", [None, Path("/no/such"), Path("a\0b"), Path("x" * 999)]
)
@every_layout
def test_a_root_that_is_no_folder_is_refused(name: str, root: Path | None) -> None:
    log = IssueLog()
    assert not scan_dataset(DataSource(name, root=root), log)
    assert codes(log.issues) == ["DATASET_ROOT_MISSING"]
    assert "set dataset.root" in log.issues[0].message


@every_layout
def test_a_category_that_is_not_there_is_refused_with_the_closest(
    tmp_path: Path, name: str
) -> None:
    root = BUILDERS[name](tmp_path / "part")
    known = list_dataset_categories(name, root)
    rows, issues = scan(name, root, [known[0] + "s"])
    assert not rows
    assert codes(issues) == ["DATASET_CATEGORY_EMPTY"]
    assert issues[0].context["suggestion"] == known[0]
    assert issues[0].context["known"] == known


@pytest.mark.parametrize("asked", ["", "..", "/", "a\0b", "x" * 999, "../bottle"])
def test_a_name_that_is_no_category_is_refused(tmp_path: Path, asked: str) -> None:
    rows, issues = scan("mvtec", mvtec(tmp_path), [asked])
    assert (rows, codes(issues)) == ([], ["DATASET_CATEGORY_EMPTY"])


def test_only_the_categories_that_are_asked_for_are_read(tmp_path: Path) -> None:
    rows, issues = scan("btad", btad(tmp_path), ["03", "03"])
    assert not issues
    assert {row.category for row in rows} == {"03"}


def test_the_root_of_one_category_is_refused_with_its_parent(tmp_path: Path) -> None:
    _, issues = scan("mvtec", mvtec(tmp_path) / "bottle")
    assert f"set the root to {tmp_path}" in issues[0].message


def test_an_unknown_kind_of_data_set_is_refused_with_the_closest() -> None:
    log = IssueLog()
    assert not scan_dataset(DataSource("mvtek"), log)
    (issue,) = log.issues
    assert issue.code == "DATASET_UNKNOWN"
    assert 'did you mean "mvtec"?' in issue.message
    assert issue.context == {
        "dataset": "mvtek",
        "known": list(DATASETS),
        "suggestion": "mvtec",
    }


# A manifest by the same door.


def manifest(root: Path) -> Path:
    draw(root, "a.png", "b.png")
    rows = [
        {"image_path": "b.png", "category": "screw", "label": 0},
        {"image_path": "a.png", "category": "nut", "label": 0},
    ]
    path = root / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_manifest_gives_all_its_rows_whatever_is_asked_for(tmp_path: Path) -> None:
    source = DataSource("manifest", manifest(tmp_path))
    rows = read_dataset(source, categories=["nut"])
    assert [row.image for row in rows] == ["b.png", "a.png"]


def test_the_categories_of_a_manifest_are_those_of_its_rows(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    assert list_dataset_categories("manifest", manifest_path=path) == ["nut", "screw"]


def test_a_manifest_without_a_path_is_refused() -> None:
    log = IssueLog()
    assert not scan_dataset(DataSource("manifest"), log)
    assert codes(log.issues) == ["MANIFEST_PATH_MISSING"]
    with pytest.raises(DatasetError, match="needs the path of a manifest"):
        list_dataset_categories("manifest")


def test_the_categories_of_a_broken_manifest_are_refused(tmp_path: Path) -> None:
    path = manifest(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match=r"a\.png"):
        list_dataset_categories("manifest", manifest_path=str(path))


def test_a_source_knows_what_no_output_may_replace_and_its_place() -> None:
    both = DataSource("manifest", Path("m.jsonl"), Path("data"))
    assert both.needed == [Path("m.jsonl"), Path("data")]
    assert both.place == "m.jsonl"
    assert DataSource("mvtec", root=Path("data")).place == "data"
    assert DataSource("mvtec").needed == []
    assert DataSource("mvtec").place == "mvtec"


# What each layout reads.
