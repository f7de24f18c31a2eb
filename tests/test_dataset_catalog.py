"""Folders of known layouts as data sets: rows in, what is wrong with them named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyimgano.datasets.catalog import (
    DATASETS,
    DataSource,
    list_dataset_categories,
    read_dataset,
    scan_dataset,
)
from pyimgano.datasets.images import read_mask
from pyimgano.datasets.issues import IssueLog, PreflightIssue
from pyimgano.datasets.layouts import LAYOUTS, recognise
from pyimgano.datasets.rows import MASK_ABOVE, ManifestRow
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.infer_config import InputRules


def draw(root: Path, *names: str, value: int = 90) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((6, 8), value, np.uint8))
    return root


def scan(
    dataset: str, root: Path, categories: Sequence[str] = ()
) -> tuple[list[ManifestRow], list[PreflightIssue]]:
    log = IssueLog()
    rows = scan_dataset(DataSource(dataset, root=root), log, categories=categories)
    return rows, log.issues


def rows_of(dataset: str, root: Path) -> list[ManifestRow]:
    rows, issues = scan(dataset, root)
    assert not issues
    return rows


def summary(rows: list[ManifestRow]) -> dict[str, tuple[str | None, int, str | None]]:
    return {row.image: (row.split, row.label, row.mask) for row in rows}


def codes(issues: list[PreflightIssue], severity: str = "error") -> list[str]:
    return [issue.code for issue in issues if issue.severity == severity]


def message(issues: list[PreflightIssue], code: str) -> str:
    return next(issue.message for issue in issues if issue.code == code)


def mvtec(root: Path) -> Path:
    return draw(
        root,
        "bottle/train/good/000.png",
        "bottle/train/good/001.png",
        "bottle/test/good/000.png",
        "bottle/test/big crack/000.png",
        "bottle/ground_truth/big crack/000_mask.png",
    )


def mvtec_loco(root: Path) -> Path:
    return draw(
        root,
        "bag/train/good/000.png",
        "bag/validation/good/000.png",
        "bag/test/good/000.png",
        "bag/test/logical_anomalies/000.png",
        "bag/test/structural_anomalies/000.png",
        "bag/ground_truth/logical_anomalies/000/000.png",
        "bag/ground_truth/logical_anomalies/000/001.png",
        "bag/ground_truth/structural_anomalies/000/000.png",
    )


def mvtec_ad2(root: Path) -> Path:
    return draw(
        root,
        "can/train/good/000_regular.png",
        "can/validation/good/000_regular.png",
        "can/test_public/good/000_regular.png",
        "can/test_public/bad/000_regular.png",
        "can/test_public/ground_truth/bad/000_regular_mask.png",
        "can/test_private/000_regular.png",
        "can/test_private_mixed/000_mixed.png",
    )


def btad(root: Path) -> Path:
    return draw(
        root,
        "01/train/ok/0000.bmp",
        "01/test/ok/0000.bmp",
        "01/test/ko/0000.bmp",
        "01/ground_truth/ko/0000.png",
        "03/train/ok/0000.bmp",
        "03/test/ko/0000.bmp",
        "03/ground_truth/ko/0000.bmp",
    )


TABLE = [
    "object,split,label,image,mask",
    "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
    "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
    "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,"
    "candle/Data/Masks/Anomaly/000.png",
]


def visa_folders(root: Path) -> Path:
    draw(
        root,
        "candle/Data/Images/Normal/0000.JPG",
        "candle/Data/Images/Normal/0001.JPG",
        "candle/Data/Images/Anomaly/000.JPG",
    )
    return draw(root, "candle/Data/Masks/Anomaly/000.png", value=2)


def visa(root: Path, lines: Sequence[str] = TABLE) -> Path:
    visa_folders(root)
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def custom(root: Path) -> Path:
    return draw(
        root,
        "train/good/a.png",
        "val/good/b.png",
        "test/good/c.png",
        "test/dent/d.jpg",
        "masks/dent/d.png",
    )


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "custom": custom,
    "mvtec": mvtec,
    "mvtec_loco": mvtec_loco,
    "mvtec_ad2": mvtec_ad2,
    "visa": visa,
    "btad": btad,
}
every_layout = pytest.mark.parametrize("name", list(BUILDERS))


# What every layout promises.


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


def test_mvtec_folders_give_split_label_mask_and_defect(tmp_path: Path) -> None:
    rows = rows_of("mvtec", mvtec(tmp_path))
    assert summary(rows) == {
        "bottle/test/big crack/000.png": (
            "test",
            1,
            "bottle/ground_truth/big crack/000_mask.png",
        ),
        "bottle/test/good/000.png": ("test", 0, None),
        "bottle/train/good/000.png": ("train", 0, None),
        "bottle/train/good/001.png": ("train", 0, None),
    }
    assert rows[0].meta == {"defect": "big crack"}
    assert rows[0].mask_above == MASK_ABOVE


def test_loco_validation_is_val_and_a_mask_is_a_folder(tmp_path: Path) -> None:
    rows = summary(rows_of("mvtec_loco", mvtec_loco(tmp_path)))
    assert rows["bag/validation/good/000.png"] == ("val", 0, None)
    mask = "bag/ground_truth/logical_anomalies/000"
    assert rows["bag/test/logical_anomalies/000.png"] == ("test", 1, mask)


def test_any_value_above_0_in_a_loco_mask_is_a_defect(tmp_path: Path) -> None:
    root = mvtec_loco(tmp_path)
    draw(root, "bag/ground_truth/structural_anomalies/000/000.png", value=1)
    row = rows_of("mvtec_loco", root)[2]
    assert row.meta == {"defect": "structural_anomalies"}
    mask = read_mask(row.mask_path, (6, 8), InputRules(), above=row.mask_above)
    assert mask is not None
    assert mask.all()


def test_a_loco_picture_with_an_empty_folder_of_masks_has_none(tmp_path: Path) -> None:
    root = mvtec_loco(tmp_path)
    (root / "bag/ground_truth/logical_anomalies/000/000.png").unlink()
    (root / "bag/ground_truth/logical_anomalies/000/001.png").unlink()
    row = rows_of("mvtec_loco", root)[1]
    assert (row.meta, row.mask) == ({"defect": "logical_anomalies"}, None)


def test_the_private_tests_of_ad2_are_left_out(tmp_path: Path) -> None:
    rows = summary(rows_of("mvtec_ad2", mvtec_ad2(tmp_path)))
    assert sorted(rows) == [
        "can/test_public/bad/000_regular.png",
        "can/test_public/good/000_regular.png",
        "can/train/good/000_regular.png",
        "can/validation/good/000_regular.png",
    ]
    assert rows["can/validation/good/000_regular.png"][0] == "val"
    assert rows["can/test_public/bad/000_regular.png"] == (
        "test",
        1,
        "can/test_public/ground_truth/bad/000_regular_mask.png",
    )


def test_btad_masks_are_found_with_either_suffix(tmp_path: Path) -> None:
    rows = summary(rows_of("btad", btad(tmp_path)))
    assert rows["01/test/ko/0000.bmp"][2] == "01/ground_truth/ko/0000.png"
    assert rows["03/test/ko/0000.bmp"][2] == "03/ground_truth/ko/0000.bmp"
    assert rows["01/test/ok/0000.bmp"] == ("test", 0, None)


def test_visa_takes_split_label_and_mask_from_its_table(tmp_path: Path) -> None:
    rows = rows_of("visa", visa(tmp_path))
    assert summary(rows) == {
        "candle/Data/Images/Anomaly/000.JPG": (
            "test",
            1,
            "candle/Data/Masks/Anomaly/000.png",
        ),
        "candle/Data/Images/Normal/0000.JPG": ("train", 0, None),
        "candle/Data/Images/Normal/0001.JPG": ("test", 0, None),
    }
    assert [row.meta["defect"] for row in rows] == ["Anomaly", None, None]


@pytest.mark.parametrize("build", [visa, visa_folders])
def test_the_small_numbers_of_a_visa_mask_are_defects(
    tmp_path: Path, build: Callable[[Path], Path]
) -> None:
    row = rows_of("visa", build(tmp_path))[0]
    mask = read_mask(row.mask_path, (6, 8), InputRules(), above=row.mask_above)
    assert mask is not None
    assert mask.all()


def test_visa_without_its_table_has_no_splits(tmp_path: Path) -> None:
    rows = rows_of("visa", visa_folders(tmp_path))
    assert [(row.split, row.label) for row in rows] == [(None, 1), (None, 0), (None, 0)]
    assert rows[0].mask == "candle/Data/Masks/Anomaly/000.png"


def test_converted_visa_is_read_like_mvtec(tmp_path: Path) -> None:
    draw(
        tmp_path,
        "candle/train/good/0000.JPG",
        "candle/test/good/0001.JPG",
        "candle/test/bad/000.JPG",
        "candle/ground_truth/bad/000.png",
    )
    rows = summary(rows_of("visa", tmp_path))
    assert rows["candle/test/bad/000.JPG"] == (
        "test",
        1,
        "candle/ground_truth/bad/000.png",
    )
    assert rows["candle/train/good/0000.JPG"] == ("train", 0, None)


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    root = visa(tmp_path)
    text = "\ufeff" + "\r\n".join([*TABLE, ",,,,", ""])
    (root / "split_csv/1cls.csv").write_bytes(text.encode("utf-8"))
    assert len(rows_of("visa", root)) == 3


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("normal,candle/no.JPG,", "MANIFEST_MISSING_IMAGE", "image: "),
        ("normal,,", "MANIFEST_MISSING_IMAGE", "image: "),
        ("normal,candle/Data,", "MANIFEST_MISSING_IMAGE", "image: "),
        (
            "anomaly,candle/Data/Images/Normal/0001.JPG,candle/no.png",
            "MANIFEST_MISSING_MASK",
            "mask: ",
        ),
        ("normal,/etc/hostname,", "MANIFEST_PATH_ESCAPE", "image: "),
        ("normal,candle/../../x.JPG,", "MANIFEST_PATH_ESCAPE", "image: "),
        ("normal,C:/x.JPG,", "MANIFEST_PATH_ESCAPE", "image: "),
        ("normal,..\\x.JPG,", "MANIFEST_PATH_ESCAPE", "image: "),
        (
            "good,candle/Data/Images/Normal/0001.JPG,",
            "DATASET_INVALID_STRUCTURE",
            "lab",
        ),
        (
            "normal,./candle/Data/Images/Normal/0000.JPG,",
            "MANIFEST_DUPLICATE_IMAGE",
            "image: ",
        ),
    ],
)
def test_a_wrong_line_of_the_table_is_named_and_left_out(
    tmp_path: Path, line: str, code: str, words: str
) -> None:
    root = visa(tmp_path, [*TABLE, f"candle,test,{line}"])
    rows, issues = scan("visa", root)
    assert len(rows) == 3
    assert codes(issues) == [code]
    assert f"1cls.csv:5: {words}" in issues[0].message


def test_a_split_that_the_table_misspells_is_named(tmp_path: Path) -> None:
    root = visa(tmp_path, [*TABLE[:3], TABLE[3].replace("test", "tets")])
    _, issues = scan("visa", root)
    assert 'did you mean "test"?' in message(issues, "DATASET_INVALID_STRUCTURE")


def test_a_table_without_its_columns_is_refused_once(tmp_path: Path) -> None:
    root = visa(tmp_path, ["object,split,lable,image,mask", *TABLE[1:]])
    draw(root, "pcb1/Data/Images/Normal/0000.JPG")
    rows, issues = scan("visa", root)
    assert not rows
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert "lacks the columns label" in issues[0].message
    assert 'did you mean "lable"?' in issues[0].message


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\x00", b"\n\n", b'object,"a' + b"x" * 200_000]
)
def test_a_table_that_is_damaged_is_refused(tmp_path: Path, text: bytes) -> None:
    root = visa(tmp_path)
    (root / "split_csv/1cls.csv").write_bytes(text)
    rows, issues = scan("visa", root)
    assert not rows
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]


def test_a_category_that_the_table_does_not_name_is_refused(tmp_path: Path) -> None:
    root = draw(visa(tmp_path), "pcb1/Data/Images/Normal/0000.JPG")
    _, issues = scan("visa", root)
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert 'names no picture of "pcb1"' in issues[0].message


def test_pictures_that_the_table_does_not_name_are_counted(tmp_path: Path) -> None:
    root = draw(visa(tmp_path), "candle/Data/Images/Normal/0002.JPG")
    rows, issues = scan("visa", root)
    assert len(rows) == 3
    assert codes(issues, "warning") == ["DATASET_INVALID_STRUCTURE"]
    assert "does not name 1 pictures" in issues[0].message


def test_a_folder_of_tables_without_the_one_is_a_warning(tmp_path: Path) -> None:
    root = visa_folders(tmp_path)
    (root / "split_csv").mkdir()
    rows, issues = scan("visa", root)
    assert len(rows) == 3
    assert codes(issues, "warning") == ["DATASET_INVALID_STRUCTURE"]


# A user's own folders.


def test_custom_folders_are_one_category_named_like_the_root(tmp_path: Path) -> None:
    rows = rows_of("custom", custom(tmp_path / "bracket"))
    assert {row.category for row in rows} == {"bracket"}
    assert summary(rows) == {
        "test/dent/d.jpg": ("test", 1, "masks/dent/d.png"),
        "test/good/c.png": ("test", 0, None),
        "train/good/a.png": ("train", 0, None),
        "val/good/b.png": ("val", 0, None),
    }


def test_custom_folders_may_be_several_categories(tmp_path: Path) -> None:
    custom(tmp_path / "nut")
    draw(tmp_path, "bolt/good/a.png", "bolt/bent/b.png")
    (tmp_path / "notes").mkdir()
    assert list_dataset_categories("custom", tmp_path) == ["bolt", "nut"]
    assert len(rows_of("custom", tmp_path)) == 6


def test_the_root_may_be_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(custom(tmp_path / "bracket"))
    assert list_dataset_categories("custom", ".") == ["bracket"]
    assert len(rows_of("custom", Path())) == 4
    monkeypatch.chdir("train")
    assert list_dataset_categories("custom", "..") == ["bracket"]


@pytest.mark.parametrize("normal", ["good", "Normal", "OK", "normals", "Goods"])
def test_normals_have_several_names_in_any_case(tmp_path: Path, normal: str) -> None:
    root = draw(tmp_path, f"train/{normal}/a.png", f"test/{normal}/b.png")
    assert {row.label for row in rows_of("custom", root)} == {0}


@pytest.mark.parametrize("split", ["val", "validation", "Validation"])
def test_val_may_be_written_out(tmp_path: Path, split: str) -> None:
    root = draw(tmp_path, "train/ok/a.png", f"{split}/ok/b.png")
    assert {row.split for row in rows_of("custom", root)} == {"train", "val"}


def test_pictures_directly_in_train_are_normals(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/a.png", "test/dent/b.png")
    assert summary(rows_of("custom", root))["train/a.png"] == ("train", 0, None)


def test_folders_without_splits_leave_them_to_be_assigned(tmp_path: Path) -> None:
    root = draw(tmp_path, "good/a.png", "dent/b.png", "ground_truth/dent/b_mask.png")
    assert summary(rows_of("custom", root)) == {
        "dent/b.png": (None, 1, "ground_truth/dent/b_mask.png"),
        "good/a.png": (None, 0, None),
    }


@pytest.mark.parametrize("top", ["images/", "part/images/"])
@pytest.mark.parametrize("masks", ["images/masks/", "masks/test/", "ground_truth/"])
def test_folders_may_lie_under_images(tmp_path: Path, top: str, masks: str) -> None:
    draw(tmp_path, f"{top}train/good/a.png", f"{top}test/dent/b.png")
    mask = f"{top.removesuffix('images/')}{masks}dent/b.tif"
    draw(tmp_path, mask)
    rows = summary(rows_of("custom", tmp_path))
    assert rows[f"{top}test/dent/b.png"] == ("test", 1, mask)


def test_undivided_folders_may_lie_under_images(tmp_path: Path) -> None:
    draw(tmp_path, "images/good/a.png", "images/dent/b.png", "masks/dent/b.png")
    rows = summary(rows_of("custom", tmp_path))
    assert rows["images/dent/b.png"] == (None, 1, "masks/dent/b.png")


def test_defects_in_train_are_anomalies_of_train(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/good/a.png", "train/dent/b.png", "test/good/c.png")
    assert summary(rows_of("custom", root))["train/dent/b.png"] == ("train", 1, None)


def test_train_without_normals_is_refused_with_what_was_found(tmp_path: Path) -> None:
    root = draw(tmp_path, "train/godo/a.png", "test/good/b.png")
    _, issues = scan("custom", root)
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert "no normal pictures to train" in issues[0].message
    assert "test, train, train/godo" in issues[0].message
    assert LAYOUTS["custom"].picture in issues[0].message


def test_an_empty_folder_of_normals_is_refused(tmp_path: Path) -> None:
    root = draw(tmp_path, "dent/a.png")
    (root / "good").mkdir()
    assert codes(scan("custom", root)[1]) == ["DATASET_INVALID_STRUCTURE"]


def test_folders_without_a_folder_of_normals_are_no_category(tmp_path: Path) -> None:
    root = draw(tmp_path, "dent/a.png", "scratch/b.png")
    _, issues = scan("custom", root)
    assert codes(issues) == ["DATASET_CATEGORY_EMPTY"]
    assert "found folders: dent, scratch" in issues[0].message


@pytest.mark.parametrize("name", ["mvtec", "custom", "btad", "mvtec_loco"])
def test_pictures_directly_in_test_have_no_label(tmp_path: Path, name: str) -> None:
    root = BUILDERS[name](tmp_path)
    test = next(root.glob("**/test"))
    draw(test, "loose.png")
    _, issues = scan(name, root)
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert "holds loose.png directly" in issues[0].message


def test_pictures_beside_undivided_folders_have_no_label(tmp_path: Path) -> None:
    root = draw(tmp_path, "good/a.png", "dent/b.png", "loose.png")
    assert codes(scan("custom", root)[1]) == ["DATASET_INVALID_STRUCTURE"]


# Masks that are missing or left over.


def test_anomalies_without_any_masks_are_no_problem(tmp_path: Path) -> None:
    root = draw(tmp_path, "a/train/good/0.png", "a/test/dent/0.png")
    (root / "a/ground_truth/dent").mkdir(parents=True)
    assert rows_of("mvtec", root)[0].mask is None


@pytest.mark.parametrize(
    ("name", "picture"),
    [
        ("mvtec", "bottle/test/big crack/007.png"),
        ("mvtec_loco", "bag/test/logical_anomalies/007.png"),
        ("mvtec_ad2", "can/test_public/bad/007.png"),
        ("btad", "01/test/ko/007.bmp"),
        ("custom", "test/dent/007.png"),
    ],
)
def test_a_mask_that_others_have_is_missed(
    tmp_path: Path, name: str, picture: str
) -> None:
    rows, issues = scan(name, draw(BUILDERS[name](tmp_path), picture))
    assert codes(issues, "warning") == ["MANIFEST_MISSING_MASK"]
    assert str(tmp_path / picture) in issues[0].message
    assert summary(rows)[picture] == ("test", 1, None)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("mvtec", "bottle/ground_truth/big crack/007_mask.png"),
        ("mvtec_loco", "bag/ground_truth/logical_anomalies/007/000.png"),
        ("mvtec_ad2", "can/test_public/ground_truth/bad/007_mask.png"),
        ("btad", "01/ground_truth/ko/0000.bmp"),  # a second one of 0000
        ("custom", "masks/test/dent/d_mask.png"),  # and of d
        ("custom", "masks/dnet/d.png"),
        ("custom", "masks/d.png"),
    ],
)
def test_a_mask_of_no_picture_is_a_warning(
    tmp_path: Path, name: str, mask: str
) -> None:
    _, issues = scan(name, draw(BUILDERS[name](tmp_path), mask))
    assert codes(issues) == []
    assert codes(issues, "warning") == ["DATASET_INVALID_STRUCTURE"]


def test_a_mask_among_the_pictures_is_a_warning(tmp_path: Path) -> None:
    root = draw(custom(tmp_path), "test/good/c_mask.png")
    _, issues = scan("custom", root)
    assert "looks like a mask" in message(issues, "DATASET_INVALID_STRUCTURE")


def test_one_mask_serves_one_picture_only(tmp_path: Path) -> None:
    rows, issues = scan("custom", draw(custom(tmp_path), "test/dent/d.png"))
    assert codes(issues, "warning") == ["MANIFEST_MISSING_MASK"]
    assert [row.mask for row in rows if row.label] == ["masks/dent/d.png", None]


def test_a_mask_is_found_in_another_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = "tu\u0308r", "t\u00fcr"
    root = draw(
        tmp_path,
        "t/train/good/a.png",
        f"t/test/dent/{composed}.png",
        f"t/ground_truth/dent/{decomposed}_mask.png",
    )
    assert (
        rows_of("mvtec", root)[0].mask == f"t/ground_truth/dent/{decomposed}_mask.png"
    )


# Folders as they are found on disks.


@pytest.mark.parametrize("name", ["mvtec", "btad", "custom"])
def test_a_category_without_pictures_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "part/train/good").mkdir(parents=True)
    rows, issues = scan(name, tmp_path)
    assert not rows
    assert codes(issues) == ["DATASET_CATEGORY_EMPTY"]
    assert 'no pictures of category "part"' in issues[0].message


def test_hidden_files_and_those_of_systems_are_skipped(tmp_path: Path) -> None:
    root = mvtec(tmp_path)
    expected = rows_of("mvtec", root)
    for name in (".hidden.png", "._000.png", "Thumbs.db", ".DS_Store", "notes.txt"):
        (root / "bottle/train/good" / name).write_bytes(b"x")
    draw(root, "__MACOSX/train/good/0.png", ".git/train/good/0.png")
    assert rows_of("mvtec", root) == expected


def test_suffixes_count_in_any_case(tmp_path: Path) -> None:
    root = draw(tmp_path, *(f"good/{n}" for n in ("a.PNG", "b.Jpg", "c.TIFF", "d.bmp")))
    assert len(rows_of("custom", root)) == 4


def test_what_is_no_regular_file_is_left_out_with_a_warning(tmp_path: Path) -> None:
    root = mvtec(tmp_path)
    good = root / "bottle/train/good"
    (good / "folder.png").mkdir()
    os.mkfifo(good / "fifo.png")
    (good / "broken.png").symlink_to("nowhere")
    (good / "loop.png").symlink_to("loop.png")
    rows, issues = scan("mvtec", root)
    assert len(rows) == 4
    assert codes(issues) == []
    assert len(codes(issues, "warning")) == 4


@every_layout
def test_links_that_loop_are_survived(tmp_path: Path, name: str) -> None:
    root = BUILDERS[name](tmp_path)
    expected = summary(scan(name, root)[0])
    (root / "self").symlink_to(root, target_is_directory=True)
    (root / "loop").symlink_to("loop")
    rows, _ = scan(name, root)
    assert expected.items() <= summary(rows).items()
    recognise(root)


def test_names_with_spaces_and_letters_of_all_kinds_are_kept(tmp_path: Path) -> None:
    name = "Träger 3/train/good/ünïcode 漢字.png"
    (row,) = rows_of("mvtec", draw(tmp_path, name))
    assert (row.image, row.category) == (name, "Träger 3")


def test_a_name_that_is_not_utf8_is_refused_in_printable_words(tmp_path: Path) -> None:
    root = mvtec(tmp_path)
    path = os.fsencode(root / "bottle/train/good") + b"/\xff.png"
    os.close(os.open(path, os.O_CREAT))
    rows, issues = scan("mvtec", root)
    assert len(rows) == 4
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert "not UTF-8" in issues[0].message
    assert issues[0].message.isprintable()


@pytest.mark.parametrize("category", ["a\nb", "x" * 101])
def test_a_category_that_no_bundle_could_name_is_refused(
    tmp_path: Path, category: str
) -> None:
    root = draw(mvtec(tmp_path), f"{category}/train/good/a.png")
    _, issues = scan("mvtec", root)
    assert codes(issues) == ["DATASET_INVALID_STRUCTURE"]
    assert "printable characters" in issues[0].message


@pytest.mark.parametrize("closed", ["bottle", "bottle/train", "bottle/train/good", "."])
def test_a_folder_that_may_not_be_listed_is_named(tmp_path: Path, closed: str) -> None:
    root = mvtec(tmp_path)
    (root / closed).chmod(0)
    if os.access(root / closed, os.R_OK):
        (root / closed).chmod(0o700)
        pytest.skip("the administrator may list any folder")
    try:
        _, issues = scan("mvtec", root)
    finally:
        (root / closed).chmod(0o700)
    assert "cannot be listed" in message(issues, "DATASET_INVALID_STRUCTURE")


@pytest.mark.parametrize("folder", ["val", "extra"])
def test_a_folder_that_a_layout_does_not_know_is_a_warning(
    tmp_path: Path, folder: str
) -> None:
    root = draw(mvtec(tmp_path), f"bottle/{folder}/good/a.png")
    rows, issues = scan("mvtec", root)
    assert len(rows) == 4
    assert codes(issues, "warning") == ["DATASET_INVALID_STRUCTURE"]


# Which layout a folder is of.


@pytest.mark.parametrize("names", [(), ("a.png",), ("x/a.png",), ("x/y/good/a.png",)])
def test_other_folders_are_of_no_layout(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert recognise(draw(tmp_path, *names)) is None


def test_what_is_no_folder_is_of_no_layout(tmp_path: Path) -> None:
    assert recognise(tmp_path / "none") is None
    assert recognise(Path("a\0b")) is None


def test_folders_like_mvtec_with_val_are_custom(tmp_path: Path) -> None:
    assert recognise(draw(mvtec(tmp_path), "bottle/val/good/a.png")) == "custom"


def test_published_visa_is_recognised_without_its_table(tmp_path: Path) -> None:
    assert recognise(visa_folders(tmp_path)) == "visa"


# The page about them.


@every_layout
def test_the_docs_show_the_folders_of_each_layout(name: str) -> None:
    page = Path(__file__).resolve().parents[1] / "docs/datasets.md"
    assert f"```\n{LAYOUTS[name].picture}\n```" in page.read_text(encoding="utf-8")
