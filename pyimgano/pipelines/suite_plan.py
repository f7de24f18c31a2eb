"""The cells of a suite: one detector on one category with one seed each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.paths import plain_name

from ..datasets.catalog import read_dataset
from ..detectors.plugins import loaded_homes
from .cell_process import Failure
from .compare_engines import MeasureOptions
from .suite_file import Suite, SuiteDataset, SuiteModel

SUITE_SCHEMA_VERSION: Final = "1.0"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RayOptions:
    """Which Ray cluster runs the cells, and what one of them demands of it."""

    address: str | None  # None: a Ray that is started here
    gpus: float
    memory: int | None  # bytes; None: not counted


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """How the cells are run."""

    engines: tuple[str, ...]
    threads: int | None  # of each cell; None: its share of the cores
    jobs: int | None  # cells at a time; None: one here, as many as fit on a cluster
    measure: MeasureOptions
    robustness_images: int | None
    command: str | None  # what was typed, for the page
    ray: RayOptions | None = None  # None: cells run on this machine


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """One detector on one category with one seed."""

    id: str  # safe as the name of a folder
    model: SuiteModel
    dataset: SuiteDataset
    category: str
    seed: int
    rows_sha256: str  # of its rows: which pictures, labels, splits, groups

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

    def order(self, options: SuiteOptions, output: Path) -> dict[str, Any]:
        """Give what the cell's process is told, as JSON; it may run elsewhere."""
        return {
            "where": self.id,
            "working_folder": str(Path.cwd()),
            "config": self.config(options),
            "dataset_name": self.dataset.name,
            "model": self.model.label,
            "engines": list(options.engines),
            "threads": options.threads or 1,
            "options": asdict(options.measure) | {"seed": self.seed},
            "robustness_images": options.robustness_images,
            "plugins": loaded_homes(),
            "output": str(output / "cells" / self.id),
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


CellOutcome = tuple[PlannedCell, Failure | None]


def plan_cells(suite: Suite) -> list[PlannedCell]:
    """Give every cell: data set by data set, so that a table fills row by row.

    Raises:
        DatasetError: rows that cannot be read.
    """
    taken: set[str] = set()
    cells = []
    for dataset in suite.datasets:
        digests = _rows_digests(dataset)
        for category in dataset.categories:
            # A set of one category often has its name.
            place = dict.fromkeys([dataset.name, category])
            for seed in suite.seeds:
                for model in suite.models:
                    name = "-".join([*place, model.label, f"s{seed}"])
                    id = plain_name(name, taken)
                    digest = digests[category]
                    cells.append(
                        PlannedCell(id, model, dataset, category, seed, digest)
                    )
    return cells


def _rows_digests(dataset: SuiteDataset) -> dict[str, str]:
    """Give a sha256 of each category's rows; no picture is opened."""
    hashes = {name: hashlib.sha256() for name in dataset.categories}
    rows = read_dataset(dataset.source, categories=dataset.categories)
    for row in rows:
        if row.category in hashes:
            facts = (row.image, row.split, row.label, row.mask, row.group_id)
            line = json.dumps([*facts, row.mask_above]) + "\n"
            hashes[row.category].update(line.encode())
    return {name: found.hexdigest() for name, found in hashes.items()}


def suite_document(
    options: SuiteOptions, cells: Sequence[PlannedCell]
) -> dict[str, Any]:
    """Give what makes two suites the same: models, data, seeds, measurements."""
    share = max(1, usable_cores() // (options.jobs or 1))
    return {
        "schema_version": SUITE_SCHEMA_VERSION,
        "kind": "suite",
        "engines": list(options.engines),
        "threads": options.threads or share,
        "bootstrap_resamples": options.measure.bootstrap_resamples,
        "pixel_metrics": options.measure.pixel_metrics,
        "processes": options.measure.processes,
        "robustness_images": options.robustness_images,
        "cells": {
            cell.id: cell.facts()
            | cell.config(options)
            | {"rows_sha256": cell.rows_sha256}
            for cell in cells
        },
    }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
