"""Small detectors on drawn pictures: what the tests of every detector share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conftest import SMALL_OPTIONS
from pyimgano.datasets.generated_parts import draw_part
from pyimgano.datasets.images import batches_of_one_size
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext, Progress


class ImageList:
    """Pictures in memory as a detector's TrainingData."""

    def __init__(
        self, images: Sequence[np.ndarray], tuning: Sequence[np.ndarray] = ()
    ) -> None:
        self.images, self.tuning = list(images), list(tuning)

    @property
    def n_normals(self) -> int:
        return len(self.images)

    def normals(self) -> Iterator[torch.Tensor]:
        for batch in batches_of_one_size(iter(self.images), batch_size=5):
            yield torch.from_numpy(batch)

    def tuning_normals(self) -> Iterator[torch.Tensor]:
        for batch in batches_of_one_size(iter(self.tuning), batch_size=5):
            yield torch.from_numpy(batch)

    def defects(self) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        return iter(())


def draw(count: int, seed: int, defect: str | None = None) -> list[np.ndarray]:
    """Give pictures of a part, 64 x 64 pixels."""
    return [
        draw_part(
            "bracket",
            np.random.default_rng([seed, index]),
            size=(64, 64),
            defect=defect,
            severity=None if defect is None else 1.0,
        ).image_u8
        for index in range(count)
    ]


def noise(size: tuple[int, int], count: int = 1, seed: int = 0) -> list[np.ndarray]:
    """Give pictures of random pixels."""
    random = np.random.default_rng([seed, *size])
    return [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def create(name: str, **options: Any) -> Any:
    """Give a small unfitted detector."""
    return create_detector(name, SMALL_OPTIONS.get(name, {}) | options)


def silent(step: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def context_of(
    workspace: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
    memory_budget: int = 2**30,
    resume: bool = False,
) -> FitContext:
    """Give what a fit may use besides the pictures."""
    return FitContext(
        generator=torch.Generator().manual_seed(seed),
        device=torch.device(device),
        workspace=workspace,
        progress=progress,
        memory_budget=memory_budget,
        resume=resume,
    )


@torch.inference_mode()
def score(
    detector: Any, images: Sequence[np.ndarray]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Give scores and maps of pictures of one size, as tensors on the CPU."""
    device = next(iter(detector.state_dict().values())).device
    scores, maps = detector(torch.from_numpy(np.stack(images)).to(device))
    return scores.cpu(), None if maps is None else maps.cpu()


def same_state(first: Any, second: Any) -> bool:
    """Tell whether two detectors hold the same parameters and buffers, to the bit."""
    mine, theirs = first.state_dict(), second.state_dict()
    return mine.keys() == theirs.keys() and all(
        torch.equal(mine[key], theirs[key]) for key in mine
    )
