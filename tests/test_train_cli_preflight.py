"""`train --preflight`, `preflight`, and what `train` itself refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import CommandResult
from factories import corrupt_copy, read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_dataset(
        tmp_path / "data", n_train=21, n_test_normal=2, n_test_defect=2, size=(48, 48)
    )


def spoil(manifest: Path, **fields: Any) -> None:
    rows = read_rows(manifest)
    rows[-1] |= fields
    write_manifest(manifest, rows)


def truncate_one(manifest: Path) -> str:
    rows = read_rows(manifest)
    path = corrupt_copy(manifest.parent / rows[0]["image_path"])
    rows[0]["image_path"] = path.relative_to(manifest.parent).as_posix()
    write_manifest(manifest, rows)
    return str(rows[0]["image_path"])


# --- train --preflight --------------------------------------------------------------


def test_clean_data_gives_a_report_and_exit_code_0(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path, tmp_path: Path
) -> None:
    config = make_config(manifest)
    before = sorted(tmp_path.rglob("*"))
    done = run_cli("train", "--config", config, "--preflight")
    assert done.code == 0
    payload = json.loads(done.stdout)
    assert list(payload) == ["preflight"]
    report = payload["preflight"]
    assert report["dataset"] == "manifest"
    assert report["summary"]["counts"]["total"] == 25
    assert report["summary"]["content"]["decoded"] == 25
    assert {issue["severity"] for issue in report["issues"]} == {"warning"}
    assert sorted(tmp_path.rglob("*")) == before  # nothing was written


def test_errors_give_a_report_and_exit_code_2(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    image = truncate_one(manifest)
    spoil(manifest, mask_path="gone.png")
    done = run_cli("train", "--config", make_config(manifest), "--preflight")
    assert done.code == 2
    issues = json.loads(done.stdout)["preflight"]["issues"]
    errors = [issue for issue in issues if issue["severity"] == "error"]
    assert {issue["code"] for issue in errors} == {
        "IMAGE_TRUNCATED",
        "MANIFEST_MISSING_MASK",
    }
    (broken,) = [issue for issue in errors if issue["code"] == "IMAGE_TRUNCATED"]
    assert broken["context"]["image"] == image
    assert broken["context"]["line"] == 1


def test_a_misspelt_key_is_refused_before_any_picture(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    config = make_config(manifest, calibratoin={})
    done = run_cli("train", "--config", config, "--preflight")
    assert done.code == 2
    assert done.stdout == ""
    assert 'calibratoin: unknown key (did you mean "calibration"?)' in done.stderr


def test_preflight_and_dry_run_exclude_each_other(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    config = make_config(manifest)
    done = run_cli("train", "--config", config, "--preflight", "--dry-run")
    assert done.code == 2
    assert "--dry-run, --preflight: give one of them" in done.stderr


def test_the_dry_run_still_prints_the_effective_config(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    done = run_cli("train", "--config", make_config(manifest), "--dry-run")
    assert done.code == 0
    payload = json.loads(done.stdout)
    assert payload["dataset"]["manifest_path"] == str(manifest)
    assert "preflight" not in payload


# --- train ----------------------------------------------------------------------------


def test_train_refuses_errors_of_the_list_all_at_once(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path, tmp_path: Path
) -> None:
    rows = read_rows(manifest)
    rows[0] |= {"lable": 1}
    rows[1] |= {"image_path": "gone.png"}
    rows[2] |= {"group_id": "g"}
    rows[-1] |= {"group_id": "g"}
    write_manifest(manifest, rows)
    output = tmp_path / "run"
    done = run_cli("train", "--config", make_config(manifest), "--output", output)
    assert done.code == 2
    assert done.stderr.startswith("pyimgano: 3 problems:")
    for expected in ("lable: unknown key", '"gone.png" is no file', 'group "g"'):
        assert expected in done.stderr
    assert not output.exists()


def test_train_does_not_refuse_what_is_only_a_warning(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path, tmp_path: Path
) -> None:
    config = make_config(manifest)
    warned = run_cli("train", "--config", config, "--preflight")
    assert "TOO_FEW_NORMALS_TO_CALIBRATE" in warned.stdout
    assert run_cli("train", "--config", config, "--output", tmp_path / "r").code == 0


# --- preflight ------------------------------------------------------------------------


def test_the_table_names_code_line_and_what_to_do(run_cli: Run, manifest: Path) -> None:
    truncate_one(manifest)
    done = run_cli("preflight", "--manifest-path", manifest)
    assert done.code == 2
    assert "error IMAGE_TRUNCATED (1)" in done.stdout
    assert "manifest line 1: " in done.stdout
    assert "copy it again" in done.stdout
    verdict = done.stdout.splitlines()[-1]
    assert verdict.startswith("refused: 1 errors, ")
    assert verdict.endswith("24 of 25 pictures decoded")


def test_json_is_the_report(run_cli: Run, manifest: Path) -> None:
    done = run_cli("preflight", "--manifest-path", manifest, "--json")
    assert done.code == 0
    report = json.loads(done.stdout)
    assert report["schema_version"] == "1.0"
    assert set(report) == {
        *("schema_version", "dataset", "category", "summary", "issues"),
    }


def test_a_config_gives_the_same_report_as_train(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    config = make_config(manifest)
    trained = run_cli("train", "--config", config, "--preflight")
    alone = run_cli("preflight", "--config", config, "--json")
    assert json.loads(trained.stdout)["preflight"] == json.loads(alone.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "found none of them"),
        (
            ["--config", "c.json", "--manifest-path", "m.jsonl"],
            "found --config and --manifest-path",
        ),
        (["--config", "c.json", "--root", "."], "--root: comes from --config"),
        (["--config", "c.json", "--split-seed", "1"], "--split-seed: comes from"),
    ],
)
def test_options_that_contradict_are_refused(
    run_cli: Run, arguments: list[str], expected: str
) -> None:
    done = run_cli("preflight", *arguments)
    assert done.code == 2
    assert expected in done.stderr


def test_the_rate_is_that_which_is_asked_for(run_cli: Run, manifest: Path) -> None:
    few = run_cli("preflight", "--manifest-path", manifest)
    assert "that takes 99 normals" in few.stdout
    arguments = ("--manifest-path", manifest, "--target-false-alarm-rate", "0.05")
    enough = run_cli("preflight", *arguments)
    assert "TOO_FEW_NORMALS_TO_CALIBRATE" not in enough.stdout


# --- the page -------------------------------------------------------------------------


def test_the_page_holds_the_pictures_and_says_so(
    run_cli: Run, manifest: Path, tmp_path: Path
) -> None:
    rows = read_rows(manifest)
    copy = manifest.parent / "copy.png"
    copy.write_bytes((manifest.parent / rows[0]["image_path"]).read_bytes())
    rows.append(rows[-1] | {"image_path": "copy.png", "mask_path": None, "label": 0})
    write_manifest(manifest, rows)
    page = tmp_path / "page.html"
    done = run_cli("preflight", "--manifest-path", manifest, "--html", page)
    assert done.code == 2
    assert f"{page}: holds 2 of your pictures" in done.stderr
    html = page.read_text("utf-8")
    assert html.count("data:image/jpeg;base64,") == 2
    assert "DUPLICATE_IN_TRAIN_AND_TEST" in html
    assert "<script" not in html
    assert "http" not in html


def test_the_page_shows_names_as_text(run_cli: Run, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    picture = np.full((48, 48, 3), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), picture)
    (tmp_path / "x.png").rename(tmp_path / name)
    row = {"image_path": name, "category": "<b>part</b>", "label": 0}
    manifest = write_manifest(tmp_path / "m.jsonl", [row])
    page = tmp_path / "page.html"
    run_cli("preflight", "--manifest-path", manifest, "--html", page)
    html = page.read_text("utf-8")
    assert "<img src=x" not in html
    assert "<b>part" not in html


def test_an_existing_page_is_kept_unless_forced(
    run_cli: Run, manifest: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine", encoding="utf-8")
    arguments = ("preflight", "--manifest-path", manifest, "--html", page)
    done = run_cli(*arguments)
    assert done.code == 2
    assert "already exists" in done.stderr
    assert page.read_text("utf-8") == "mine"
    page.unlink()
    assert run_cli(*arguments).code == 0
    assert run_cli(*arguments).code == 2
    assert run_cli(*arguments, "--force").code == 0


def test_force_never_replaces_a_file_of_another_kind(
    run_cli: Run, make_config: Callable[..., Path], manifest: Path
) -> None:
    config = make_config(manifest)
    picture = manifest.parent / read_rows(manifest)[0]["image_path"]
    for path in (manifest, config, picture):
        before = path.read_bytes()
        arguments = ("--manifest-path", manifest, "--html", path, "--force")
        done = run_cli("preflight", *arguments)
        assert done.code == 2
        assert "is a file of another kind, which is never replaced" in done.stderr
        assert path.read_bytes() == before


def test_a_strip_is_measured_and_shown(run_cli: Run, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "strip.png"), np.full((1, 3000, 3), 90, np.uint8))
    row = {"image_path": "strip.png", "category": "part", "label": 0}
    manifest = write_manifest(tmp_path / "m.jsonl", [row])
    page = tmp_path / "page.html"
    done = run_cli("preflight", "--manifest-path", manifest, "--html", page)
    assert "IMAGE_CONSTANT" in done.stdout
    assert "holds 1 of your pictures" in done.stderr


@pytest.mark.parametrize(
    "option", ["--test-normal-fraction", "--target-false-alarm-rate"]
)
def test_nan_is_no_fraction(run_cli: Run, manifest: Path, option: str) -> None:
    done = run_cli("preflight", "--manifest-path", manifest, option, "nan")
    assert done.code == 2
    assert "nan is no finite number from" in done.stderr


def test_a_category_that_is_named_twice_is_read_once(
    run_cli: Run, manifest: Path
) -> None:
    twice = ("--category", "bracket", "--category", "bracket")
    done = run_cli("preflight", "--manifest-path", manifest, *twice, "--json")
    assert json.loads(done.stdout)["summary"]["counts"]["total"] == 25
