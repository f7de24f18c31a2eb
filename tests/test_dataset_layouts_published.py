"""How the published layouts give split, label and mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from layout_folders import (
    TABLE,
    btad,
    codes,
    draw,
    message,
    mvtec,
    mvtec_ad2,
    mvtec_loco,
    rows_of,
    scan,
    summary,
    visa,
    visa_folders,
)
from pyimgano.datasets.images import read_mask
from pyimgano.datasets.rows import MASK_ABOVE
from pyimgano_runtime.infer_config import InputRules


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
