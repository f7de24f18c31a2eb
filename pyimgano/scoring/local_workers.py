"""Hands parts to processes of this machine; a lost process is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Final

from pyimgano_runtime.errors import OutputError

from .part_worker import Outcome, PartJob, PartWorker

# Of each worker, with no part done between: then it is not the parts.
MOST_LOST_IN_A_ROW: Final = 8


def score_locally(
    job: PartJob, parts: Iterable[int], *, workers: int, lost: Callable[[str], None]
) -> Generator[Outcome, None, None]:
    """Give the outcome of each part, as it comes.

    Args:
        workers: processes.
        lost: told in words of each process that ended over a part, which is then
            scored by another one.

    Raises:
        OutputError: processes end one after another and no part gets done.
    """
    waiting = deque(parts)
    team = [_Worker(job) for _ in range(min(workers, len(waiting)))]
    lost_in_a_row = 0
    try:
        for worker in team:
            worker.give(waiting.popleft())
        while busy := {end: w for w in team for end in w.ends if w.part is not None}:
            ready: list[Any] = wait(list(busy))
            for worker in dict.fromkeys(busy[end] for end in ready):
                number = worker.part
                assert number is not None
                outcome = worker.outcome()
                if outcome is not None:
                    lost_in_a_row = 0
                    yield outcome
                else:
                    lost_in_a_row += 1
                    lost(worker.told(number))
                    if lost_in_a_row >= MOST_LOST_IN_A_ROW * len(team):
                        raise OutputError(
                            f"{lost_in_a_row} workers ended one after another "
                            f"({worker.how}) and no part got done; what is finished "
                            "stays"
                        )
                    waiting.appendleft(number)
                    team[team.index(worker)] = worker = _Worker(job)
                if waiting:
                    worker.give(waiting.popleft())
    finally:
        for worker in team:
            worker.end()


class _Worker:
    """A process that scores one part at a time."""

    def __init__(self, job: PartJob) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: SpawnProcess = context.Process(
            target=_work, args=(theirs, job), daemon=True
        )
        self._process.start()
        theirs.close()
        self.part: int | None = None

    @property
    def ends(self) -> tuple[Connection, int]:
        """What becomes ready when it answers or ends."""
        return self._connection, self._process.sentinel

    @property
    def how(self) -> str:
        """In words, how it ended."""
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"exit code {code}"
        name = signal.Signals(-code).name
        hint = ", as the system sends it when memory runs out"
        return name + (hint if name == "SIGKILL" else "")

    def told(self, number: int) -> str:
        """Say that it was lost."""
        return (
            f"worker {self._process.pid} ended over part {number} ({self.how}); "
            "another one scores it again"
        )

    def give(self, number: int) -> None:
        """Let it score a part."""
        self.part = number
        with suppress(BrokenPipeError):  # it has ended: its wait tells
            self._connection.send(number)

    def outcome(self) -> Outcome | None:
        """Give what it says of its part; None where it ended over it."""
        try:
            found: Outcome = self._connection.recv()
        except (EOFError, ConnectionResetError):
            self._process.join()
            return None
        self.part = None
        return found

    def end(self) -> None:
        """End it, whatever it does: a part that is not complete is not there."""
        self._process.terminate()
        self._process.join()
        self._connection.close()


def _work(connection: Connection, job: PartJob) -> None:
    # Ctrl-C reaches the whole group: the command itself ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    worker = PartWorker(job)
    with suppress(EOFError):
        while True:
            connection.send(worker.score(connection.recv()))


def _end_with_parent() -> None:
    """A killed command cannot end its workers, and nobody would wait for them."""
    parent: Any = multiprocessing.parent_process()
    wait([parent.sentinel])
    os._exit(1)
