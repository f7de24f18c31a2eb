"""SuperSimpleNet: real defects, and what the rounding of a logit does to a score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyimgano.datasets.generated_parts import draw_part
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.detectors.layers import PixelInput
from pyimgano.detectors.supersimplenet import SuperSimpleNet, _surprise, mark_cells
from pyimgano.metrics import auroc


@pytest.mark.parametrize("logit", [-12.0, -6.0, 0.0, 6.0])
def test_the_rounding_of_a_logit_stays_well_below_the_tolerance(logit: float) -> None:
    rounding = 1.2e-5  # measured between torch and onnxruntime
    exact = _surprise(torch.tensor([logit], dtype=torch.float64))
    rounded = _surprise(torch.tensor([logit + rounding], dtype=torch.float64))
    assert float((rounded / exact - 1).abs()) < 5e-6


def test_a_surer_logit_is_a_higher_surprise() -> None:
    rising = _surprise(torch.linspace(-20, 20, 50))
    assert (rising > 0).all()
    assert (rising.diff() > 0).all()


class Parts:
    """Generated parts, and some of them with a defect to learn from."""

    def __init__(
        self,
        *,
        defects: Sequence[tuple[Tensor, Tensor | None]] = (),
        n_normals: int = 8,
    ) -> None:
        self.n_normals = n_normals
        self.given = list(defects)

    def normals(self) -> Iterator[Tensor]:
        """See `TrainingData.normals`."""
        yield torch.stack([part(index)[0] for index in range(self.n_normals)])

    def tuning_normals(self) -> Iterator[Tensor]:
        """See `TrainingData.tuning_normals`: none."""
        return iter(())

    def defects(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """See `TrainingData.defects`."""
        return iter(self.given)


def part(index: int, defect: str | None = None) -> tuple[Tensor, Tensor]:
    """Give a wide picture (48, 96, 3) and the mask of its defect (48, 96)."""
    drawn = draw_part(
        "bracket",
        np.random.default_rng([7, index]),
        size=(48, 96),
        defect=defect,
        severity=None if defect is None else 1.0,
    )
    return torch.from_numpy(drawn.image_u8), torch.from_numpy(drawn.mask)


def fit(data: Parts, workspace: Path, **options: Any) -> SuperSimpleNet:
    detector = create_detector(
        "supersimplenet", {"image_size": [64, 64], "hidden": 32} | options
    )
    context = FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=workspace,
        progress=lambda step, done, total: None,
    )
    fitted: SuperSimpleNet = detector.fit(data, context=context)
    return fitted


@pytest.mark.parametrize(
    ("geometry", "top", "expected"),
    [
        ("letterbox", 8, (slice(3, 4), slice(1, 3))),
        ("stretch", 8, (slice(2, 4), slice(1, 3))),
        # The letterbox repeats the border, and with it a defect that touches it.
        ("letterbox", 0, (slice(0, 3), slice(1, 3))),
    ],
)
def test_a_wide_picture_marks_exactly_the_cells_of_its_defect(
    geometry: str, top: int, expected: tuple[slice, slice]
) -> None:
    mask = torch.zeros(32, 64, dtype=torch.bool)
    mask[top : top + 8, 8:24] = True  # cells of 8 x 8 pixels on a canvas of 64 x 64
    pixels = PixelInput((64, 64), geometry=geometry)
    marked = mark_cells(mask, pixels, (8, 8))
    wanted = torch.zeros(1, 8, 8, dtype=torch.bool)
    wanted[0][expected] = True
    assert torch.equal(marked, wanted)


def test_a_defect_far_below_a_cell_still_marks_one() -> None:
    mask = torch.zeros(1000, 1000, dtype=torch.bool)
    mask[130:133, 510:513] = True
    marked = mark_cells(mask, PixelInput((64, 64)), (8, 8))
    assert torch.nonzero(marked).tolist() == [[0, 1, 4]]


@pytest.mark.parametrize("geometry", ["stretch", "letterbox"])
@pytest.mark.parametrize("with_mask", [True, False])
def test_real_defects_take_part(geometry: str, with_mask: bool, tmp_path: Path) -> None:
    options = {"geometry": geometry, "steps": 4}
    image, mask = part(100, "stain")
    defects = [(image, mask if with_mask else None)]
    learned = fit(Parts(defects=defects), tmp_path, **options).state_dict()
    alone = fit(Parts(), tmp_path, **options).state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in learned.values())
    changed = {key for key in alone if not torch.equal(learned[key], alone[key])}
    assert {"heads.judge.weight", "voice"} <= changed


def stained(first: int, count: int) -> list[tuple[Tensor, Tensor]]:
    return [part(first + index, "stain") for index in range(count)]


@torch.inference_mode()
def auroc_of_stains(detector: SuperSimpleNet) -> float:
    good = [part(1000 + index)[0] for index in range(12)]
    bad = [image for image, _ in stained(2000, 12)]
    scores, _ = detector(torch.stack([*good, *bad]))
    return auroc(scores.numpy(), np.array([0] * 12 + [1] * 12))


def test_real_defects_help_to_find_others_of_their_kind(tmp_path: Path) -> None:
    options = {"steps": 60, "learning_rate": 3e-3}
    known = stained(100, 30)

    def auroc_with(defects: Sequence[tuple[Tensor, Tensor | None]]) -> float:
        data = Parts(n_normals=30, defects=defects)
        return auroc_of_stains(fit(data, tmp_path, **options))

    alone = auroc_with([])  # 0.889
    assert auroc_with(known) > alone + 0.01  # 0.917
    assert auroc_with([(image, None) for image, _ in known]) > alone + 0.01  # 0.917
