"""The examples are the shipped files, they load, and `init` writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from conftest import CommandResult
from factories import write_dataset
from pyimgano.datasets.manifest import read_manifest
from pyimgano.workbench.config import load_config, parse_config

Run = Callable[..., CommandResult]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples" / "configs"
BALANCED = "manifest_industrial_workflow_balanced.json"


def examples() -> list[Path]:
    return sorted(EXAMPLES.glob("*.json"))


def test_there_are_examples() -> None:
    assert BALANCED in [path.name for path in examples()]


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.name)
def test_an_example_is_the_shipped_file(path: Path) -> None:
    shipped = resources.files("pyimgano") / "resources" / path.name
    assert path.read_bytes() == shipped.read_bytes()


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.name)
def test_an_example_loads(path: Path) -> None:
    assert load_config(path).config.recipe == "industrial-adapt"


def test_the_starter_config_says_the_defaults() -> None:
    payload = json.loads((EXAMPLES / BALANCED).read_text("utf-8"))
    smallest = {"dataset": {"manifest_path": "manifest.jsonl"}}
    assert parse_config(payload, "c") == parse_config(smallest, "c")


def test_init_writes_a_config_and_a_manifest_that_explains_itself(
    run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("init", tmp_path / "part")
    assert done.code == 0
    assert sorted(p.name for p in (tmp_path / "part").iterdir()) == [
        "config.json",
        "manifest.jsonl",
    ]
    assert f"pyimgano manifest create --from {tmp_path / 'part'}" in done.stdout
    config = tmp_path / "part" / "config.json"
    assert config.read_bytes() == (EXAMPLES / BALANCED).read_bytes()
    refused = run_cli("train", "--config", config, "--preflight")
    assert refused.code == 2
    assert "MANIFEST_EMPTY" in refused.stdout


def test_the_rows_of_the_template_are_rows(run_cli: Run, tmp_path: Path) -> None:
    run_cli("init", tmp_path)
    manifest = tmp_path / "manifest.jsonl"
    lines = manifest.read_text("utf-8").splitlines()
    rows = [line.removeprefix("# ") for line in lines if line.startswith("# {")]
    assert len(rows) == 3
    for row in map(json.loads, rows):
        for name in (row["image_path"], row.get("mask_path")):
            if name:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).touch()
    manifest.write_text("\n".join(rows), encoding="utf-8")
    assert [row.label for row in read_manifest(manifest)] == [0, 0, 1]


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_init_keeps_rows_and_writes_what_is_missing(
    run_cli: Run, tmp_path: Path, force: tuple[str, ...]
) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text('{"image_path": "a.png"}\n', encoding="utf-8")
    done = run_cli("init", tmp_path, *force)
    assert done.code == 0
    assert f"{manifest}: is there already, kept" in done.stdout
    assert manifest.read_text("utf-8") == '{"image_path": "a.png"}\n'
    assert (tmp_path / "config.json").is_file()


def test_init_replaces_its_config_only_when_forced(
    run_cli: Run, tmp_path: Path
) -> None:
    assert run_cli("init", tmp_path).code == 0
    config = tmp_path / "config.json"
    config.write_text('{"dataset": {}}', encoding="utf-8")
    assert run_cli("init", tmp_path).code == 0
    assert config.read_text("utf-8") == '{"dataset": {}}'
    assert run_cli("init", tmp_path, "--force").code == 0
    assert config.read_bytes() == (EXAMPLES / BALANCED).read_bytes()


def test_init_refuses_a_file_in_place_of_the_folder(
    run_cli: Run, tmp_path: Path
) -> None:
    (tmp_path / "part").touch()
    done = run_cli("init", tmp_path / "part")
    assert done.code == 2
    assert "is a file, expected a folder" in done.stderr


@pytest.mark.slow
def test_the_starter_config_trains(run_cli: Run, tmp_path: Path) -> None:
    write_dataset(tmp_path, n_train=20, n_test_normal=4, n_test_defect=4)
    manifest = tmp_path / "manifest.jsonl"
    manifest = manifest.rename(tmp_path / "rows.jsonl")
    assert run_cli("init", tmp_path).code == 0
    manifest.replace(tmp_path / "manifest.jsonl")
    config, output = tmp_path / "config.json", tmp_path / "run"
    assert run_cli("train", "--config", config, "--preflight").code == 0
    assert run_cli("train", "--config", config, "--output", output).code == 0
    report = json.loads((output / "report.json").read_text("utf-8"))
    assert report["recipe"] == "industrial-adapt"
