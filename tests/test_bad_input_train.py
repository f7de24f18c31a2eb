"""What a user gets wrong: one clear error, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import CommandResult, config_payload
from factories import corrupt_copy, read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]
Rows = list[dict[str, Any]]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_dataset(
        tmp_path / "data", n_train=5, n_test_normal=2, n_test_defect=2, size=(32, 32)
    )


@pytest.fixture
def refused(tmp_path: Path, manifest: Path, run_cli: Run) -> Callable[..., str]:
    """Give a function that trains and gives the one error, all promises checked."""

    def run(
        *,
        rows: Callable[[Rows], object] | None = None,
        config: Callable[[dict[str, Any]], object] | None = None,
    ) -> str:
        if rows is not None:
            changed = read_rows(manifest)
            rows(changed)
            write_manifest(manifest, changed)
        payload = config_payload(manifest)
        if config is not None:
            config(payload)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(payload), encoding="utf-8")
        done = run_cli("train", "--config", path, "--output", tmp_path / "run")
        assert done.code == 2
        assert done.stdout == ""
        assert done.stderr.startswith("pyimgano: ")
        assert "Traceback" not in done.stderr
        left = sorted(p.name for p in tmp_path.iterdir())
        assert left == ["config.json", "data"]
        return done.stderr

    return run


def test_an_unknown_config_key(refused: Callable[..., str], tmp_path: Path) -> None:
    error = refused(config=lambda c: c.update(calibratoin={}))
    place = tmp_path / "config.json"
    assert f'{place}: calibratoin: unknown key (did you mean "calibration"?)' in error


def test_a_wrong_type(refused: Callable[..., str]) -> None:
    error = refused(config=lambda c: c.update(seed="one"))
    assert 'config.json: seed: found "one", expected a whole number' in error


def test_an_unknown_detector(refused: Callable[..., str]) -> None:
    error = refused(config=lambda c: c["model"].update(name="pixelstats", options={}))
    assert 'config.json: model.name: no detector "pixelstats"' in error
    assert 'did you mean "pixel_stats"' in error


def test_an_unknown_option_of_the_detector(refused: Callable[..., str]) -> None:
    error = refused(config=lambda c: c["model"]["options"].update(imagesize=[32, 32]))
    assert 'imagesize: unknown key (did you mean "image_size"?)' in error


def test_a_missing_config(tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("train", "--config", tmp_path / "c.json", "--output", tmp_path / "r")
    assert done.code == 2
    assert f"{tmp_path / 'c.json'}: no such file; check the path" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_missing_manifest(refused: Callable[..., str]) -> None:
    error = refused(config=lambda c: c["dataset"].update(manifest_path="gone.jsonl"))
    assert "gone.jsonl: no such manifest; expected a JSONL file" in error


def test_a_missing_picture(refused: Callable[..., str], manifest: Path) -> None:
    error = refused(rows=lambda rows: rows[1].update(image_path="gone.png"))
    assert f'{manifest}:2: image_path: "gone.png" is no file in' in error
    assert "correct the path or set dataset.root (--root)" in error


def test_a_missing_mask(refused: Callable[..., str], manifest: Path) -> None:
    error = refused(rows=lambda rows: rows[-1].update(mask_path="gone.png"))
    assert f'{manifest}:9: mask_path: "gone.png" is no file in' in error


def test_a_root_that_is_not_there(refused: Callable[..., str], tmp_path: Path) -> None:
    error = refused(config=lambda c: c["dataset"].update(root="gone"))
    assert f"{tmp_path / 'gone'}: no such folder; set dataset.root (--root)" in error


def test_a_picture_on_two_rows(refused: Callable[..., str], manifest: Path) -> None:
    def repeat(rows: Rows) -> None:
        rows.append(rows[0] | {"split": "test"})

    error = refused(rows=repeat)
    assert f"{manifest}:10: image_path: " in error
    assert "is the picture of line 1 already; keep one of them" in error


def test_a_mask_of_zeros_and_ones_is_left_out_and_said(
    run_cli: Run,
    make_config: Callable[..., Path],
    manifest: Path,
    tmp_path: Path,
) -> None:
    def darken(rows: Rows) -> None:
        path = manifest.parent / rows[-1]["mask_path"]
        path = path.rename(path.with_suffix(".npy"))
        np.save(path, np.eye(32, dtype=np.uint8))
        rows[-1]["mask_path"] = path.relative_to(manifest.parent).as_posix()

    rows = read_rows(manifest)
    darken(rows)
    write_manifest(manifest, rows)
    output = tmp_path / "run"
    result = run_cli("train", "--config", make_config(manifest), "--output", output)
    assert result.code == 0
    report = json.loads((output / "report.json").read_text("utf-8"))
    (category,) = report["categories"].values()
    assert category["pixel_metrics"]["anomalies_with_empty_mask"] == 1
    (warning,) = [w for w in category["warnings"] if w.startswith("MASK_EMPTY")]
    assert rows[-1]["image_path"] in warning
    assert "make the defect 255, or state mask_above" in warning


def test_an_unreadable_picture(refused: Callable[..., str], manifest: Path) -> None:
    def break_one(rows: Rows) -> None:
        broken = corrupt_copy(manifest.parent / rows[2]["image_path"])
        rows[2]["image_path"] = broken.relative_to(manifest.parent).as_posix()

    error = refused(rows=break_one)
    assert "manifest line 3: " in error
    assert "_truncated.png" in error
    assert "replace the picture or remove the row" in error


def test_an_unreadable_test_picture(
    refused: Callable[..., str], manifest: Path
) -> None:
    def break_last(rows: Rows) -> None:
        (manifest.parent / rows[-1]["image_path"]).write_bytes(b"no picture")

    assert "manifest line 9: " in refused(rows=break_last)


def test_an_unreadable_mask(refused: Callable[..., str], manifest: Path) -> None:
    def break_mask(rows: Rows) -> None:
        (manifest.parent / rows[-1]["mask_path"]).write_bytes(b"no picture")

    error = refused(rows=break_mask)
    assert "mask " in error
    assert "replace the mask" in error


def test_a_label_without_meaning(refused: Callable[..., str], manifest: Path) -> None:
    error = refused(rows=lambda rows: rows[0].update(label="maybe"))
    assert f'{manifest}:1: label: found "maybe", expected 0 or' in error


def test_a_category_that_is_not_there(refused: Callable[..., str]) -> None:
    error = refused(config=lambda c: c["dataset"].update(categories=["braket"]))
    assert 'the data set has no "braket" (did you mean "bracket"?)' in error
    assert "it holds: bracket" in error


def test_an_empty_category_name(refused: Callable[..., str], manifest: Path) -> None:
    error = refused(rows=lambda rows: rows[0].update(category=""))
    assert f'{manifest}:1: category: found "", expected a text' in error


def test_a_manifest_without_rows(refused: Callable[..., str]) -> None:
    error = refused(rows=lambda rows: rows.clear())
    assert "holds no rows; expected one picture a line" in error


def test_no_normals_to_train_on(refused: Callable[..., str]) -> None:
    def test_only(rows: Rows) -> None:
        rows[:] = [row for row in rows if row["split"] == "test"]

    error = refused(rows=test_only)
    assert "bracket: no normals to train on; give at least one row label 0" in error


def test_an_anomaly_among_the_train_rows(refused: Callable[..., str]) -> None:
    error = refused(rows=lambda rows: rows[-1].update(split="train"))
    assert "bracket: line 9: " in error
    assert "is an anomaly in train, which holds normals only; set its split to" in error


def test_a_group_in_two_splits(refused: Callable[..., str]) -> None:
    def divide(rows: Rows) -> None:
        rows[0]["group_id"] = rows[-1]["group_id"] = "lot-7"

    error = refused(rows=divide)
    assert 'bracket: group "lot-7" stands in test and train' in error
    assert "(line 1 train, line 9 test)" in error
    assert "give all its rows the same one" in error


def test_problems_of_several_rows_come_at_once(refused: Callable[..., str]) -> None:
    def break_two(rows: Rows) -> None:
        rows[0]["label"] = 5
        rows[1]["image_path"] = "gone.png"

    error = refused(rows=break_two)
    assert "2 problems:" in error
    assert "manifest.jsonl:1: label" in error
    assert "manifest.jsonl:2: image_path" in error


def test_an_output_folder_that_exists(
    manifest: Path, tmp_path: Path, run_cli: Run
) -> None:
    path, output = tmp_path / "config.json", tmp_path / "run"
    path.write_text(json.dumps(config_payload(manifest)))
    output.mkdir()
    (output / "mine.txt").write_text("keep me")
    done = run_cli("train", "--config", path, "--output", output)
    assert done.code == 2
    assert f"{output}: already exists and nothing is overwritten" in done.stderr
    assert "pass --force to replace it" in done.stderr
    assert [p.name for p in output.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_output_that_is_a_file(
    force: list[str], manifest: Path, tmp_path: Path, run_cli: Run
) -> None:
    path, output = tmp_path / "config.json", tmp_path / "run"
    path.write_text(json.dumps(config_payload(manifest)))
    output.write_text("keep me")
    done = run_cli("train", "--config", path, "--output", output, *force)
    assert done.code == 2
    assert f"{output}: is a file or a link, expected a folder to make" in done.stderr
    assert output.read_text() == "keep me"


def test_a_missing_option_is_a_usage_error(run_cli: Run) -> None:
    done = run_cli("train")
    assert done.code == 2
    assert "Missing option '--config'" in done.stderr


def test_an_unknown_command_is_a_usage_error(run_cli: Run) -> None:
    done = run_cli("trian")
    assert done.code == 2
    assert "No such command 'trian'" in done.stderr
