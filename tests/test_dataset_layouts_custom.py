"""A user's own folders, and what holds for folders of all layouts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layout_folders import (
    BUILDERS,
    codes,
    custom,
    draw,
    every_layout,
    message,
    mvtec,
    rows_of,
    scan,
    summary,
    visa_folders,
)
from pyimgano.datasets.catalog import (
    list_dataset_categories,
)
from pyimgano.datasets.layouts import LAYOUTS, recognise


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
