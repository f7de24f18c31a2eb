"""`pyimgano runs list` and `show`: what is there, damaged reports too."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported

Run = Callable[..., CommandResult]
Export = Callable[[str], Exported]


@pytest.fixture
def runs(exported: Export, two_parts: Exported, tmp_path: Path) -> Path:
    """Give a folder with an older run of one part and a newer run of two."""
    folder = tmp_path / "runs"
    shutil.copytree(exported("pixel_stats").run, folder / "one")
    shutil.copytree(two_parts.run, folder / "line" / "two")
    finish(folder / "one", "2026-01-01T00:00:00Z")
    finish(folder / "line" / "two", "2026-02-01T00:00:00Z")
    return folder


def finish(run: Path, time: str) -> None:
    path = run / "report.json"
    report = json.loads(path.read_text("utf-8")) | {"finished": time}
    path.write_text(json.dumps(report), encoding="utf-8")


def rows(run_cli: Run, folder: Path) -> list[dict[str, Any]]:
    done = run_cli("runs", "list", folder, "--json")
    assert done.code == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["runs"]
    return found


def names(run_cli: Run, folder: Path) -> list[str]:
    return [
        Path(row["path"]).relative_to(folder).as_posix()
        for row in rows(run_cli, folder)
    ]


def test_runs_are_listed_newest_first(runs: Path, run_cli: Run) -> None:
    assert names(run_cli, runs) == ["line/two", "one"]
    finish(runs / "one", "2026-03-01T00:00:00Z")
    assert names(run_cli, runs) == ["one", "line/two"]


def test_a_run_of_one_category_is_listed_with_its_numbers(
    runs: Path, run_cli: Run
) -> None:
    two, one = rows(run_cli, runs)
    report = json.loads((runs / "one" / "report.json").read_text("utf-8"))
    for key in ("image_auroc", "recall", "false_alarm_rate"):
        assert one[key] == report["categories"]["bracket"][key]
        assert two[key] is None
    assert two["categories"] == ["bracket", "connector"]
    assert "2 categories" in run_cli("runs", "list", runs).stdout


def test_hidden_folders_and_what_lies_too_deep_are_not_listed(
    runs: Path, run_cli: Run
) -> None:
    shutil.copytree(runs / "one", runs / ".one.new")
    shutil.copytree(runs / "one", runs / "a/b/third")
    shutil.copytree(runs / "one", runs / "a/b/c/fourth")
    assert sorted(names(run_cli, runs)) == ["a/b/third", "line/two", "one"]


def test_a_damaged_report_is_listed_with_what_is_wrong(
    runs: Path, run_cli: Run
) -> None:
    text = (runs / "one/report.json").read_text("utf-8")
    (runs / "cut").mkdir()
    (runs / "cut/report.json").write_text(text[: len(text) // 2], encoding="utf-8")
    (runs / "wrong").mkdir()
    wrong = json.loads(text)
    wrong["categories"]["bracket"]["recall"] = "much"
    (runs / "wrong/report.json").write_text(json.dumps(wrong), encoding="utf-8")
    assert names(run_cli, runs) == ["line/two", "one", "cut", "wrong"]
    done = run_cli("runs", "list", runs)
    assert done.code == 0
    assert 'recall: found "much", expected a finite number' in done.stdout
    assert done.stdout.count("damaged: ") == 2


def test_a_report_of_another_program_is_not_listed(runs: Path, run_cli: Run) -> None:
    (runs / "foreign").mkdir()
    (runs / "foreign/report.json").write_text('{"total": 3}', encoding="utf-8")
    assert names(run_cli, runs) == ["line/two", "one"]


def test_a_suite_is_listed_as_one_and_opened_by_its_name(
    runs: Path, run_cli: Run
) -> None:
    suite = runs / "suite"
    shutil.copytree(runs / "one", suite / "cells" / "a")
    report = {"kind": "suite", "state": "running"}
    (suite / "report.json").write_text(json.dumps(report), encoding="utf-8")
    kinds = {row["kind"] for row in rows(run_cli, runs)}
    assert kinds == {"run", "suite"}
    assert names(run_cli, suite) == ["cells/a", "."]
    done = run_cli("runs", "show", suite)
    assert done.code == 2
    assert "is a suite of many benchmarks" in done.stderr


def test_nothing_to_list_says_what_to_do(tmp_path: Path, run_cli: Run) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        done = run_cli("runs", "list", folder)
        assert done.code == 0
        assert "pyimgano train" in done.stdout


def test_the_default_folder_is_runs(
    runs: Path, run_cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs.parent)
    assert "runs in runs" in run_cli("runs", "list").stdout


def test_a_file_is_no_folder_to_look_in(runs: Path, run_cli: Run) -> None:
    done = run_cli("runs", "list", runs / "one/report.json")
    assert done.code == 2
    assert "is a file" in done.stderr


def test_show_names_data_numbers_threshold_and_machine(
    runs: Path, run_cli: Run
) -> None:
    shown = run_cli("runs", "show", runs / "one").stdout
    report = json.loads((runs / "one" / "report.json").read_text("utf-8"))
    category = report["categories"]["bracket"]
    assert "20 train normals" in shown
    assert category["split_fingerprint"][:12] in shown
    assert f"{category['image_auroc']:.3f}" in shown
    assert "conformal on 20 held-out normals" in shown
    assert "warning: CALIBRATION_SMALL_N" in shown
    assert "torch 2" in shown
    assert "report.json" in shown


def test_show_gives_json(runs: Path, run_cli: Run) -> None:
    found = json.loads(run_cli("runs", "show", runs / "line/two", "--json").stdout)
    assert list(found["categories"]) == ["bracket", "connector"]
    assert found["kind"] == "run"
    assert found["config"]["model"]["name"] == "pixel_stats"
    listed = {file["path"]: file["bytes"] for file in found["files"]}
    assert listed["report.json"] == (runs / "line/two/report.json").stat().st_size


def test_show_refuses_a_folder_without_a_report(tmp_path: Path, run_cli: Run) -> None:
    done = run_cli("runs", "show", tmp_path)
    assert done.code == 2
    assert "pyimgano runs list" in done.stderr


def test_show_refuses_a_report_without_categories(runs: Path, run_cli: Run) -> None:
    path = runs / "one/report.json"
    report = json.loads(path.read_text("utf-8")) | {"categories": {}}
    path.write_text(json.dumps(report), encoding="utf-8")
    done = run_cli("runs", "show", runs / "one")
    assert done.code == 2
    assert "categories: found none" in done.stderr


@pytest.mark.parametrize("command", ["list", "show", "compare"])
def test_looking_at_runs_imports_no_torch(command: str, runs: Path) -> None:
    one = str(runs / "one")
    arguments = {"list": [str(runs)], "show": [one], "compare": [one, one]}[command]
    script = (
        "import sys\n"
        "from pyimgano.cli import main\n"
        "code = main(['runs', *sys.argv[1:]])\n"
        "print('code', code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, command, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "code 0 False"


@pytest.mark.parametrize("command", [[], ["list"], ["show"], ["compare"]])
def test_each_help_ends_with_an_example(command: list[str], run_cli: Run) -> None:
    done = run_cli("runs", *command, "--help")
    assert done.code == 0
    last = done.stdout.partition("Example")[2].replace("\n", " ")
    assert " ".join(["pyimgano runs", *command]) in last
