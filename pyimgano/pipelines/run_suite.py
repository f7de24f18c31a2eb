"""Runs every cell of a suite, each in a process of its own; finished ones stay.

    OUTPUT/  suite.json  report.json  cells/<id>/  failures/<id>.json
             leaderboard.csv  leaderboard.md  leaderboard.html  comparisons.csv

A cell is one detector on one category with one seed. Its folder is complete or
absent, so a suite that was killed goes on with the cells that are missing.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.atomic import only_writer, refuse_existing, refuse_replacing
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.paths import plain_name

from ..detectors.interface import Progress
from ..reporting.leaderboard import Cell, FailedCell, write_leaderboard
from ..source_date import timestamp
from ..workbench.artifacts import environment, write_json
from .cell_process import CellProcess
from .compare_engines import MeasureOptions
from .compare_models import compare_models
from .run_benchmark import parity_problems
from .suite_file import Suite, SuiteDataset, SuiteModel

SUITE_SCHEMA_VERSION: Final = "1.0"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """How the cells are run."""

    engines: tuple[str, ...]
    threads: int  # of each cell
    jobs: int
    measure: MeasureOptions
    robustness_images: int | None
    command: str | None  # what was typed, for the page


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One detector on one category with one seed."""

    id: str  # safe as the name of a folder
    model: SuiteModel
    dataset: SuiteDataset
    category: str
    seed: int

    def config(self, options: SuiteOptions) -> dict[str, Any]:
        """Give its training config."""
        source = self.dataset.source
        split_seed = self.dataset.split_seed
        return {
            "seed": self.seed,
            "dataset": {
                "name": source.dataset,
                "manifest_path": _text(source.manifest_path),
                "root": _text(source.root),
                "categories": [self.category],
                "test_normal_fraction": self.dataset.test_normal_fraction,
                "split_seed": self.seed if split_seed is None else split_seed,
            },
            "model": {
                "name": self.model.name,
                "preset": self.model.preset,
                "options": self.model.options,
            },
            "evaluation": {
                # The benchmark measures both anyway, on the same pictures.
                "pixel_metrics": False,
                "bootstrap_resamples": 0,
            },
        }

    def facts(self) -> dict[str, Any]:
        """Give what names it in reports."""
        return {
            "model": self.model.label,
            "dataset": self.dataset.source.dataset,
            "dataset_name": self.dataset.name,
            "category": self.category,
            "seed": self.seed,
        }


def plan_cells(suite: Suite) -> list[PlannedCell]:
    """Give every cell: data set by data set, so that a table fills row by row."""
    taken: set[str] = set()
    return [
        PlannedCell(
            plain_name(
                "-".join(
                    # A set of one category often has its name.
                    [*dict.fromkeys([dataset.name, category]), model.label, f"s{seed}"]
                ),
                taken,
            ),
            *(model, dataset, category, seed),
        )
        for dataset in suite.datasets
        for category in dataset.categories
        for seed in suite.seeds
        for model in suite.models
    ]


def run_suite(
    suite: Suite,
    options: SuiteOptions,
    output: Path,
    *,
    resume: bool,
    force: bool,
    progress: Progress,
    say: Say,
) -> dict[str, Any]:
    """Run the cells that are missing and write the leaderboards.

    Raises:
        ConfigError: the output exists and is neither resumed nor replaced, or is that
            of another suite, or another process writes to it.
    """
    output = output.absolute()
    cells = plan_cells(suite)
    document = _document(suite, options, cells)
    needed = [path for d in suite.datasets for path in d.source.needed]
    output.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(output):
        _prepare(output, document, needed, resume=resume, force=force)
        missing = [cell for cell in cells if not _finished(output, cell)]
        done = len(cells) - len(missing)
        if done:
            say(f"{done} of {len(cells)} cells are finished already")
        try:
            _run_cells(missing, options, output, len(cells), progress, say)
        finally:  # a full disk or Ctrl-C: what is finished is shown
            report = _write_results(output, suite, options, cells)
    return report


def _document(
    suite: Suite, options: SuiteOptions, cells: Sequence[PlannedCell]
) -> dict[str, Any]:
    """Give what makes two suites the same: models, data, seeds, measurements."""
    return {
        "schema_version": SUITE_SCHEMA_VERSION,
        "kind": "suite",
        "engines": list(options.engines),
        "bootstrap_resamples": options.measure.bootstrap_resamples,
        "pixel_metrics": options.measure.pixel_metrics,
        "processes": options.measure.processes,
        "robustness_images": options.robustness_images,
        "cells": {cell.id: cell.facts() | cell.config(options) for cell in cells},
    }


def _prepare(
    output: Path,
    document: dict[str, Any],
    needed: Sequence[Path],
    *,
    resume: bool,
    force: bool,
) -> None:
    """Make the folder, or make sure that it is one of this very suite."""
    path = output / "suite.json"
    if resume and path.is_file():
        found = read_json(path)
        if found == document:
            return
        keys = sorted(
            key for key in {*found, *document} if found.get(key) != document.get(key)
        )
        raise ConfigError(
            f"{path}: was made by another suite (differs in: {', '.join(keys)}); name "
            "another output folder, or pass --force to begin anew"
        )
    if resume and output.exists() and any(output.iterdir()):
        raise ConfigError(
            f"{output}: holds no suite.json, so there is nothing to resume; name the "
            "output folder of a suite"
        )
    if force:
        refuse_replacing(output, force=True, keep=needed)
        if output.exists():
            shutil.rmtree(output)
    else:
        try:
            refuse_existing(output, force=False)
        except ConfigError as error:
            hint = " or --resume to go on with it" if path.is_file() else ""
            raise ConfigError(f"{error}{hint}") from error
    write_json(path, document)
    write_json(output / "report.json", {"kind": "suite", "state": "running"})


def _finished(output: Path, cell: PlannedCell) -> bool:
    return (output / "cells" / cell.id / "report.json").is_file()


def _run_cells(
    cells: Sequence[PlannedCell],
    options: SuiteOptions,
    output: Path,
    planned: int,
    progress: Progress,
    say: Say,
) -> None:
    """Run cells, several at a time; a failure is recorded and the others go on."""
    done = planned - len(cells)
    stop = threading.Event()
    progress("cells", done, planned)
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {
            pool.submit(_run_cell, cell, options, output, progress, stop): cell
            for cell in cells
        }
        try:
            for future in as_completed(futures):
                failure = future.result()
                done += 1
                progress("cells", done, planned)
                outcome = "finished" if failure is None else f"FAILED: {failure}"
                say(f"[{done}/{planned}] {futures[future].id}: {outcome}")
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _run_cell(
    cell: PlannedCell,
    options: SuiteOptions,
    output: Path,
    progress: Progress,
    stop: threading.Event,
) -> str | None:
    """Run one cell; give its error in one line, None if it finished."""
    record = output / "failures" / f"{cell.id}.json"
    record.unlink(missing_ok=True)
    order = {
        "where": cell.id,
        "config": cell.config(options),
        "dataset_name": cell.dataset.name,
        "model": cell.model.label,
        "engines": list(options.engines),
        "threads": options.threads,
        "options": asdict(options.measure) | {"seed": cell.seed},
        "robustness_images": options.robustness_images,
        "output": str(output / "cells" / cell.id),
    }
    failure = CellProcess(order, threads=options.threads).run(
        lambda step, done, total: progress(f"{cell.id}: {step}", done, total), stop
    )
    if failure is None:
        return None
    if not stop.is_set():
        write_json(record, {"cell": cell.facts()} | failure)
    kind, lines = failure["kind"], failure["error"].splitlines() or [""]
    return f"{kind}: {lines[0]}"


def _write_results(
    output: Path, suite: Suite, options: SuiteOptions, planned: Sequence[PlannedCell]
) -> dict[str, Any]:
    """Write the leaderboards and the report of what is finished by now."""
    cells, failed = [], []
    for cell in planned:
        folder = output / "cells" / cell.id
        record = output / "failures" / f"{cell.id}.json"
        if _finished(output, cell):
            report = read_json(folder / "report.json")
            cells.append(Cell(**cell.facts(), folder=folder, report=report))
        elif record.is_file():
            failure = read_json(record)
            failed.append(
                FailedCell(**cell.facts(), kind=failure["kind"], error=failure["error"])
            )
    comparisons = compare_models(cells)
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


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
