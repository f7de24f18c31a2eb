"""What a GPU fits and scores agrees with the CPU; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from detector_trials import ImageList, context_of, create, draw, score
from pyimgano.detectors import DETECTORS
from pyimgano.workbench.runner import choose_device

# One model, two devices: kernels sum in another order. Not measured on a GPU by us;
# the same reason gives 1e-5 between two CPU engines.
SAME_MODEL_REL = 1e-3
# Two models: steps of training and picks of a coreset carry such differences on, so
# only the size of the scores is compared. Not measured on a GPU by us.
OTHER_MODEL_REL = 0.2

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="torch sees no GPU"
)
every_detector = pytest.mark.parametrize("name", sorted(DETECTORS))
PICTURES = [*draw(4, seed=7), *draw(4, seed=7, defect="stain")]


@pytest.fixture(autouse=True)
def _as_in_a_run() -> Iterator[None]:
    """Set torch as a training on a GPU does."""
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
    assert choose_device("cuda").type == "cuda"
    yield
    torch.backends.cuda.matmul.allow_tf32 = before[0]
    torch.backends.cudnn.allow_tf32 = before[1]


@every_detector
def test_what_a_gpu_fitted_scores_alike_on_both_devices(
    name: str, tmp_path: Path
) -> None:
    context = context_of(tmp_path, device="cuda")
    data = ImageList(draw(10, seed=1), tuning=draw(3, seed=2))
    detector = create(name).to(context.device).fit(data, context=context).eval()
    there, maps = score(detector, PICTURES)
    here, maps_here = score(detector.cpu(), PICTURES)
    np.testing.assert_allclose(there, here, rtol=SAME_MODEL_REL)
    if maps is not None and maps_here is not None:
        reach = float(maps_here.max() - maps_here.min())
        np.testing.assert_allclose(
            maps, maps_here, rtol=0.0, atol=SAME_MODEL_REL * reach
        )


@every_detector
def test_a_fit_on_a_gpu_gives_scores_like_one_on_the_cpu(
    name: str, tmp_path: Path
) -> None:
    scores = {}
    for device in ("cpu", "cuda"):
        workspace = tmp_path / device
        workspace.mkdir()
        context = context_of(workspace, device=device)
        data = ImageList(draw(10, seed=1), tuning=draw(3, seed=2))
        detector = create(name).to(context.device).fit(data, context=context).eval()
        scores[device], _ = score(detector, PICTURES)
    np.testing.assert_allclose(scores["cuda"], scores["cpu"], rtol=OTHER_MODEL_REL)
