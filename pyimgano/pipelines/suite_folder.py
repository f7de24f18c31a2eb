"""The output folder of a suite: begun, gone on with, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.atomic import (
    delete_folder,
    refuse_existing,
    refuse_replacing,
)
from pyimgano_runtime.errors import ConfigError

from ..workbench.artifacts import write_json
from .result_folder import open_result
from .suite_plan import PlannedCell


def earlier_start(
    output: Path,
    document: dict[str, Any],
    needed: Sequence[Path],
    *,
    resume: bool,
    force: bool,
) -> dict[str, Any] | None:
    """Refuse a folder that this suite may not write to; nothing is changed.

    Returns:
        The suite's document as its first start wrote it, with as many threads, so that
        times within a table are alike; None: it begins with this start.

    Raises:
        ConfigError: the folder exists and is neither resumed nor replaced, or is that
            of another suite.
    """
    path = output / "suite.json"
    if resume and path.is_file():
        found: dict[str, Any] = read_json(path)
        _refuse_other_suite(path, found, document)
        return found
    if resume and output.exists() and any(output.iterdir()):
        raise ConfigError(
            f"{output}: holds no suite.json, so there is nothing to resume; name the "
            "output folder of a suite"
        )
    if force:
        refuse_replacing(output, force=True, keep=needed)
        return None
    try:
        refuse_existing(output, force=False)
    except ConfigError as error:
        hint = " or --resume to go on with it" if path.is_file() else ""
        raise ConfigError(f"{error}{hint}") from error
    return None


def begin_folder(output: Path, document: dict[str, Any], *, force: bool) -> None:
    """Make the folder of a suite that begins."""
    if force:
        delete_folder(output)
    write_json(output / "report.json", {"kind": "suite", "state": "running"})
    write_json(output / "suite.json", document)


def _refuse_other_suite(
    path: Path, found: dict[str, Any], document: dict[str, Any]
) -> None:
    def told(suite: dict[str, Any]) -> dict[str, Any]:
        cells = {
            name: {key: value for key, value in cell.items() if key != "rows_sha256"}
            for name, cell in suite.get("cells", {}).items()
        }
        return suite | {"cells": cells}

    was, is_now = told(found), told(document)
    keys = sorted(k for k in {*was, *is_now} if was.get(k) != is_now.get(k))
    keys = [key for key in keys if key != "threads"]
    if keys:
        raise ConfigError(
            f"{path}: was made by another suite (differs in: {', '.join(keys)}); name "
            "another output folder, or pass --force in place of --resume to begin anew"
        )


def discard_unusable(
    output: Path, cells: Sequence[PlannedCell], document: dict[str, Any]
) -> list[str]:
    """Delete finished cells that are damaged or of data that has changed since.

    Returns:
        A line for each; it runs again.
    """
    said = []
    recorded = document["cells"]
    for cell in cells:
        folder = output / "cells" / cell.id
        if not is_finished(output, cell):
            continue
        reason = _damage(folder, cell.category)
        if recorded[cell.id]["rows_sha256"] != cell.rows_sha256:
            reason = "its rows in the data have changed"
        if reason is not None:
            delete_folder(folder)
            said.append(f"{cell.id}: runs again: {reason}")
    for cell in cells:
        recorded[cell.id]["rows_sha256"] = cell.rows_sha256
    write_json(output / "suite.json", document)
    return said


def _damage(folder: Path, category: str) -> str | None:
    """Say what is wrong with a finished cell, None if it can be read."""
    try:
        result = open_result(folder)
        for engine in result.engines(category):
            result.pictures(category, engine)
    except ConfigError as error:
        return str(error).splitlines()[0]
    return None


def is_finished(output: Path, cell: PlannedCell) -> bool:
    """Tell whether a cell's folder is there; it is complete or absent."""
    return (output / "cells" / cell.id / "report.json").is_file()
