"""Preflight of a manifest: every code, the summary, and what must never crash it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import read_rows, texture_image, write_dataset, write_manifest
from pyimgano.datasets.catalog import DataSource
from pyimgano.datasets.issues import ISSUE_CODES, KEPT_PER_CODE
from pyimgano.workbench.config import load_config
from pyimgano.workbench.preflight import (
    PreflightPlan,
    PreflightReport,
    examine,
    run_preflight,
)

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "docs"))

import preflight_examples  # noqa: E402 - found through the line above


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Give 22 train, 2 test normals and 2 defects with masks."""
    return write_dataset(
        tmp_path / "data", n_train=22, n_test_normal=2, n_test_defect=2, size=(48, 48)
    )


def preflight(manifest: Path, **options: Any) -> PreflightReport:
    content = options.pop("content", True)
    source = DataSource("manifest", manifest, options.pop("root", None))
    return examine(PreflightPlan(source=source, **options), content=content).report


def codes(report: PreflightReport, severity: str | None = None) -> list[str]:
    return [
        issue.code
        for issue in report.issues
        if severity is None or issue.severity == severity
    ]


def one(report: PreflightReport, code: str) -> Any:
    (issue,) = [issue for issue in report.issues if issue.code == code]
    return issue


def edit(manifest: Path, change: Callable[[list[dict[str, Any]]], object]) -> Path:
    rows = read_rows(manifest)
    change(rows)
    return write_manifest(manifest, rows)


# --- every code ---------------------------------------------------------------------


@pytest.mark.parametrize("code", preflight_examples.EXAMPLES)
def test_the_example_of_the_docs_raises_its_code(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    report, _ = preflight_examples.EXAMPLES[code].run(folder)
    found = [issue for issue in report.issues if issue.code == code]
    assert found
    assert {issue.severity for issue in found} == {ISSUE_CODES[code].severity}
    json.dumps(report.to_json(), allow_nan=False)


def test_every_code_has_an_example_or_a_reason() -> None:
    shown, hidden = preflight_examples.EXAMPLES, preflight_examples.NOT_SHOWN
    assert set(shown) | set(hidden) == set(ISSUE_CODES)
    assert not set(shown) & set(hidden)


def test_every_code_of_the_decoder_is_known() -> None:
    import re

    runtime = REPOSITORY / "runtime/src/pyimgano_runtime"
    files = [
        runtime / "decode.py",
        runtime / "image_header.py",
        *(runtime / "image_formats").glob("*.py"),
    ]
    found = {
        code
        for path in files
        for code in re.findall(r'code="([A-Z_]+)"', path.read_text("utf-8"))
    }
    assert len(found) > 10
    assert found <= set(ISSUE_CODES)


def test_a_clean_data_set_has_no_errors_and_no_remarks_on_pictures(
    manifest: Path,
) -> None:
    report = preflight(manifest)
    assert codes(report) == ["TOO_FEW_NORMALS_TO_CALIBRATE"]
    assert not report.has_errors


# --- places -------------------------------------------------------------------------


def test_broken_json_names_line_and_column(manifest: Path) -> None:
    lines = manifest.read_text("utf-8").splitlines()
    lines[4] = '{"image_path": "x.png",, "label": 0}'
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    issue = one(preflight(manifest), "MANIFEST_INVALID_JSON")
    assert issue.context == {"line": 5, "column": 24}
    assert issue.message.startswith(f"{manifest}:5: column 24: ")


def test_a_wrong_field_names_line_field_and_suggestion(manifest: Path) -> None:
    edit(manifest, lambda rows: rows[2].update(lable=0))
    issue = one(preflight(manifest), "MANIFEST_INVALID_RECORD")
    assert issue.context == {"line": 3, "field": "lable", "suggestion": "label"}


def test_a_wrong_choice_names_the_nearest(manifest: Path) -> None:
    edit(manifest, lambda rows: rows[2].update(split="tain"))
    issue = one(preflight(manifest), "MANIFEST_INVALID_RECORD")
    assert issue.context == {"line": 3, "field": "split", "suggestion": "train"}


def test_masks_are_looked_for_beside_the_manifest_then_under_the_root(
    manifest: Path, tmp_path: Path
) -> None:
    rows = read_rows(manifest)
    mask = rows[-1]["mask_path"]
    other = tmp_path / "other" / mask
    other.parent.mkdir(parents=True)
    (manifest.parent / mask).rename(other)
    assert "MANIFEST_MISSING_MASK" in codes(preflight(manifest))
    found = preflight(manifest, root=tmp_path / "other")
    assert not found.has_errors


@pytest.mark.parametrize(
    ("written", "there"),
    [("A.PNG", "a.png"), ("u\u0308.png", "\u00fc.png"), ("a.jpg", "a.png")],
)
def test_a_missing_picture_of_nearly_that_name_is_suggested(
    tmp_path: Path, written: str, there: str
) -> None:
    cv2.imwrite(str(tmp_path / "x.png"), texture_image(np.random.default_rng(0)))
    (tmp_path / "x.png").rename(tmp_path / there)
    row = {"image_path": written, "category": "part", "label": 0}
    report = preflight(write_manifest(tmp_path / "m.jsonl", [row]))
    issue = one(report, "MANIFEST_MISSING_IMAGE")
    assert issue.context["suggestion"] == there


def test_another_number_is_no_suggestion(manifest: Path) -> None:
    def number(rows: list[dict[str, Any]]) -> None:
        rows[0]["image_path"] = rows[0]["image_path"].replace("000", "999")

    issue = one(preflight(edit(manifest, number)), "MANIFEST_MISSING_IMAGE")
    assert "suggestion" not in issue.context


def test_a_picture_may_stand_in_two_categories(manifest: Path) -> None:
    rows = read_rows(manifest)
    again = [row | {"category": "again"} for row in rows]
    report = preflight(write_manifest(manifest, [*rows, *again]))
    assert not report.has_errors
    issues = report.summary["issues"]["by_code"]
    assert issues["DUPLICATE_IN_CATEGORIES"] == {"warning": len(rows)}


# --- groups and anomalies -----------------------------------------------------------


def test_a_group_conflict_is_one_issue_and_no_other(manifest: Path) -> None:
    def group(rows: list[dict[str, Any]]) -> None:
        for index in (0, 1, -1):
            rows[index]["group_id"] = "lot-7"

    report = preflight(edit(manifest, group))
    assert codes(report, "error") == ["MANIFEST_GROUP_SPLIT_CONFLICT"]
    issue = one(report, "MANIFEST_GROUP_SPLIT_CONFLICT")
    assert issue.context["group_id"] == "lot-7"
    assert sorted(issue.context["lines"]) == [1, 2, 26]


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_anomaly_that_its_group_pulls_along_is_an_error(
    manifest: Path, split: str
) -> None:
    def pull(rows: list[dict[str, Any]]) -> None:
        rows[0] |= {"group_id": "g", "split": split}
        rows[-1] |= {"group_id": "g", "split": None}

    report = preflight(edit(manifest, pull))
    assert codes(report, "error") == ["MANIFEST_GROUP_ANOMALY_IN_TRAIN"]
    assert report.issues[0].context["split"] == split


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("uses_defects", [False, True])
def test_an_anomaly_among_normals(
    manifest: Path, split: str, uses_defects: bool
) -> None:
    edit(manifest, lambda rows: rows[-1].update(split=split))
    report = preflight(manifest, uses_defects=uses_defects)
    issue = one(report, "MANIFEST_ANOMALY_IN_TRAIN")
    allowed = uses_defects and split == "train"
    assert issue.severity == ("info" if allowed else "error")


# --- the summary --------------------------------------------------------------------


def test_the_summary_counts_explicit_and_assigned_rows(manifest: Path) -> None:
    def free(rows: list[dict[str, Any]]) -> None:
        for row in rows[:10]:
            row["split"] = None
        rows[-1]["mask_path"] = None
        rows[-1]["split"] = None

    summary = preflight(edit(manifest, free)).summary
    counts = summary["counts"]
    assert counts["total"] == 26
    assert counts["explicit"] == {"train": 12, "val": 0, "test": 3, "auto": 11}
    assert counts["assigned"] == {"train": 20, "val": 0, "test": 6}
    assert counts["explicit_test_labels"] == {"normal": 2, "anomaly": 1}
    assert counts["assigned_labels"]["test"] == {"normal": 4, "anomaly": 2}
    assert summary["mask_coverage"] == {
        "explicit_test": {"anomalies": 1, "with_mask": 1, "share": 1.0},
        "assigned_test": {"anomalies": 2, "with_mask": 1, "share": 0.5},
    }
    assert summary["categories"]["bracket"]["counts"] == counts


def test_the_summary_adds_categories_up(manifest: Path) -> None:
    rows = read_rows(manifest)
    again = [row | {"category": "again"} for row in rows]
    write_manifest(manifest, [*rows, *again])
    summary = preflight(manifest, content=False).summary
    assert summary["counts"]["total"] == 52
    assert set(summary["categories"]) == {"again", "bracket"}
    chosen = preflight(manifest, content=False, categories=("again",))
    assert chosen.category == "again"
    assert chosen.summary["counts"]["total"] == 26


def test_issues_are_counted_beyond_those_that_are_kept(tmp_path: Path) -> None:
    rows = [
        {"image_path": f"{number}.png", "category": "part", "label": 0}
        for number in range(KEPT_PER_CODE + 50)
    ]
    report = preflight(write_manifest(tmp_path / "m.jsonl", rows))
    assert codes(report).count("MANIFEST_MISSING_IMAGE") == KEPT_PER_CODE
    by_code = report.summary["issues"]["by_code"]
    assert by_code["MANIFEST_MISSING_IMAGE"] == {"error": KEPT_PER_CODE + 50}


def test_errors_come_first(manifest: Path) -> None:
    def spoil(rows: list[dict[str, Any]]) -> None:
        rows[-1]["mask_path"] = None
        rows[0]["split"] = "test"
        rows[0]["group_id"] = rows[1]["group_id"] = "g"

    severities = [issue.severity for issue in preflight(edit(manifest, spoil)).issues]
    assert severities == sorted(severities, key=["error", "warning", "info"].index)
    assert len(set(severities)) == 3


def test_a_config_gives_detector_split_and_rate(
    manifest: Path, make_config: Callable[..., Path]
) -> None:
    config = make_config(manifest, calibration={"target_false_alarm_rate": 0.2})
    report = run_preflight(load_config(config))
    assert codes(report) == []
    assert report.dataset == "manifest"
    assert report.category is None


def test_without_content_no_picture_is_opened(manifest: Path) -> None:
    picture = manifest.parent / read_rows(manifest)[0]["image_path"]
    picture.write_bytes(b"no picture")
    assert not preflight(manifest, content=False).has_errors
    assert codes(preflight(manifest), "error") == ["IMAGE_UNREADABLE"]


def test_rows_without_a_picture_give_no_second_complaint(manifest: Path) -> None:
    def lose(rows: list[dict[str, Any]]) -> None:
        for row in rows[-2:]:
            row["image_path"] = "gone.png"

    report = preflight(edit(manifest, lose))
    assert codes(report) == ["MANIFEST_MISSING_IMAGE"] * 2
    chosen = preflight(manifest, categories=("bracket",), content=False)
    assert "MANIFEST_CATEGORY_EMPTY" not in codes(chosen)


def test_pictures_without_content_are_no_duplicates_of_each_other(
    manifest: Path,
) -> None:
    rows = read_rows(manifest)
    for row in (rows[0], rows[-3]):  # train and test
        (manifest.parent / row["image_path"]).write_bytes(b"")
    for level, row in ((90, rows[1]), (91, rows[-4])):
        flat = np.full((48, 48, 3), level, np.uint8)
        assert cv2.imwrite(str(manifest.parent / row["image_path"]), flat)
    report = preflight(manifest)
    assert codes(report, "error") == ["IMAGE_EMPTY"] * 2
    assert codes(report).count("IMAGE_CONSTANT") == 2
    assert not [code for code in codes(report) if "DUPLICATE" in code]


def test_a_mask_folder_without_pictures_is_an_empty_mask(manifest: Path) -> None:
    (manifest.parent / "none").mkdir()
    edit(manifest, lambda rows: rows[-1].update(mask_path="none"))
    issue = one(preflight(manifest), "MASK_EMPTY")
    assert "is a folder without pictures" in issue.message


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 0, 255)])
def test_a_coloured_mask_marks_where_any_colour_is_bright(
    manifest: Path, colour: tuple[int, int, int]
) -> None:
    mask = manifest.parent / read_rows(manifest)[-1]["mask_path"]
    pixels = np.zeros((48, 48, 3), np.uint8)
    pixels[5:9, 5:9] = colour
    assert cv2.imwrite(str(mask), pixels)
    assert "MASK_EMPTY" not in codes(preflight(manifest))


def kinds(folder: Path, change: Callable[[Any], Any]) -> PreflightReport:
    """Sixty good pictures of one kind, and forty of another."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(100):
        picture = texture_image(rng, size=(48, 64))
        name = f"{number:03}.png"
        cv2.imwrite(str(folder / name), change(picture) if number % 5 < 2 else picture)
        rows.append({"image_path": name, "category": "part", "label": 0})
    return preflight(write_manifest(folder / "m.jsonl", rows))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda picture: picture // 8, ["IMAGE_TOO_DARK"]),
        (lambda picture: np.rot90(picture).copy(), ["IMAGE_SIZES_VARY"]),
        (lambda picture: cv2.GaussianBlur(picture, (0, 0), 5), ["IMAGE_BLURRED"]),
    ],
)
def test_two_kinds_of_good_pictures_are_one_remark(
    tmp_path: Path, change: Callable[[Any], Any], expected: list[str]
) -> None:
    report = kinds(tmp_path, change)
    found = [code for code in codes(report) if code.startswith("IMAGE")]
    assert found == expected
    assert {i.severity for i in report.issues if i.code in expected} == {"info"}


def test_a_step_to_the_own_folder_is_portable(manifest: Path) -> None:
    def step(rows: list[dict[str, Any]]) -> None:
        rows[0]["image_path"] = rows[0]["image_path"].replace("/", "/./", 1)
        rows[1]["image_path"] = "./" + rows[1]["image_path"]

    assert "PATH_NOT_PORTABLE" not in codes(preflight(edit(manifest, step)))


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ('{"image_path": "a.png", "label": NaN}', 34),
        ('{"label": 0, "label": 1}', 14),
        ("\ufeff{}", 1),
    ],
)
def test_every_refusal_of_a_line_has_its_column(
    tmp_path: Path, line: str, column: int
) -> None:
    (tmp_path / "m.jsonl").write_text(line + "\n", encoding="utf-8")
    issue = one(preflight(tmp_path / "m.jsonl"), "MANIFEST_INVALID_JSON")
    assert issue.context["column"] == column


def test_a_misspelt_label_has_a_suggestion(manifest: Path) -> None:
    edit(manifest, lambda rows: rows[0].update(label="anomly"))
    issue = one(preflight(manifest), "MANIFEST_INVALID_RECORD")
    assert issue.context["suggestion"] == "anomaly"


# --- bad input ----------------------------------------------------------------------


@given(st.binary(max_size=400))
def test_random_bytes_are_issues_never_a_traceback(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        path.write_bytes(data)
        report = preflight(path)
        assert report.has_errors
        json.dumps(report.to_json(), allow_nan=False)


FIELDS = ("image_path", "category", "split", "label", "mask_path", "group_id", "meta")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["a.png", "..", "/a.png", "train", ".", "a.png/", "\0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=4,
)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=8), VALUES),
        max_size=4,
    )
)
def test_rows_of_anything_are_issues_never_a_traceback(
    rows: list[dict[str, Any]],
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.jsonl"
        cv2.imwrite(f"{folder}/a.png", texture_image(np.random.default_rng(0)))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        report = preflight(path)
        assert set(codes(report)) <= set(ISSUE_CODES)
        json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('\ufeff{"image_path": "a.png"}', "MANIFEST_INVALID_JSON"),
        ('{"image_path": "a.png", "image_path": "b.png"}', "MANIFEST_INVALID_JSON"),
        (
            '{"image_path": "a.png", "category": "c", "label": NaN}',
            "MANIFEST_INVALID_JSON",
        ),
        (
            '{"image_path": "/etc/passwd", "category": "c", "label": 0}',
            "MANIFEST_PATH_ESCAPE",
        ),
        (
            '{"image_path": "C:/a.png", "category": "c", "label": 0}',
            "MANIFEST_PATH_ESCAPE",
        ),
        (
            '{"image_path": "b/../../a.png", "category": "c", "label": 0}',
            "MANIFEST_PATH_ESCAPE",
        ),
        (
            '{"image_path": "folder.png", "category": "c", "label": 0}',
            "MANIFEST_MISSING_IMAGE",
        ),
        (
            '{"image_path": "pipe.png", "category": "c", "label": 0}',
            "MANIFEST_MISSING_IMAGE",
        ),
        (
            '{"image_path": "a\\u0000.png", "category": "c", "label": 0}',
            "MANIFEST_MISSING_IMAGE",
        ),
        ('{"image_path": "a.png", "label": 0}', "MANIFEST_INVALID_RECORD"),
        ("[1, 2]", "MANIFEST_INVALID_JSON"),
        ("{" * 5000, "MANIFEST_INVALID_JSON"),
        ("x" * 2_000_000, "MANIFEST_INVALID_JSON"),
    ],
)
def test_a_bad_line_is_an_issue_of_its_code(
    tmp_path: Path, line: str, code: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), texture_image(np.random.default_rng(0)))
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    path = tmp_path / "m.jsonl"
    path.write_text(f"{line}\n", encoding="utf-8")
    assert codes(preflight(path), "error") == [code]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"image_path,category,label\na.png,part,0\n", "looks like a table (CSV)"),
        (b'[{"image_path": "a.png"},\n{"image_path": "b.png"}]\n', "JSON array"),
        (b'{\n  "dataset": {}\n}\n', "perhaps a training config"),
        ('{"image_path": "a.png"}\n'.encode("utf-16"), "UTF-16"),
    ],
)
def test_another_format_is_one_issue_with_its_name(
    tmp_path: Path, data: bytes, expected: str
) -> None:
    (tmp_path / "m.jsonl").write_bytes(data)
    issue = one(preflight(tmp_path / "m.jsonl"), "MANIFEST_INVALID_JSON")
    assert expected in issue.message


def test_a_backslash_in_a_path_is_named(tmp_path: Path) -> None:
    row = {"image_path": "good\\a.png", "category": "part", "label": 0}
    report = preflight(write_manifest(tmp_path / "m.jsonl", [row]))
    assert "parted by /" in one(report, "MANIFEST_MISSING_IMAGE").message


def test_a_renamed_picture_is_suggested(tmp_path: Path) -> None:
    picture = texture_image(np.random.default_rng(0))
    cv2.imwrite(str(tmp_path / "part-7.png"), picture)
    row = {"image_path": "part_7.png", "category": "part", "label": 0}
    report = preflight(write_manifest(tmp_path / "m.jsonl", [row]))
    issue = one(report, "MANIFEST_MISSING_IMAGE")
    assert issue.context["suggestion"] == "part-7.png"


def test_lines_may_end_as_on_windows(manifest: Path) -> None:
    data = manifest.read_bytes().replace(b"\n", b"\r\n")
    manifest.write_bytes(data)
    assert not preflight(manifest, content=False).has_errors


def test_a_fifo_is_no_manifest_and_nothing_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.jsonl")
    assert codes(preflight(tmp_path / "m.jsonl")) == ["MANIFEST_NOT_READABLE"]


@pytest.mark.slow
def test_a_manifest_of_two_hundred_thousand_lines_is_read(tmp_path: Path) -> None:
    line = '{"image_path": "a.png", "category": "c", "label": 0, "split": "train"}\n'
    (tmp_path / "m.jsonl").write_text(line * 200_000, encoding="utf-8")
    cv2.imwrite(str(tmp_path / "a.png"), texture_image(np.random.default_rng(0)))
    report = preflight(tmp_path / "m.jsonl")
    by_code = report.summary["issues"]["by_code"]
    assert by_code["MANIFEST_DUPLICATE_IMAGE"] == {"error": 199_999}


def test_a_link_to_a_picture_is_the_same_picture(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), texture_image(np.random.default_rng(0)))
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "folder").mkdir()
    (tmp_path / "again").symlink_to(".")
    rows = [
        {"image_path": name, "category": "part", "label": 0}
        for name in ("a.png", "link.png", "again/a.png")
    ]
    report = preflight(write_manifest(tmp_path / "m.jsonl", rows))
    assert codes(report, "error").count("MANIFEST_DUPLICATE_IMAGE") == 2


def test_a_config_without_a_manifest_says_so(
    make_config: Callable[..., Path], manifest: Path
) -> None:
    config = make_config(manifest, dataset={})
    assert codes(run_preflight(load_config(config))) == ["MANIFEST_PATH_MISSING"]
