"""Hands parts to a Ray cluster: a pipeline of Ray Data with a pool of actors.

    numbers of parts --from_items--> map_batches(actors) --iter_rows--> outcomes

Each actor holds one predictor and reads, decodes, scores and writes a whole part, so
that neither pixels nor rows travel between machines; its threads read and decode ahead
of the model. Ray starts lost actors again, on another node if need be, and tries their
parts again: a part is written whole or not at all, so that changes nothing.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Generator, Sequence
from typing import Any, Final

from pyimgano_runtime.errors import ConfigError, OutputError

from ..ray_cluster import connected
from .part_worker import Outcome, PartJob, PartWorker

# `ray up` returns when the head is there; nodes join one after another.
WAIT_S: Final = 60.0


class PartActor:
    """What Ray starts on its nodes: see `PartWorker`."""

    def __init__(self, job: PartJob) -> None:
        logging.getLogger("ray").setLevel(logging.ERROR)
        self._worker = PartWorker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Score the parts of a batch; give the outcome of each as JSON."""
        found = [self._worker.score(int(number)) for number in batch["part"]]
        return {"outcome": [json.dumps(outcome) for outcome in found]}


def score_on_ray(
    job: PartJob,
    parts: Sequence[int],
    *,
    address: str | None,
    workers: int | None,
    threads: int,
) -> Generator[Outcome, None, None]:
    """Give the outcome of each part, as it comes.

    Args:
        address: see `ray_cluster.connected`.
        workers: actors; None: as many as the cluster has room for.
        threads: cores that each actor asks for.

    Raises:
        ConfigError: no Ray, no cluster, or one without room for an actor.
        OutputError: the cluster cannot go on.
    """
    with connected(address) as ray:
        room = _room_soon(ray, threads, wait=address is not None)
        if not room:
            raise ConfigError(
                f"--threads {threads}: no node that has joined the cluster has so many "
                "cores; see `ray status`: wait for its nodes, or ask for fewer"
            )
        wanted = min(workers or room, len(parts))
        yield from _outcomes(ray, job, parts, min(wanted, room), threads)


def _room_soon(ray: Any, threads: int, *, wait: bool) -> int:
    """Give how many actors fit; where there is no room yet, as soon as there is."""
    end = time.monotonic() + (WAIT_S if wait else 0.0)
    while not (room := room_for(ray.nodes(), threads)) and time.monotonic() < end:
        time.sleep(1.0)
    return room


def room_for(nodes: Sequence[dict[str, Any]], threads: int) -> int:
    """Give how many actors of so many cores fit on the nodes that are alive."""
    return sum(
        int(node["Resources"].get("CPU", 0) // threads)
        for node in nodes
        if node["Alive"]
    )


def _outcomes(
    ray: Any, job: PartJob, parts: Sequence[int], workers: int, threads: int
) -> Generator[Outcome, None, None]:
    import ray.data
    import ray.exceptions

    settings = ray.data.DataContext.get_current()
    settings.enable_progress_bars = False  # the command shows its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # Items are blocks from the start: no task of Ray's own waits for a core that the
    # actors hold.
    items = [{"part": number} for number in parts]
    data = ray.data.from_items(items, override_num_blocks=len(items))
    outcomes = data.map_batches(
        PartActor,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=threads,
    )
    try:
        for row in outcomes.iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as cause:
        last = (str(cause).strip().splitlines() or ["no reason given"])[-1]
        raise OutputError(
            f"the cluster could not go on ({last}); "
            "what is finished stays: look at the nodes (the same packages on each?), "
            "then start the same command again"
        ) from cause
