"""Trains, exports and compares: one benchmark from data to leaderboard.

The folder is complete or absent: run/, bundle/, what `run_benchmark` writes, and the
leaderboard of its categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyimgano_runtime.atomic import new_folder
from pyimgano_runtime.bundle import open_bundle

from ..detectors.interface import Progress
from ..reporting.leaderboard import Cell, write_leaderboard
from ..workbench.runner import train
from .export_run import export_run
from .run_benchmark import BenchmarkRequest, run_benchmark, torch_threads

PARITY_IMAGES = 32  # at export; the benchmark itself compares every test picture


def train_and_compare(
    request: BenchmarkRequest,
    output: Path,
    *,
    force: bool,
    keep: Sequence[Path],
    progress: Progress,
) -> dict[str, Any]:
    """Write a benchmark folder and give its report.

    Raises:
        ConfigError, DatasetError: the data or the options are refused.
        ExportError, ParityError: the bundle does not score like what was trained.
    """
    with (
        new_folder(output, force=force, keep=keep) as folder,
        torch_threads(request.threads),
    ):
        run = train(request.loaded, folder / "run", force=False, progress=progress)
        export_run(
            run,
            folder / "bundle",
            name=output.absolute().name,
            version="1",
            created=None,
            goldens="synthetic",
            image_licence=None,
            parity_images=PARITY_IMAGES,
            force=False,
            progress=progress,
        )
        bundle = open_bundle(folder / "bundle")
        report = run_benchmark(run, bundle, request, folder, progress=progress)
        write_pages(folder, report)
    return report


def write_pages(folder: Path, report: dict[str, Any]) -> None:
    """Write the leaderboard of a benchmark's categories into its folder."""
    cells = [
        Cell(
            model=report["model"],
            dataset=report["dataset"],
            dataset_name=report["dataset_name"],
            category=name,
            seed=report["seed"],
            folder=folder,
            report=report,
        )
        for name in report["categories"]
    ]
    title = f"{report['model']} on {report['dataset_name']}"
    write_leaderboard(folder, cells, [], title=title, command=None)
