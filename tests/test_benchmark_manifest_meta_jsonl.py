"""The per-image rows: stable names, the manifest's own notes, one row an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult
from factories import read_rows, write_dataset, write_manifest

Run = Callable[..., CommandResult]
QUICK = (
    *("--model", "pixel_stats", "--model-options", '{"image_size": [32, 32]}'),
    "--no-process-costs",
)


def _rows(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "categories/bracket/per_image.jsonl").read_text("utf-8")
    return [json.loads(line) for line in lines.splitlines()]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = write_dataset(tmp_path / "data", size=(32, 32))
    rows = [
        row
        | {"meta": {"lot": index, "nested": {"ä": [1, None]}}, "group_id": f"g{index}"}
        for index, row in enumerate(read_rows(path))
    ]
    return write_manifest(path, rows)


def test_rows_carry_the_manifest_path_and_meta_as_written(
    manifest: Path, tmp_path: Path, run_cli: Run
) -> None:
    output = tmp_path / "bench"
    command = ("benchmark", "--manifest-path", manifest, *QUICK)
    assert run_cli(*command, "--output", output).code == 0
    written = {row["image_path"]: row for row in read_rows(manifest)}
    rows = _rows(output)
    assert len(rows) == 2 * 8
    for row in rows:
        source = written[row["input"]]
        assert row["meta"] == source["meta"]
        assert row["group_id"] == source["group_id"]
        assert row["label_true"] == source["label"]
        assert row["category"] == "bracket"
        assert row["ok"] is True
    assert {row["engine"] for row in rows} == {"torch", "onnx"}


def test_two_benchmarks_name_the_same_pictures_in_the_same_order(
    manifest: Path, tmp_path: Path, run_cli: Run
) -> None:
    command = ("benchmark", "--manifest-path", manifest, *QUICK)
    for name in ("a", "b"):
        assert run_cli(*command, "--output", tmp_path / name).code == 0
    first, second = (_rows(tmp_path / name) for name in ("a", "b"))
    keys = ("input", "engine", "score", "label", "meta")
    assert [[row[k] for k in keys] for row in first] == [
        [row[k] for k in keys] for row in second
    ]


def test_input_names_stay_when_the_data_moves(
    manifest: Path, tmp_path: Path, run_cli: Run
) -> None:
    command = ("benchmark", "--compare", "onnx", *QUICK)
    assert (
        run_cli(*command, "--manifest-path", manifest, "--output", tmp_path / "a").code
        == 0
    )
    moved = manifest.parent.rename(tmp_path / "elsewhere ü") / manifest.name
    assert (
        run_cli(*command, "--manifest-path", moved, "--output", tmp_path / "b").code
        == 0
    )
    names = [[row["input"] for row in _rows(tmp_path / n)] for n in ("a", "b")]
    assert names[0] == names[1]
