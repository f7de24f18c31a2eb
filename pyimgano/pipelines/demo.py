"""The whole product in one run: draw or copy pictures, train, export, copy, run, show.

Everything is written into one folder, complete or absent. What runs on the "device" is
a process of its own in another working directory that can import neither torch nor
this package.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import read_json
from pyimgano_runtime.atomic import new_folder, refuse_replacing
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.errors import ConfigError, DatasetError, raise_all

from ..datasets import elpv
from ..datasets.generated_parts import write_parts
from ..detectors import detector_class
from ..detectors.interface import Progress
from ..reporting.overview import write_overview
from ..reporting.overview_facts import (
    Overview,
    Step,
    difference,
    percent,
    score_text,
)
from ..workbench.artifacts import machine_name, write_json, write_jsonl
from ..workbench.config import LoadedConfig, load_config
from ..workbench.preflight import run_preflight
from ..workbench.runner import load_splits, train
from .demo_device import check, inspect, refuse_disagreement
from .export_run import export_run

DATASETS: Final = ("generated", "elpv")
DEVICE_FOLDER: Final = "device copy"  # a space in the name: such folders exist
N_STEPS: Final = 7

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What the demo shows; counts are per part."""

    dataset: str = "generated"
    model: str = "patchcore"
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    parts: tuple[str, ...] = ("bracket", "connector")
    n_train: int = 100  # the fewest that can promise 1 % false alarms, and one more
    n_test_normal: int = 50
    n_test_defect: int = 40
    size: tuple[int, int] = (256, 256)
    parity_images: int = 60  # per part at export; the device then scores all

    @property
    def false_alarm_rate(self) -> float:
        """The rate that the threshold is asked to promise."""
        # Some cells that experts called good look as odd as broken ones: a threshold
        # that lets one in twenty through finds more than one above them all.
        return 0.05 if self.dataset == "elpv" else 0.01

    @property
    def noun(self) -> tuple[str, str]:
        """What is inspected."""
        return ("cell", "cells") if self.dataset == "elpv" else ("part", "parts")


def run_demo(
    output: Path, plan: DemoPlan, *, force: bool, progress: Progress, say: Say
) -> Overview:
    """Do it all and write the demo folder.

    Args:
        say: told what happens, a line at a time.

    Raises:
        ConfigError: the output exists, or an unknown data set or detector.
        ParityError: the copy does not score like the trained model.
        ExportError: a step on the device failed.
    """
    output = output.absolute()
    if plan.dataset not in DATASETS:
        raise ConfigError(
            f'--dataset: found "{plan.dataset}", expected one of {", ".join(DATASETS)}'
        )
    detector_class(plan.model, "--model")
    refuse_replacing(output, force=force)
    with new_folder(output, force=force) as folder:
        with tempfile.TemporaryDirectory(prefix="pyimgano-demo-") as workspace:
            overview = _fill(folder, Path(workspace), plan, progress, say)
        _name_final_paths(folder, output)
    return overview


def _fill(
    folder: Path, workspace: Path, plan: DemoPlan, progress: Progress, say: Say
) -> Overview:
    steps = _Steps(say)
    with steps.step("Pictures") as details:
        details.append(_write_data(folder / "data", plan, progress, say))
        data = details[0]

    with steps.step("Check of the data") as details:
        config_path = folder / "config.json"
        write_json(config_path, _config(plan))
        loaded = load_config(config_path)
        splits = load_splits(loaded)
        details += [
            f"{split.category}: {len(split.train_normals())} good to learn from, "
            f"{len(split.test)} to test"
            for split in splits
        ]
        details.append(_preflight(loaded, progress))

    with steps.step(f"Training of {plan.model}") as details:
        run = train(loaded, folder / "run", force=False, progress=progress)
        details += [
            f"{name}: threshold {score_text(report['image_threshold'])} for about "
            f"{percent(plan.false_alarm_rate)} false alarms"
            for name, report in run.report["categories"].items()
        ]

    with steps.step("Export, compared with the trained model") as details:
        config = export_run(
            run,
            folder / "bundle",
            name="demo",
            version="1",
            created=None,
            goldens="synthetic",
            image_licence=elpv.LICENCE_NOTE if plan.dataset == "elpv" else None,
            parity_images=plan.parity_images,
            force=False,
            progress=progress,
        )
        details += [
            f"{name}: {parity.label_flips} of {parity.n_images} verdicts differ, "
            f"largest score difference {difference(parity.max_rel_score_diff)}"
            for name, parity in config.parity.categories.items()
        ]

    with steps.step("Copy, and check without torch") as details:
        shutil.copytree(folder / "bundle", folder / DEVICE_FOLDER)
        bundle = open_bundle(folder / DEVICE_FOLDER)
        goldens = check(bundle)
        details.append(goldens)

    with steps.step("Inspection by the copy, without torch") as details:
        results = [inspect(bundle, run, split, workspace) for split in splits]
        write_jsonl(folder / "rows.jsonl", [row for rows, _ in results for row in rows])
        for _, result in results:
            refuse_disagreement(result)
            agreement = result.agreement
            details.append(
                f"{result.name}: {agreement.label_flips} of {agreement.n_images} "
                "verdicts differ from training, largest score difference "
                + difference(agreement.max_rel_score_diff)
            )

    with steps.step("Overview") as details:
        overview = Overview(
            detector=plan.model,
            noun=plan.noun,
            data=data,
            notice=_notice(plan),
            machine=machine_name(),
            steps=tuple(steps.done),
            goldens=goldens,
            categories=tuple(result for _, result in results),
            rules=bundle.config.input,
            try_it=f'pyimgano-runtime infer --bundle "{DEVICE_FOLDER}" --category '
            f"{splits[0].category} --save-overlays overlays data/images/"
            f"{splits[0].category}/test",
        )
        write_overview(folder, overview)
        details.append("overview.html and overview.png")
    return overview


class _Steps:
    """Numbers and times the steps, and says so."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.done: list[Step] = []

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Give a list for what there is to say about the step at its end."""
        self._say(f"{len(self.done) + 1}/{N_STEPS}  {title}")
        details: list[str] = []
        start = time.perf_counter()
        yield details
        seconds = time.perf_counter() - start
        self.done.append(Step(title, "; ".join(details), seconds))
        for line in details:
            self._say(f"     {line}")
        self._say(f"     {seconds:.1f} s")


def _write_data(folder: Path, plan: DemoPlan, progress: Progress, say: Say) -> str:
    """Write pictures and manifest; give one sentence about them."""

    def drawn(done: int, total: int) -> None:
        progress("pictures", done, total)

    if plan.dataset == "elpv":
        say(f"     {elpv.LICENCE_NOTE}")
        elpv.write_elpv(folder, progress=drawn)
        return (
            "Real photographs: solar cells that glow under current, of the package "
            "elpv-dataset; experts judged each cell."
        )
    write_parts(
        folder,
        parts=plan.parts,
        n_train=plan.n_train,
        n_test_normal=plan.n_test_normal,
        n_test_defect=plan.n_test_defect,
        size=plan.size,
        seed=plan.seed,
        progress=drawn,
    )
    return (
        f"Drawn parts ({', '.join(plan.parts)}; seed {plan.seed}), so the place of "
        "each defect is known; some defects are obvious, some so faint that a person "
        "would miss them."
    )


def _config(plan: DemoPlan) -> dict[str, Any]:
    return {
        "schema_version": "1.0",
        "seed": plan.seed,
        "device": "cpu",  # the same numbers on every machine, GPU or not
        "dataset": {"manifest_path": "data/manifest.jsonl"},
        "model": _model(plan),
        "calibration": {"target_false_alarm_rate": plan.false_alarm_rate},
        "evaluation": {},
    }


def _model(plan: DemoPlan) -> dict[str, Any]:
    model = {"name": plan.model, "options": dict(plan.options)}
    if plan.model == "patchcore" and not plan.options:
        model["preset"] = "fast"  # a third of the time, and plain parts
    return model


def _preflight(loaded: LoadedConfig, progress: Progress) -> str:
    """Decode and compare every picture; give one sentence."""
    report = run_preflight(loaded, progress=progress)
    errors = [issue for issue in report.issues if issue.severity == "error"]
    raise_all([issue.message for issue in errors], DatasetError)
    content = report.summary["content"]
    n_warnings = report.summary["issues"]["warning"]
    n_pairs = sum(content["near_duplicate_pairs"].values())
    return (
        f"preflight: {content['decoded']} pictures decoded, 0 errors, {n_warnings} "
        f"warnings, {n_pairs} look-alike pairs between learning and testing"
    )


def _notice(plan: DemoPlan) -> str | None:
    note = elpv.LICENCE_NOTE
    return f"{note[0].upper()}{note[1:]}." if plan.dataset == "elpv" else None


def _name_final_paths(folder: Path, output: Path) -> None:
    """The run was made in a folder that is renamed now: let its config follow."""
    path = folder / "run" / "config.json"
    config = read_json(path)
    config["dataset"]["manifest_path"] = str(output / "data" / "manifest.jsonl")
    write_json(path, config)
