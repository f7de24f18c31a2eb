"""The loop of every detector that trains by gradient.

Seeded (each random draw comes from the context's generator), resumable (a killed run
that goes on gives the same weights as one that was never stopped), and stopped early
on held-out normals where there are some.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from pyimgano_runtime.atomic import write_bytes

from .interface import FitContext


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopPlan:
    """How long a training goes on."""

    steps: int  # at most; >= 1
    look_every: int = 50  # steps between two looks at the tuning loss
    patience: int = 8  # looks without a lower tuning loss before it stops
    save_every: int = 50  # steps between two states that a killed run goes on from


@dataclass(frozen=True, slots=True)
class LoopEnd:
    """How a training ended."""

    steps: int  # taken
    best_step: int  # whose weights are kept: the last one without tuning normals
    tuning_loss: float | None  # of the weights that are kept


SMOOTHING: Final = 0.95  # of the loss that is shown


def train_by_gradient(
    module: nn.Module,
    optimizer: Optimizer,
    step: Callable[[], Tensor],
    *,
    plan: LoopPlan,
    context: FitContext,
    name: str,
    scheduler: LRScheduler | None = None,
    tuning_loss: Callable[[], float] | None = None,
) -> LoopEnd:
    """Train `module` in place and leave it with its best weights.

    Args:
        module: what is trained, without the frozen parts: its state is what a stopped
            run is resumed from.
        step: gives the loss of the next batch; draws from `context.generator` only.
        name: of this training within the detector, for files and the progress.
        tuning_loss: the loss on held-out normals; None: all steps are taken and the
            last weights are kept.
    """
    state = _State(module, optimizer, scheduler, context, name)
    if context.resume:
        state.restore()
    while state.step < plan.steps and state.looks_in_vain < plan.patience:
        loss = step()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        state.step += 1
        state.show(float(loss.detach()), plan.steps)
        last = state.step == plan.steps
        if tuning_loss is not None and (state.step % plan.look_every == 0 or last):
            with torch.no_grad():
                state.look(tuning_loss())
        if state.step % plan.save_every == 0:
            state.save()
    context.progress(name, plan.steps, plan.steps)
    state.save()  # a fit of several trainings goes on behind this one
    if tuning_loss is None:
        return LoopEnd(state.step, state.step, None)
    if state.best is not None:
        module.load_state_dict(state.best)
    return LoopEnd(state.step, state.best_step, state.best_loss)


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw fresh weights, so that a second fit starts like the first.

    He et al. 2015 (uniform, fan-in) for convolutions and linear layers, zero biases,
    norms at 1 and 0 with forgotten statistics. Drawn on the CPU: every device agrees.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fresh = torch.empty(layer.weight.shape)
            nn.init.kaiming_uniform_(fresh, nonlinearity="relu", generator=generator)
            with torch.no_grad():
                layer.weight.copy_(fresh)
                if layer.bias is not None:
                    layer.bias.zero_()
        elif isinstance(
            layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm
        ):
            layer.reset_parameters()


def draw_batch(n_images: int, size: int, generator: torch.Generator) -> Tensor:
    """Give the positions (size,) of the next batch, drawn with replacement."""
    return torch.randint(n_images, (size,), generator=generator)


class _State:
    """Everything that the next step depends on."""

    def __init__(
        self,
        module: nn.Module,
        optimizer: Optimizer,
        scheduler: LRScheduler | None,
        context: FitContext,
        name: str,
    ) -> None:
        self.module, self.optimizer, self.scheduler = module, optimizer, scheduler
        self.context, self.name = context, name
        self.path = context.workspace / f"{name.replace(' ', '_')}.state"
        self.step = self.best_step = self.looks_in_vain = 0
        self.best: dict[str, Tensor] | None = None
        self.best_loss = math.inf
        self.shown = math.nan  # smoothed loss

    def show(self, loss: float, steps: int) -> None:
        known = not math.isnan(self.shown)
        self.shown = SMOOTHING * self.shown + (1 - SMOOTHING) * loss if known else loss
        self.context.progress(f"{self.name}, loss {self.shown:.4g}", self.step, steps)

    def look(self, loss: float) -> None:
        if loss < self.best_loss:
            self.best_loss, self.best_step, self.looks_in_vain = loss, self.step, 0
            self.best = {
                key: value.detach().clone()
                for key, value in self.module.state_dict().items()
            }
        else:
            self.looks_in_vain += 1

    def save(self) -> None:
        scheduler = self.scheduler
        everything: dict[str, Any] = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "generator": self.context.generator.get_state(),
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "best_loss": self.best_loss,
            "looks_in_vain": self.looks_in_vain,
            "shown": self.shown,
        }
        buffer = io.BytesIO()
        torch.save(everything, buffer)
        write_bytes(self.path, buffer.getvalue())

    def restore(self) -> None:
        if not self.path.is_file():
            return
        found = torch.load(
            self.path, weights_only=True, map_location=self.context.device
        )
        self.module.load_state_dict(found["module"])
        self.optimizer.load_state_dict(found["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(found["scheduler"])
        self.context.generator.set_state(found["generator"].cpu())
        self.step, self.best = found["step"], found["best"]
        self.best_step, self.best_loss = found["best_step"], found["best_loss"]
        self.looks_in_vain, self.shown = found["looks_in_vain"], found["shown"]
