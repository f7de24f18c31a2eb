"""Runs cells on this machine, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..detectors.interface import Progress
from .run_cell import run_cell
from .suite_plan import CellOutcome, PlannedCell, SuiteOptions


class LocalCells:
    """A thread for each of `jobs` cells, which waits for the cell's process."""

    def run(
        self,
        cells: Sequence[PlannedCell],
        options: SuiteOptions,
        output: Path,
        progress: Progress,
    ) -> Generator[CellOutcome]:
        """Give each cell with its failure, None if it finished, as they end.

        Closing it ends the cells that run.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(options.jobs or 1) as pool:
            try:
                futures = {}
                for cell in cells:
                    order = cell.order(options, output)
                    futures[pool.submit(run_cell, order, progress, stop)] = cell
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
