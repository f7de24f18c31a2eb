"""The training loop: seeded, resumable, stopped on held-out normals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pyimgano.detectors.interface import FitContext
from pyimgano.detectors.training_loop import (
    LoopEnd,
    LoopPlan,
    draw_batch,
    initialize,
    train_by_gradient,
)

POINTS = torch.linspace(-1, 1, 40).unsqueeze(1)  # (40, 1)


class Killed(Exception):
    """Stands for the end of the process."""


def context_of(
    folder: Path, seed: int = 0, *, resume: bool = False
) -> tuple[FitContext, list[tuple[str, int, int]]]:
    folder.mkdir(exist_ok=True)
    seen: list[tuple[str, int, int]] = []
    context = FitContext(
        generator=torch.Generator().manual_seed(seed),
        device=torch.device("cpu"),
        workspace=folder,
        progress=lambda *said: seen.append(said),
        resume=resume,
    )
    return context, seen


def train(
    context: FitContext,
    *,
    steps: int = 60,
    killed_at: int | None = None,
    tuning: list[float] | None = None,
    patience: int = 8,
) -> tuple[nn.Module, LoopEnd]:
    """Fit a line; `tuning` gives the losses that the looks find, in order."""
    module = nn.Linear(1, 1)
    initialize(module, context.generator)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    taken = 0

    def step() -> Tensor:
        nonlocal taken
        if taken == killed_at:
            raise Killed
        taken += 1
        x = POINTS[draw_batch(len(POINTS), 8, context.generator)]
        noise = torch.randn(x.shape, generator=context.generator)
        return (module(x) - 3 * x - 1 + 0.1 * noise).square().mean()

    looks = iter(tuning or [])
    end = train_by_gradient(
        module,
        optimizer,
        step,
        plan=LoopPlan(steps=steps, look_every=10, save_every=10, patience=patience),
        context=context,
        name="line",
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 20, 0.5),
        tuning_loss=None if tuning is None else lambda: next(looks),
    )
    return module, end


def weights(module: nn.Module) -> list[float]:
    return [float(p.detach()) for p in module.parameters()]


def test_it_takes_all_steps_without_tuning_normals(tmp_path: Path) -> None:
    _, end = train(context_of(tmp_path)[0])
    assert end == LoopEnd(steps=60, best_step=60, tuning_loss=None)


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    one, _ = train(context_of(tmp_path, 0)[0])
    other, _ = train(context_of(tmp_path, 1)[0])
    assert weights(one) != weights(other)


@pytest.mark.parametrize("killed_at", [1, 10, 25, 59])
def test_a_killed_training_that_goes_on_gives_the_same_weights(
    tmp_path: Path, killed_at: int
) -> None:
    whole, _ = train(context_of(tmp_path / "whole")[0])
    with pytest.raises(Killed):
        train(context_of(tmp_path / "cut")[0], killed_at=killed_at)
    context, seen = context_of(tmp_path / "cut", resume=True)
    resumed, _ = train(context)
    assert weights(resumed) == weights(whole)
    assert seen[0][1] == killed_at // 10 * 10 + 1  # it did not start anew


def test_without_resume_a_state_that_lies_there_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(context_of(tmp_path)[0], killed_at=25)
    context, seen = context_of(tmp_path)
    train(context)
    assert seen[0][1] == 1


def test_it_stops_when_the_looks_find_nothing_better(tmp_path: Path) -> None:
    losses = [5.0, 4.0, 4.5, 4.2, 9.0, 9.0]
    _, end = train(context_of(tmp_path)[0], tuning=losses, patience=2)
    assert end == LoopEnd(steps=40, best_step=20, tuning_loss=4.0)


def test_the_weights_of_the_best_look_are_kept(tmp_path: Path) -> None:
    until_20, _ = train(context_of(tmp_path / "short")[0], steps=20)
    stopped, _ = train(
        context_of(tmp_path / "long")[0], tuning=[5.0, 4.0, 6.0, 6.0], patience=2
    )
    assert weights(stopped) == weights(until_20)


def test_a_resumed_training_remembers_its_best_look(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(context_of(tmp_path)[0], killed_at=35, tuning=[5.0, 4.0, 6.0])
    _, end = train(
        context_of(tmp_path, resume=True)[0], tuning=[7.0, 7.0, 7.0], patience=3
    )
    assert end == LoopEnd(steps=50, best_step=20, tuning_loss=4.0)


def test_the_progress_tells_step_and_loss(tmp_path: Path) -> None:
    context, seen = context_of(tmp_path)
    train(context, steps=5)
    assert seen[0][0].startswith("line, loss ")
    assert [done for _, done, _ in seen] == [1, 2, 3, 4, 5, 5]
    assert {total for _, _, total in seen} == {5}


def test_initializing_draws_from_the_generator_alone() -> None:
    layers = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    for layer in layers:
        layer[1].running_mean.fill_(7.0)
        torch.rand(1)
        initialize(layer, torch.Generator().manual_seed(3))
    first, second = (layer.state_dict() for layer in layers)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert float(first["1.running_mean"].abs().max()) == 0.0
