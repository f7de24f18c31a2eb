"""`pyimgano benchmark --list-categories` agrees with the catalog for every kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import CommandResult, Exported
from layout_folders import BUILDERS
from pyimgano.datasets.catalog import list_dataset_categories

Run = Callable[..., CommandResult]


def test_the_categories_of_a_manifest_are_listed_one_a_line(
    two_parts: Exported, run_cli: Run
) -> None:
    done = run_cli(
        *("benchmark", "--dataset", "manifest", "--manifest-path", two_parts.manifest),
        "--list-categories",
    )
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == ["bracket", "connector"]


def test_a_manifest_needs_no_dataset_option(two_parts: Exported, run_cli: Run) -> None:
    done = run_cli(
        *("benchmark", "--manifest-path", two_parts.manifest),
        *("--list-categories", "--json"),
    )
    assert json.loads(done.stdout) == ["bracket", "connector"]


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_layout_lists_what_the_catalog_knows(
    name: str, tmp_path: Path, run_cli: Run
) -> None:
    BUILDERS[name](tmp_path)
    done = run_cli(
        "benchmark", "--dataset", name, "--root", tmp_path, "--list-categories"
    )
    assert done.code == 0, done.stderr
    assert done.stdout.splitlines() == list_dataset_categories(name, tmp_path)
    assert done.stdout.strip()


def test_a_manifest_without_its_path_is_refused(run_cli: Run) -> None:
    done = run_cli("benchmark", "--dataset", "manifest", "--list-categories")
    assert done.code == 2
    assert 'dataset "manifest" needs the path of a manifest' in done.stderr


def test_without_any_data_set_it_says_what_is_missing(run_cli: Run) -> None:
    done = run_cli("benchmark", "--list-categories")
    assert done.code == 2
    assert "of which data set?" in done.stderr
