"""Whether bfloat16 autocast or torch.compile would shorten a training.

    python benchmarks/training_precision.py
    PYIMGANO_TEST_DATA=... python benchmarks/training_precision.py --models \
        supersimplenet --modes float32 bfloat16 --set elpv_mono --steps 0 --rounds 1

Detectors that train by gradient are fitted on generated parts, or on the normals of a
reference set, as they are, with the forward pass under bfloat16 autocast, and with the
trained module compiled (which needs a C++ compiler). All modes take turns. The time of
a step is that of the second half of the steps, so compiling is not in it; how long the
first half took is a column of its own. The AUROC says something with a whole training
only (--steps 0).
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pyimgano.datasets.generated_parts import draw_part
from pyimgano.datasets.manifest import read_manifest
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.metrics.image import auroc
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData

DETECTORS = ("stfpm", "reverse_distillation", "supersimplenet")
MODES = ("float32", "bfloat16", "compiled")
Labels: TypeAlias = npt.NDArray[np.int64]
SIDE = 256
BATCH = 8


class Pictures:
    """Pictures in memory, as a detector's TrainingData."""

    def __init__(self, batches: Iterable[torch.Tensor]) -> None:
        self.batches = list(batches)  # each (N, H, W, 3) uint8
        self.n_normals = sum(map(len, self.batches))

    def normals(self) -> Iterator[torch.Tensor]:
        """Give batches of pictures."""
        yield from self.batches

    def tuning_normals(self) -> Iterator[torch.Tensor]:
        """Give none: every step is taken."""
        return iter(())

    def defects(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Give none."""
        return iter(())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="*", default=DETECTORS, choices=DETECTORS)
    parser.add_argument("--modes", nargs="*", default=MODES, choices=MODES)
    parser.add_argument("--set", help="a reference set; default: generated parts")
    parser.add_argument("--steps", type=int, default=40, help="0: the detector's own")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    good, test, labels = generated() if options.set is None else real(options.set)
    head = f"| ms a step | against {options.modes[0]} | first steps s | AUROC |"
    print(f"| detector | training {head}")
    print("|---|---|---|---|---|---|")
    for name in options.models:
        steps: dict[str, list[float]] = {mode: [] for mode in options.modes}
        begin: dict[str, list[float]] = {mode: [] for mode in options.modes}
        found: dict[str, float] = {}
        for _ in range(options.rounds):
            for mode in options.modes:
                times, detector = fitted(name, mode, good, options.steps)
                late = np.diff(times[len(times) // 2 :])
                steps[mode].append(float(np.median(late)) * 1000)
                begin[mode].append(times[len(times) // 2] - times[0])
                found[mode] = image_auroc(detector, test, labels)
        for mode in options.modes:
            first = steps[options.modes[0]]
            ratios = [a / b for a, b in zip(steps[mode], first, strict=True)]
            print(
                f"| {name} | {mode} | {statistics.median(steps[mode]):.0f} | "
                f"{min(ratios):.2f} to {max(ratios):.2f} x | "
                f"{statistics.median(begin[mode]):.1f} | {found[mode]:.3f} |",
                flush=True,
            )


def generated() -> tuple[Pictures, Pictures, Labels]:
    """Give good parts, and a test of good ones and scratched ones."""
    test = [*drawn(24, 2), *drawn(24, 3, "scratch")]
    return Pictures(drawn(32, 1)), Pictures(test), np.array([0] * 24 + [1] * 24)


def real(name: str) -> tuple[Pictures, Pictures, Labels]:
    """Give the train normals and the test rows of a reference set."""
    rows = read_manifest(Path(os.environ["PYIMGANO_TEST_DATA"], name, "manifest.jsonl"))
    normals = [row for row in rows if row.split == "train" and row.label == 0]
    test = [row for row in rows if row.split == "test"]
    good, seen = (
        Pictures(RowTrainingData(some, input_rules()).normals())
        for some in (normals, test)
    )
    return good, seen, np.array([row.label for row in test])


def drawn(count: int, seed: int, defect: str | None = None) -> Sequence[torch.Tensor]:
    """Give batches of pictures of a part, each (N, SIDE, SIDE, 3) uint8."""
    severity = None if defect is None else 0.5
    images = [
        draw_part(
            "bracket",
            np.random.default_rng([seed, index]),
            size=(SIDE, SIDE),
            defect=defect,
            severity=severity,
        ).image_u8
        for index in range(count)
    ]
    return list(torch.split(torch.from_numpy(np.stack(images)), BATCH))


def fitted(name: str, mode: str, good: Pictures, steps: int) -> tuple[list[float], Any]:
    """Give the moments at which steps begin, and the fitted detector."""
    times: list[float] = []
    detector: Any = create_detector(name, {"steps": steps} if steps else {})
    with tempfile.TemporaryDirectory(prefix="precision-") as scratch:
        context = FitContext(
            generator=torch.Generator().manual_seed(0),
            device=torch.device("cpu"),
            workspace=Path(scratch),
            progress=lambda step, done, total: None,
        )
        with trained_in(name, mode, times):
            detector.fit(good, context=context)
    return times, detector.eval()


@contextmanager
def trained_in(name: str, mode: str, times: list[float]) -> Iterator[None]:
    """Let a detector's training loop run in a mode, and note when its steps begin."""
    home: Any = importlib.import_module(f"pyimgano.detectors.{name}")
    real = home.train_by_gradient

    def loop(module: Any, optimizer: Any, step: Callable[[], Any], **more: Any) -> Any:
        def timed() -> Any:
            times.append(time.perf_counter())
            autocast = torch.autocast("cpu", dtype=torch.bfloat16)
            with autocast if mode == "bfloat16" else nullcontext():
                return step()

        if mode == "compiled":
            for part in module.children():
                part.compile()
            module.compile()
        return real(module, optimizer, timed, **more)

    home.train_by_gradient = loop
    try:
        yield
    finally:
        home.train_by_gradient = real


@torch.inference_mode()
def image_auroc(detector: Any, test: Pictures, labels: Labels) -> float:
    """Give the image AUROC of the pictures."""
    scores = torch.cat([detector(batch)[0] for batch in test.normals()])
    return float(auroc(scores.float().numpy().astype(np.float64), labels))


if __name__ == "__main__":
    main()
