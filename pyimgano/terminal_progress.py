"""Progress on stderr: bars in a terminal, else a line now and then.

In a terminal: rate and remaining time of every step. In a log: one plain line for each
half minute, so that a long training shows life; short work leaves no line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

SECONDS_BETWEEN_LINES: Final = 30.0


class _Rate(ProgressColumn):
    """Steps per second."""

    def render(self, task: Task) -> Text:
        """Give the rate, or nothing before the first step."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="dim")


@dataclass(slots=True)
class _Step:
    """How far a step of a log is, and where and when it began."""

    start: float
    done_at_start: int
    done: int


class TerminalProgress:
    """A `Progress` callable: progress(step, done, total)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        console = Console(stderr=True)
        self._is_terminal = console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self._is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._clock = clock
        self._steps: dict[str, _Step] = {}
        self._last_line = clock()

    def __call__(self, step: str, done: int, total: int) -> None:
        # "training, loss 0.12" is the step "training" with what is known about it now.
        name = step.partition(", loss ")[0]
        if not self._is_terminal:
            self._log(name, step, done, total)
            return
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = self._bars.add_task(step, total=total)
        self._bars.update(task, description=step, completed=done, total=total)

    def _log(self, name: str, step: str, done: int, total: int) -> None:
        now = self._clock()
        begun = self._steps.get(name)
        if begun is None or done < begun.done:  # the same work once more
            # A resumed training begins in the middle: that took no time now.
            begun = self._steps[name] = _Step(now, done, done)
        begun.done = done
        if now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = f"{step}: {done} of {total}"
        progressed = done - begun.done_at_start
        if progressed > 0 and done < total:
            left = (now - begun.start) / progressed * (total - done)
            line += f", about {_duration(left)} left"
        print(line, file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
