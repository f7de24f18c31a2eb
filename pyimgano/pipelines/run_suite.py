"""Runs every cell of a suite, each in a process of its own; finished ones stay.

    OUTPUT/  suite.json  report.json  cells/<id>/  failures/<id>.json
             leaderboard.csv  leaderboard.md  leaderboard.html  comparisons.csv

A cell is one detector on one category with one seed. Its folder is complete or
absent, so a suite that was killed goes on with the cells that are missing.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.atomic import only_writer
from pyimgano_runtime.errors import ConfigError

from ..detectors.interface import Progress
from ..reporting.leaderboard import Cell, FailedCell, write_leaderboard
from ..source_date import timestamp
from ..workbench.artifacts import environment, write_json
from .cell_process import DISK_FULL, Failure
from .compare_models import compare_models
from .local_cells import LocalCells
from .ray_cells import ray_cells
from .run_benchmark import parity_problems
from .run_cell import os_failure
from .suite_file import Suite
from .suite_folder import begin_folder, discard_unusable, earlier_start, is_finished
from .suite_plan import (
    SUITE_SCHEMA_VERSION,
    CellOutcome,
    PlannedCell,
    Say,
    SuiteOptions,
    plan_cells,
    suite_document,
)


class CellRunner(Protocol):
    """Who runs the cells: this machine or a cluster."""

    def run(
        self,
        cells: Sequence[PlannedCell],
        options: SuiteOptions,
        output: Path,
        progress: Progress,
    ) -> Generator[CellOutcome]:
        """Give each cell with its failure, None if it finished, as they end."""


def run_suite(
    suite: Suite,
    options: SuiteOptions,
    output: Path,
    *,
    resume: bool,
    force: bool,
    progress: Progress,
    say: Say,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Run the cells that are missing and write the leaderboards.

    Args:
        only: run those whose id holds one of these; empty: all.

    Raises:
        ConfigError: `only` fits no cell; the output exists and is neither resumed nor
            replaced, or is that of another suite, or another process writes to it.
    """
    output = output.absolute()
    cells = plan_cells(suite)
    wanted = _wanted(cells, only)
    needed = [path for d in suite.datasets for path in d.source.needed]
    needed += [Path(suite.path)] if Path(suite.path).is_file() else []
    output.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(output):
        document = suite_document(options, cells)
        earlier = earlier_start(output, document, needed, resume=resume, force=force)
        document = earlier or document
        options = replace(options, threads=document["threads"])
        with _runner(options, document["threads"], say) as runner:
            if earlier is None:
                begin_folder(output, document, force=force)
            for line in discard_unusable(output, cells, document):
                say(line)
            done = sum(is_finished(output, cell) for cell in cells)
            missing = [cell for cell in wanted if not is_finished(output, cell)]
            if done:
                say(f"{done} of {len(cells)} cells are finished already")
            complete = False
            failures: dict[str, Failure] = {}
            try:
                planned = done + len(missing)
                _run_cells(
                    *(runner, missing, options, output),
                    *(planned, failures, progress, say),
                )
                complete = True
            finally:  # a full disk or Ctrl-C: what is finished is shown
                report = _write_results(
                    output, suite, options, cells, failures, compared=complete
                )
    return report


def _runner(
    options: SuiteOptions, threads: int, say: Say
) -> AbstractContextManager[CellRunner]:
    """Give who runs the cells; a cluster is joined, or refused, when it is entered."""
    if options.ray is None:
        return nullcontext(LocalCells())
    return ray_cells(options.ray, threads=threads, say=say)


def _wanted(cells: Sequence[PlannedCell], only: Sequence[str]) -> list[PlannedCell]:
    """Give the cells whose id holds one of the texts; all where there are none."""
    unknown = [text for text in only if not any(text in cell.id for cell in cells)]
    if unknown:
        models = ", ".join(dict.fromkeys(cell.model.label for cell in cells))
        sets = ", ".join(dict.fromkeys(cell.dataset.name for cell in cells))
        raise ConfigError(
            f"--only {unknown[0]}: no cell of the suite has this in its name; its "
            f"models: {models}; its data sets: {sets}"
        )
    return [cell for cell in cells if not only or any(text in cell.id for text in only)]


def _run_cells(
    runner: CellRunner,
    cells: Sequence[PlannedCell],
    options: SuiteOptions,
    output: Path,
    planned: int,
    failures: dict[str, Failure],
    progress: Progress,
    say: Say,
) -> None:
    """Run cells, several at a time; a failure is recorded and the others go on."""
    done = planned - len(cells)
    progress("cells", done, planned)
    with closing(runner.run(cells, options, output, progress)) as outcomes:
        for cell, ended in outcomes:
            failure = _recorded(output, cell, ended)
            done += 1
            progress("cells", done, planned)
            outcome = "finished"
            if failure is not None:
                failures[cell.id] = failure
                if failure["kind"] == DISK_FULL:
                    raise OSError(
                        errno.ENOSPC,
                        "the disk is full; what is finished stays: make room, then go "
                        "on by --resume",
                        str(output),
                    )
                first = (failure["error"].splitlines() or [""])[0]
                outcome = f"FAILED: {failure['kind']}: {first}"
            say(f"[{done}/{planned}] {cell.id}: {outcome}")


def _recorded(
    output: Path, cell: PlannedCell, failure: Failure | None
) -> Failure | None:
    """Write the record of a cell's failure, or remove an earlier one."""
    record = output / "failures" / f"{cell.id}.json"
    try:
        if failure is None:
            record.unlink(missing_ok=True)
        else:
            write_json(record, {"cell": cell.facts()} | failure)
    except OSError as error:  # no room for the record
        return os_failure(error)
    return failure


def _write_results(
    output: Path,
    suite: Suite,
    options: SuiteOptions,
    planned: Sequence[PlannedCell],
    failures: dict[str, Failure],
    *,
    compared: bool,
) -> dict[str, Any]:
    """Write the leaderboards and the report of what is finished by now.

    Args:
        failures: of this start, by cell; those of earlier ones stand in the folder.
        compared: whether models are compared in pairs, which takes a while.
    """
    cells, failed = [], []
    for cell in planned:
        folder = output / "cells" / cell.id
        record = output / "failures" / f"{cell.id}.json"
        if is_finished(output, cell):
            report = read_json(folder / "report.json")
            cells.append(Cell(**cell.facts(), folder=folder, report=report))
            record.unlink(missing_ok=True)  # of an earlier start, killed since
        elif cell.id in failures or record.is_file():
            failure = failures.get(cell.id) or read_json(record)
            failed.append(
                FailedCell(**cell.facts(), kind=failure["kind"], error=failure["error"])
            )
    n_resamples = options.measure.bootstrap_resamples
    comparisons = compare_models(cells, n_resamples=n_resamples) if compared else []
    write_leaderboard(
        output,
        cells,
        failed,
        title=f"Suite {Path(suite.path).stem}",
        command=options.command,
        comparisons=comparisons,
        planned=len(planned),
    )
    report = {
        "schema_version": SUITE_SCHEMA_VERSION,
        "kind": "suite",
        "state": "finished" if len(cells) == len(planned) else "incomplete",
        "finished": timestamp(),
        "planned": len(planned),
        "cells": [cell.folder.name for cell in cells],
        "failed": {
            f"{f.dataset_name}/{f.category}/{f.model}/{f.seed}": {
                "kind": f.kind,
                "error": f.error,
            }
            for f in failed
        },
        "parity_problems": [
            f"{cell.folder.name}: {problem}"
            for cell in cells
            for problem in parity_problems(cell.report)
        ],
        "environment": environment(),
    }
    write_json(output / "report.json", report)
    return report
