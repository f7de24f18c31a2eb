"""Train, then infer in every way there is: the same pictures get the same judgement."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from factories import read_rows
from pyimgano_runtime.cli import main as runtime_main

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]

SCORE_REL = 1e-5  # DESIGN section 9; reached here: 6e-7


@pytest.fixture(params=["pixel_stats", "patchcore"])
def made(request: pytest.FixtureRequest, exported: Export) -> Exported:
    """A finished run and its bundle, by two kinds of detectors."""
    return exported(request.param)


def test_torch_rows_are_those_that_training_wrote(
    made: Exported, run_cli: Run, small_dataset: Path
) -> None:
    rows = read_rows(small_dataset)
    wanted = [row["image_path"] for row in rows if row["split"] == "test"]
    trained = {
        row["input"]: row
        for path in made.run.glob("categories/*/per_image.jsonl")
        for row in map(json.loads, path.read_text("utf-8").splitlines())
    }
    pictures = [small_dataset.parent / name for name in wanted]
    done = run_cli("infer", "--from-run", made.run, *pictures)
    assert done.code == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(wanted) == len(trained) == 12
    for name, row in zip(wanted, found, strict=True):
        for key in ("score", "p_value", "threshold", "label", "category"):
            assert row[key] == trained[name][key], (name, key)


def test_torch_document_and_bundle_agree_on_every_picture(
    made: Exported,
    run_cli: Run,
    small_dataset: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = read_rows(small_dataset)
    pictures = [
        str(small_dataset.parent / row["image_path"])
        for row in rows
        if row["split"] == "test"
    ]
    run = Path(shutil.copytree(made.run, tmp_path / "moved"))
    bundle = Path(shutil.copytree(made.bundle, tmp_path / "device"))
    by_torch = lines(run_cli("infer", "--from-run", run, *pictures).stdout)
    by_onnx = lines(
        run_cli("infer", "--from-run", run, "--engine", "onnx", *pictures).stdout
    )
    assert runtime_main(["infer", "--bundle", str(bundle), *pictures]) == 0
    by_device = lines(capsys.readouterr().out)
    assert len(by_torch) == len(by_onnx) == len(by_device) == len(pictures)
    for torch_row, onnx_row, device_row in zip(
        by_torch, by_onnx, by_device, strict=True
    ):
        assert onnx_row["score"] == device_row["score"]
        assert torch_row["score"] == pytest.approx(device_row["score"], rel=SCORE_REL)
        for key in ("input", "category", "label", "threshold", "ok"):
            assert torch_row[key] == onnx_row[key] == device_row[key]


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
