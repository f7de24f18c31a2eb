"""The manifest reader: rows in, every problem found and placed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyimgano.datasets.fingerprints import fingerprint, picture_digests
from pyimgano.datasets.manifest import (
    MAX_CATEGORY_NAME,
    read_manifest,
)
from pyimgano_runtime import infer_config_checks
from pyimgano_runtime.errors import DatasetError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "deep/c.png"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "data"


def write(folder: Path, *rows: dict[str, Any] | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(image: str = "a.png", **changes: Any) -> dict[str, Any]:
    return {"image_path": image, "category": "part", "label": 0} | changes


def problem(path: Path, root: Path | None = None) -> str:
    with pytest.raises(DatasetError) as caught:
        read_manifest(path, root=root)
    return str(caught.value)


def test_a_full_row_is_read_as_written(folder: Path) -> None:
    path = write(
        folder,
        row(
            "deep/c.png",
            split="test",
            label=1,
            mask_path="b.png",
            group_id="lot-7",
            meta={"shift": "night"},
        ),
    )
    (read,) = read_manifest(path)
    assert (read.image, read.category, read.split, read.label) == (
        "deep/c.png",
        "part",
        "test",
        1,
    )
    assert read.image_path == folder / "deep/c.png"
    assert read.mask_path == folder / "b.png"
    assert (read.group_id, read.meta, read.line) == ("lot-7", {"shift": "night"}, 1)


def test_comments_and_empty_lines_are_skipped_but_counted(folder: Path) -> None:
    (read,) = read_manifest(write(folder, "# our parts", "", row()))
    assert read.line == 3


@pytest.mark.parametrize(
    ("written", "label"),
    [(0, 0), (1, 1), ("normal", 0), ("good", 0), ("anomaly", 1), ("defect", 1)],
)
def test_labels_are_numbers_or_words(folder: Path, written: Any, label: int) -> None:
    assert read_manifest(write(folder, row(label=written)))[0].label == label


@pytest.mark.parametrize("written", [2, -1, True, False, 1.0, "ok", "NORMAL", [], {}])
def test_a_label_without_meaning_is_refused(folder: Path, written: Any) -> None:
    message = problem(write(folder, row(label=written)))
    assert "manifest.jsonl:1: label: found" in message
    assert 'expected 0 or "normal", 1 or "anomaly"' in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_train_and_val_rows_need_no_label(folder: Path, split: str) -> None:
    path = write(folder, {"image_path": "a.png", "category": "part", "split": split})
    assert read_manifest(path)[0].label == 0


@pytest.mark.parametrize("split", ["test", None])
def test_other_rows_without_a_label_are_refused(folder: Path, split: Any) -> None:
    path = write(folder, {"image_path": "a.png", "category": "part", "split": split})
    assert "label: missing; expected 0 (normal) or 1 (anomaly)" in problem(path)


def test_a_misspelt_key_is_refused_with_the_closest_name(folder: Path) -> None:
    message = problem(write(folder, row(groupid="x")))
    assert 'groupid: unknown key (did you mean "group_id"?)' in message


def test_a_misspelt_split_is_refused_with_the_closest_name(folder: Path) -> None:
    message = problem(write(folder, row(split="tran")))
    assert 'split: found "tran", expected one of "train", "val", "test"' in message
    assert 'did you mean "train"' in message


@pytest.mark.parametrize("key", ["image_path", "category"])
@pytest.mark.parametrize("value", ["", None, 7, ["a.png"]])
def test_image_path_and_category_are_texts(folder: Path, key: str, value: Any) -> None:
    assert f"manifest.jsonl:1: {key}: " in problem(write(folder, row(**{key: value})))


def test_an_empty_group_is_refused(folder: Path) -> None:
    assert "group_id: " in problem(write(folder, row(group_id="")))


@pytest.mark.parametrize("meta", [[1], [], False, 0, "", "night"])
def test_meta_is_an_object(folder: Path, meta: Any) -> None:
    assert "meta: expected an object" in problem(write(folder, row(meta=meta)))


def test_meta_may_be_null(folder: Path) -> None:
    assert read_manifest(write(folder, row(meta=None)))[0].meta == {}


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", " ", "x" * 101])
def test_a_category_name_that_no_bundle_may_carry_is_refused(
    folder: Path, name: str
) -> None:
    message = problem(write(folder, row(category=name)))
    assert "manifest.jsonl:1: category: found " in message
    assert "expected 1 to 100 printable characters" in message
    assert message.isprintable()


def test_the_longest_category_name_is_that_of_a_bundle(folder: Path) -> None:
    assert MAX_CATEGORY_NAME == infer_config_checks.MAX_NAME
    name = "ü" * MAX_CATEGORY_NAME
    assert read_manifest(write(folder, row(category=name)))[0].category == name


def test_every_bad_line_is_reported_with_its_number(folder: Path) -> None:
    message = problem(
        write(folder, row(), "{not json", row("gone.png"), row(label=3), "[]")
    )
    assert "manifest.jsonl:2: " in message
    assert "manifest.jsonl:3: " in message
    assert "manifest.jsonl:4: " in message
    assert "manifest.jsonl:5: " in message
    assert message.startswith("4 problems:")
    assert "manifest.jsonl:1: " not in message


def test_only_the_first_twenty_problems_are_listed(folder: Path) -> None:
    message = problem(write(folder, *[row(f"gone{n}.png") for n in range(33)]))
    assert message.count("is no file in") == 20
    assert message.endswith("... and 13 more")


@pytest.mark.parametrize(
    "line",
    [
        '{"image_path": "a.png", "image_path": "b.png", "category": "c", "label": 0}',
        '{"image_path": "a.png", "category": "c", "label": NaN}',
        '\ufeff{"image_path": "a.png", "category": "c", "label": 0}',
    ],
)
def test_sloppy_json_is_refused(folder: Path, line: str) -> None:
    assert "manifest.jsonl:1: " in problem(write(folder, line))


def test_windows_line_ends_are_read(folder: Path) -> None:
    path = folder / "manifest.jsonl"
    lines = json.dumps(row()), json.dumps(row("b.png"))
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    assert len(read_manifest(path)) == 2


def test_a_missing_file_is_named_with_the_folder_that_was_searched(
    folder: Path,
) -> None:
    message = problem(write(folder, row("gone.png")))
    assert f'image_path: "gone.png" is no file in {folder}' in message
    assert "correct the path or set dataset.root (--root)" in message


def test_a_missing_mask_is_refused(folder: Path) -> None:
    message = problem(write(folder, row(label=1, mask_path="m.png")))
    assert 'mask_path: "m.png" is no file in' in message


def test_a_folder_is_no_picture(folder: Path) -> None:
    assert '"deep" is a folder' in problem(write(folder, row("deep")))


def test_pictures_are_looked_for_beside_the_manifest_first(
    folder: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.png").write_bytes(b"other")
    (root / "only_here.png").write_bytes(b"x")
    rows = read_manifest(write(folder, row(), row("only_here.png")), root=root)
    assert rows[0].image_path == folder / "a.png"
    assert rows[1].image_path == root / "only_here.png"


@pytest.mark.parametrize(
    "written", ["/etc/hostname", "../outside.png", "deep/../../x.png", "C:\\x.png"]
)
def test_paths_that_leave_the_folder_are_refused(folder: Path, written: str) -> None:
    assert "is absolute or leaves its folder" in problem(write(folder, row(written)))


@pytest.mark.parametrize("key", ["image_path", "mask_path"])
@pytest.mark.parametrize("written", ["x" * 400, "a\0.png"])
def test_a_path_that_no_file_can_have_is_a_problem_of_its_line(
    folder: Path, key: str, written: str
) -> None:
    changes = {"label": 1, key: written}
    message = problem(write(folder, row() | changes, row(label=7)))
    assert message.startswith("2 problems:")
    assert f"manifest.jsonl:1: {key}: " in message
    assert "correct the path" in message
    assert message.replace("\n", "").isprintable()


def test_a_root_that_is_no_folder_is_refused_at_once(folder: Path) -> None:
    message = problem(write(folder, row()), root=folder / "gone")
    assert f"{folder / 'gone'}: no such folder" in message
    assert "set dataset.root (--root) to the folder of the pictures" in message


@pytest.mark.parametrize("second", ["a.png", "./a.png", "link.png"])
def test_a_picture_on_two_rows_of_a_category_is_refused(
    folder: Path, second: str
) -> None:
    (folder / "link.png").symlink_to("a.png")
    path = write(
        folder,
        row(split="train", group_id="1"),
        row("b.png"),
        row(second, label=1, split="test", group_id="2"),
    )
    message = problem(path)
    assert f'manifest.jsonl:3: image_path: "{second}" is the picture of line 1' in (
        message
    )
    assert "keep one of them" in message


def test_every_repeat_of_a_picture_is_reported(folder: Path) -> None:
    message = problem(write(folder, row(), row(), row("b.png"), row()))
    assert message.startswith("2 problems:")
    assert "manifest.jsonl:2: " in message
    assert "manifest.jsonl:4: " in message


def test_a_picture_may_stand_in_several_categories(folder: Path) -> None:
    path = write(folder, row(category="one"), row(category="two"))
    assert [read.category for read in read_manifest(path)] == ["one", "two"]


def test_a_manifest_that_is_a_folder_is_refused(folder: Path) -> None:
    message = problem(folder)
    assert message == (
        f"{folder}: is a folder, expected a JSONL file; name the manifest inside it"
    )


def test_a_manifest_that_cannot_be_opened_is_refused_with_what_to_do(
    folder: Path,
) -> None:
    path = folder / ("x" * 400)
    assert problem(path).endswith("; check the path and its permissions")


def test_a_missing_manifest_is_refused(tmp_path: Path) -> None:
    message = problem(tmp_path / "manifest.jsonl")
    assert "no such manifest; expected a JSONL file" in message


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing yet\n"])
def test_a_manifest_without_rows_is_refused(folder: Path, text: str) -> None:
    path = folder / "manifest.jsonl"
    path.write_text(text, encoding="utf-8")
    assert "holds no rows; expected one picture a line" in problem(path)


def test_rows_of_one_group_share_it_and_others_stand_alone(folder: Path) -> None:
    path = write(
        folder, row(group_id="7"), row("b.png", group_id="7"), row("deep/c.png")
    )
    first, second, third = read_manifest(path)
    assert first.group == second.group
    assert third.group not in (first.group, "group:7")


def test_a_group_named_like_a_picture_is_not_that_picture(folder: Path) -> None:
    first, second = read_manifest(write(folder, row(), row("b.png", group_id="a.png")))
    assert first.group != second.group


def test_the_fingerprint_does_not_depend_on_the_order(folder: Path) -> None:
    rows = read_manifest(write(folder, row(), row("b.png")))
    assert fingerprint(picture_digests(rows)) == fingerprint(
        picture_digests(reversed(rows))
    )


def test_the_fingerprint_changes_with_a_pictures_bytes(folder: Path) -> None:
    rows = read_manifest(write(folder, row(), row("b.png")))
    before = fingerprint(picture_digests(rows))
    (folder / "a.png").write_bytes(b"changed")
    assert fingerprint(picture_digests(rows)) != before


def test_the_fingerprint_changes_with_a_pictures_name(folder: Path) -> None:
    (folder / "same.png").write_bytes((folder / "a.png").read_bytes())
    first = read_manifest(write(folder, row("a.png")))
    second = read_manifest(write(folder, row("same.png")))
    assert fingerprint(picture_digests(first)) != fingerprint(picture_digests(second))
