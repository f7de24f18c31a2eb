"""Finds what was trained and benchmarked under a folder, and shows one of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.errors import ConfigError, PyimganoError

from ..metrics.report_keys import value_of
from .result_folder import ResultFolder, kind_of, measured, open_result

LEVELS: Final = 3  # below the folder that was named
LISTING_SCHEMA_VERSION: Final = "1.0"
_SHOWN: Final = ("image_auroc", "recall", "false_alarm_rate")


def find_runs(folder: Path) -> dict[str, Any]:
    """Give training runs, benchmarks and suites under a folder, newest first.

    What lies inside of one of them is not listed, unless it is `folder` itself: a
    suite's cells are found by naming the suite. Hidden folders are not looked at.

    Raises:
        ConfigError: `folder` is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file, expected a folder to look in")
    found = [_summary(place) for place in _reports(folder, LEVELS, is_top=True)]
    rows = [row for row in found if row is not None]
    rows.sort(key=lambda row: str(row["path"]))
    # Stable: of one time, by name. Texts of one format order like their times.
    rows.sort(key=lambda row: str(row["finished"] or ""), reverse=True)
    return {"schema_version": LISTING_SCHEMA_VERSION, "kind": "listing", "runs": rows}


def _reports(folder: Path, levels: int, *, is_top: bool = False) -> Iterator[Path]:
    """Give the folders with a report.json, no deeper than `levels`."""
    has_report = (folder / "report.json").is_file()
    if has_report:
        yield folder
    if levels == 0 or (has_report and not is_top):
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                entry.name
                for entry in entries
                if not entry.name.startswith(".")
                and entry.is_dir(follow_symlinks=False)
            )
    except OSError:  # it is gone, or we may not look into it
        return
    for name in names:
        yield from _reports(folder / name, levels - 1)


def _summary(folder: Path) -> dict[str, Any] | None:
    """Give a row of the list; None where the report is none of ours."""
    row: dict[str, Any] = {
        "path": str(folder),
        "kind": None,
        "model": None,
        "engine": None,
        "categories": [],
        "finished": None,
        "problem": None,
    } | dict.fromkeys((*_SHOWN, "image_auroc_ci95"))
    try:
        report = read_json(folder / "report.json")
        if not isinstance(report, dict):
            raise ConfigError(f"{folder}/report.json: expected a JSON object")
        row["kind"] = kind_of(report)
        if row["kind"] is None:
            return None
        if row["kind"] == "suite":
            return row | _suite(report)
        return row | _result(open_result(folder))
    except PyimganoError as error:
        return row | {"problem": " ".join(str(error).split())}


def _suite(report: dict[str, Any]) -> dict[str, Any]:
    finished = report.get("finished")
    return {
        "model": report.get("state"),
        "finished": finished if isinstance(finished, str) else None,
    }


def _result(result: ResultFolder) -> dict[str, Any]:
    row: dict[str, Any] = {
        "model": result.title,
        "categories": list(result.categories),
        "finished": result.finished,
    }
    if len(result.categories) == 1:  # numbers of several do not make one
        (name,) = result.categories
        row["engine"] = result.engine(name, None)
        numbers = result.numbers(name, row["engine"])
        row |= {key: value_of(numbers, key) for key in _SHOWN}
        row["image_auroc_ci95"] = numbers.get("image_auroc_ci95")
    return row


def describe_result(result: ResultFolder) -> dict[str, Any]:
    """Give what was trained on what, its numbers and its files as a JSON object.

    Raises:
        ConfigError: a file of the folder is missing or damaged.
    """
    return {
        "schema_version": LISTING_SCHEMA_VERSION,
        "path": str(result.folder),
        "kind": result.kind,
        "model": result.title,
        "finished": result.finished,
        "config": result.config(),
        "environment": result.environment(),
        "categories": {name: _category(name, result) for name in result.categories},
        "files": [
            {"path": path.relative_to(result.folder).as_posix(), "bytes": size}
            for path, size in _files(result.folder)
        ],
    }


def _category(name: str, result: ResultFolder) -> dict[str, Any]:
    facts = result.categories[name]
    engines: list[str | None] = [*result.engines(name)] or [None]
    numbers = {engine: result.numbers(name, engine) for engine in engines}
    return {
        "detector": facts.get("detector"),
        "hyper_parameters": facts.get("hyper_parameters"),
        "counts": facts.get("counts"),
        "split_fingerprint": facts.get("split_fingerprint"),
        "test_fingerprint": facts.get("test_fingerprint"),
        "data_fingerprint": facts.get("data_fingerprint"),
        "metrics": {
            engine or "torch": {
                key.name: {
                    "value": value_of(values, key.name),
                    "ci95": values.get(f"{key.name}_ci95"),
                }
                for key in measured([values])
            }
            for engine, values in numbers.items()
        },
        "reasons": {
            key: reason
            for values in numbers.values()
            for key, reason in (values.get("reasons") or {}).items()
        },
        "thresholds": result.thresholds(name),
        "threshold_words": result.threshold_words(name),
        "warnings": list(facts.get("warnings") or ()),
    }


def _files(folder: Path) -> list[tuple[Path, int]]:
    """Give the files of a folder with their sizes; links are not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            found.append((path, path.lstat().st_size))
    return sorted(found)
