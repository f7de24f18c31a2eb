"""Work on many items by threads, results in order, few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

A = TypeVar("A")
T = TypeVar("T")

AHEAD_PER_THREAD: Final = 4  # results that may wait for their turn


def in_order(
    work: Callable[[int], T], n: int, *, threads: int, ahead: int | None = None
) -> Generator[T, None, None]:
    """Give the results of work(0), ..., work(n - 1) in order; see `each_in_order`."""
    return each_in_order(work, range(n), threads=threads, ahead=ahead)


def each_in_order(
    work: Callable[[A], T],
    items: Iterable[A | None],
    *,
    threads: int,
    ahead: int | None = None,
) -> Generator[T, None, None]:
    """Give the results of the work on each item in order.

    Closing it early, or an error in the caller's loop, waits for the work at hand and
    begins no more.

    Args:
        items: may be endless; asked for one by one, by the caller's own thread. None
            says that there is none at present: all that wait are given before the next
            one is asked for.
        ahead: how many items may be at work or done and not yet taken: it bounds the
            memory of results. Default: a few a thread.
    """
    most = max(threads, threads * AHEAD_PER_THREAD if ahead is None else ahead)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                if item is not None:
                    waiting.append(pool.submit(work, item))
                while len(waiting) >= (1 if item is None else most):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
