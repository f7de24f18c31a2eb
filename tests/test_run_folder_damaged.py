"""A run folder that was damaged or edited: one refusal in words, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bundle_copies import copy_of, edit_json
from conftest import CommandResult, Exported
from pyimgano.workbench.artifacts import Run, open_run
from pyimgano_runtime.errors import ConfigError


@pytest.fixture
def run(exported: Callable[[str], Exported], tmp_path: Path) -> Path:
    """Give a copy of a run that a test may spoil."""
    return copy_of(exported("pixel_stats").run, tmp_path / "run")


def test_what_training_wrote_is_read(run: Path) -> None:
    opened = open_run(run)
    digests = opened.digests("bracket")
    assert {part: len(of) for part, of in digests.items()} == {
        **{"train": 20, "val": 0, "labelled": 0},
    }
    assert list(opened.versions()) == ["pyimgano", "torch", "numpy"]


def test_a_package_without_version_is_left_out(run: Path) -> None:
    edit_json(
        run / "environment.json", lambda told: told["packages"].update(torch=None)
    )
    assert list(open_run(run).versions()) == ["pyimgano", "numpy"]


REPORTS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda r: r.update(schema_version="9.0"), "schema_version is '9.0', expected"),
    (lambda r: r.pop("categories"), "categories: missing"),
    (lambda r: r.update(categories=[]), r"categories: found \[\], expected an object"),
    (lambda r: r.update(categories={}), "categories: found none, expected"),
    (lambda r: r.update(categories={"a": 3}), r"categories\.a: found 3, expected an"),
    (lambda r: r.pop("finished"), "finished: missing"),
    (lambda r: bracket(r).pop("folder"), r"categories\.bracket\.folder: missing"),
    (lambda r: bracket(r).update(folder="../x"), 'folder: found "../x", expected the'),
    (lambda r: bracket(r).update(folder=".."), r'folder: found "\.\.", expected the'),
    (lambda r: bracket(r).pop("counts"), r"categories\.bracket\.counts: missing"),
    (lambda r: bracket(r).update(warnings=[3]), r"warnings\[0\]: found 3, expected"),
]


def bracket(report: dict[str, Any]) -> dict[str, Any]:
    category: dict[str, Any] = report["categories"]["bracket"]
    return category


@pytest.mark.parametrize(("change", "expected"), REPORTS)
def test_a_damaged_report_is_refused(
    change: Callable[[dict[str, Any]], Any], expected: str, run: Path
) -> None:
    edit_json(run / "report.json", change)
    with pytest.raises(ConfigError, match=rf"report\.json: .*{expected}"):
        open_run(run)


READERS: list[tuple[str, Callable[[Run], object]]] = [
    ("categories/bracket/data.json", lambda run: run.digests("bracket")),
    ("categories/bracket/calibration.json", lambda run: run.calibration("bracket")),
    ("environment.json", lambda run: run.versions()),
]


@pytest.mark.parametrize("value", [{}, [], None, 3, "x"])
@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_file_of_another_form_is_refused(
    name: str, read: Callable[[Run], object], value: object, run: Path
) -> None:
    (run / name).write_text(json.dumps(value))
    with pytest.raises(ConfigError, match=f"{name}: "):
        read(open_run(run))


def test_digests_that_are_no_texts_are_refused(run: Path) -> None:
    edit_json(
        run / "categories/bracket/data.json", lambda data: data["train"].update(a=1)
    )
    with pytest.raises(ConfigError, match=r"train\.a: found 1, expected a text"):
        open_run(run).digests("bracket")


@pytest.mark.parametrize("name", ["report.json", "categories/bracket/data.json"])
def test_the_command_line_says_it_in_words(
    name: str, run: Path, tmp_path: Path, run_cli: Callable[..., CommandResult]
) -> None:
    (run / name).write_text("[]")
    done = run_cli("bundle", "export", "--run", run, "--output", tmp_path / "bundle")
    assert done.code == 2
    assert f"{run / name}: " in done.stderr
    assert not (tmp_path / "bundle").exists()
