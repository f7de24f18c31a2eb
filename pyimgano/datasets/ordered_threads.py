"""Work on many items by threads, results in order, few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

T = TypeVar("T")

AHEAD_PER_THREAD: Final = 4  # results that may wait for their turn


def in_order(work: Callable[[int], T], n: int, *, threads: int) -> Iterator[T]:
    """Give the results of work(0), ..., work(n - 1) in order."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for index in range(n):
                waiting.append(pool.submit(work, index))
                if len(waiting) >= threads * AHEAD_PER_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
