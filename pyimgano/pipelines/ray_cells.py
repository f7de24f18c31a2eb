"""Runs cells as tasks of a Ray cluster, and again those whose worker or node is lost.

driver:  ray_cells -> one task a cell -> outcomes
node:    run_on_node -> the same process as on one machine -> OUTPUT/cells/<id>
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.memory_limit import show_size

from ..detectors.interface import Progress
from ..ray_cluster import connected
from .cell_process import Failure, cell_failure
from .ray_task import MUST_BE_SHARED, NOT_SHARED, run_on_node
from .suite_folder import is_finished
from .suite_plan import CellOutcome, PlannedCell, RayOptions, Say, SuiteOptions

WORKER_LOST: Final = "WorkerLost"
RESTARTS: Final = 3  # of a cell whose worker or node was lost
_LOOK_EVERY_S: Final = 10.0
_NODE_COMES_BACK_S: Final = 120.0
_ENDS_S: Final = 10.0  # until a cancelled task's worker is gone
_FILE_SHOWS_S: Final = 60.0  # NFS may answer from memory for as long


@contextmanager
def ray_cells(options: RayOptions, *, threads: int, say: Say) -> Iterator[RayCells]:
    """Give what runs cells on a cluster, connected until the block ends.

    Raises:
        ConfigError: see `connected`; or no node has what one cell demands.
    """
    memory = float(options.memory or 0)
    demand = {"CPU": float(threads), "GPU": options.gpus, "memory": memory}
    demand = {name: amount for name, amount in demand.items() if amount}
    with connected(options.address) as ray:
        nodes = _nodes(ray)
        lacking = shortage(demand, nodes)
        if lacking is not None:
            raise ConfigError(
                f"--engine ray: {lacking}; demand less for a cell (--threads, "
                "--cell-gpus, --cell-memory), or name a cluster with such a node "
                "(--ray-address)"
            )
        count = "1 node" if len(nodes) == 1 else f"{len(nodes)} nodes"
        say(f"Ray: {count}; a cell demands {_told(demand)}")
        yield RayCells(ray, demand, say)


@dataclass(frozen=True, slots=True)
class _Attempt:
    cell: PlannedCell
    number: int  # from 1


class RayCells:
    """One Ray task for each cell, at most `jobs` of them at a time."""

    def __init__(self, ray: Any, demand: Mapping[str, float], say: Say) -> None:
        self._ray = ray
        self._demand = demand
        self._say = say
        # Ray's own retries are not told, and those for lack of memory have no end.
        self._task = ray.remote(run_on_node).options(
            num_cpus=demand["CPU"],
            num_gpus=demand.get("GPU", 0),
            memory=int(demand.get("memory", 0)),
            max_retries=0,
        )

    def run(
        self,
        cells: Sequence[PlannedCell],
        options: SuiteOptions,
        output: Path,
        progress: Progress,
    ) -> Generator[CellOutcome]:
        """Give each cell with its failure, None if it finished, as they end.

        Closing it cancels the cells that run or wait.
        """
        waiting = deque(_Attempt(cell, 1) for cell in cells)
        running: dict[Any, _Attempt] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (options.jobs or len(cells)):
                    attempt = waiting.popleft()
                    order = attempt.cell.order(options, output)
                    running[self._begin(order, attempt.number)] = attempt
                task = self._next(list(running))
                if task is None:
                    yield from self._given_up([*running.values(), *waiting])
                    return
                attempt = running.pop(task)
                failure = self._outcome(task, attempt, output)
                if self._begins_again(attempt, failure):
                    waiting.appendleft(replace(attempt, number=attempt.number + 1))
                else:
                    yield attempt.cell, failure
        finally:
            self._cancel(list(running))

    def _begin(self, order: dict[str, Any], number: int) -> Any:
        return self._task.remote(order, number, self._demand.get("GPU", 0))

    def _next(self, tasks: list[Any]) -> Any:
        """Give a task that ended; None if no node is left that can run one."""
        short_since: float | None = None
        while True:
            ended, _ = self._ray.wait(tasks, timeout=_LOOK_EVERY_S)
            if ended:
                return ended[0]
            now = time.monotonic()
            if shortage(self._demand, _nodes(self._ray)) is None:
                short_since = None
            elif short_since is None:
                short_since = now
            elif now - short_since > _NODE_COMES_BACK_S:
                return None

    def _given_up(self, attempts: Sequence[_Attempt]) -> Iterator[CellOutcome]:
        lacking = shortage(self._demand, _nodes(self._ray))
        error = f"no node is left for it: {lacking}"
        for attempt in attempts:
            yield attempt.cell, cell_failure(WORKER_LOST, error)

    def _outcome(self, task: Any, attempt: _Attempt, output: Path) -> Failure | None:
        exceptions = self._ray.exceptions
        try:
            failure: Failure | None = self._ray.get(task)
        except exceptions.RayTaskError as error:  # such as a node without pyimgano
            cause = error.cause
            return cell_failure(type(cause).__name__, str(cause), str(error))
        except exceptions.RayError as error:  # its process, its node, its memory
            first = (str(error).splitlines() or [type(error).__name__])[0]
            times = "once" if attempt.number == 1 else f"{attempt.number} times"
            text = f"its worker or node was lost ({times}): {first}"
            return cell_failure(WORKER_LOST, text, str(error))
        if failure is None and not _shows(output, attempt.cell):
            return cell_failure(
                NOT_SHARED,
                f"{output / 'cells' / attempt.cell.id}: finished on its node, but is "
                f"not here; {MUST_BE_SHARED}",
            )
        return failure

    def _begins_again(self, attempt: _Attempt, failure: Failure | None) -> bool:
        """Tell, and say, whether a cell was lost and has an attempt left."""
        if failure is None or failure["kind"] != WORKER_LOST:
            return False
        if attempt.number > RESTARTS:
            return False
        which = f"{attempt.number} of {RESTARTS}"
        self._say(f"{attempt.cell.id}: {failure['error']}; begins again, {which}")
        return True

    def _cancel(self, tasks: list[Any]) -> None:
        """End tasks and wait for their workers: a cell's process ends with them."""
        for task in tasks:
            self._ray.cancel(task, force=True)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=_ENDS_S)


def shortage(
    demand: Mapping[str, float], nodes: Sequence[Mapping[str, float]]
) -> str | None:
    """Say what no node has enough of for one cell; None if one has it all.

    Args:
        nodes: what each has in all, used or not, by the name of the resource.
    """
    if not nodes:
        return "the cluster has no node that is alive"
    if any(all(n.get(k, 0) >= demand[k] for k in demand) for n in nodes):
        return None
    most = {key: max(node.get(key, 0) for node in nodes) for key in demand}
    lacking = {key: amount for key, amount in demand.items() if most[key] < amount}
    if not lacking:
        return f"a cell demands {_told(demand)}, which no node has together"
    has = {key: most[key] for key in lacking}
    return f"a cell demands {_told(lacking)}, and the largest node has {_told(has)}"


def _nodes(ray: Any) -> list[Mapping[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _told(amounts: Mapping[str, float]) -> str:
    """Say amounts of resources: "4 CPUs, 0.5 GPUs, 8G of memory"."""
    words = []
    for name, amount in amounts.items():
        if name == "memory":
            words.append(f"{show_size(int(amount))} of memory")
        else:
            words.append(f"{amount:g} {name}" + ("" if amount == 1 else "s"))
    return ", ".join(words)


def _shows(output: Path, cell: PlannedCell) -> bool:
    """Wait until a finished cell is seen here."""
    ends = time.monotonic() + _FILE_SHOWS_S
    while not is_finished(output, cell):
        if time.monotonic() > ends:
            return False
        time.sleep(0.5)
    return True
