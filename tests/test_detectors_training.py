"""Detectors that train by gradient: resumed to the bit, stopped on held-out normals."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from detector_trials import ImageList, context_of, create, draw, same_state
from pyimgano.detectors import DETECTORS, detector_class

TRAINED = [name for name in sorted(DETECTORS) if detector_class(name).trains]
STEPS = 54
KILLED_AT = 52  # a state was kept at step 50, and the tuning normals were looked at


@dataclass(frozen=True)
class Fit:
    """A fit that was not stopped, and what a kill in its middle would have left."""

    detector: Any
    workspace: Path
    left_by_a_kill: Path


def small(name: str, **options: Any) -> Any:
    return create(name, batch_size=2, **{"steps": STEPS} | options)


def data() -> ImageList:
    return ImageList(draw(6, seed=1), tuning=draw(3, seed=2))


@pytest.fixture(scope="module", params=TRAINED)
def whole(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Fit:
    """Give each detector fitted with tuning normals.

    The files that lie there in the midst of a step are what a kill then leaves.
    """
    workspace = tmp_path_factory.mktemp("whole")
    left = tmp_path_factory.mktemp("killed") / "workspace"

    def keep(step: str, done: int, total: int) -> None:
        if "loss" in step and (done, total) == (KILLED_AT, STEPS):
            shutil.copytree(workspace, left)

    detector = small(request.param)
    torch.manual_seed(1)  # no random draw of the process may count
    detector.fit(data(), context=context_of(workspace, progress=keep))
    return Fit(detector, workspace, left)


def test_a_training_that_goes_on_after_a_kill_gives_the_same_state_to_the_bit(
    whole: Fit, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(whole.left_by_a_kill, workspace)
    taken: list[int] = []

    def note(step: str, done: int, total: int) -> None:
        if "loss" in step and total == STEPS:
            taken.append(done)

    resumed = small(whole.detector.name)
    torch.manual_seed(2)
    resumed.fit(data(), context=context_of(workspace, progress=note, resume=True))
    assert taken == [51, 52, 53, 54]  # it did not start anew
    assert same_state(resumed, whole.detector)


def test_the_weights_with_the_lowest_loss_on_tuning_normals_are_kept(
    whole: Fit,
) -> None:
    state = last_state(whole.workspace)
    assert state["step"] == STEPS
    assert state["best_step"] in (50, STEPS)
    assert 0.0 < state["best_loss"] < float("inf")
    kept = whole.detector.state_dict()
    for key, tensor in state["best"].items():
        assert any(
            torch.equal(value, tensor)
            for mine, value in kept.items()
            if mine.endswith(f".{key}")
        ), key


def last_state(workspace: Path) -> dict[str, Any]:
    """Give the last state that a fit kept: of the training that has tuning normals."""
    path = max(workspace.glob("*.state"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found
