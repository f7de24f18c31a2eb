"""Work on many items by threads, results in order, few of them waiting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from sys import is_finalizing
from threading import Thread
from typing import Final, Generic, TypeAlias, TypeVar, cast

A = TypeVar("A")
T = TypeVar("T")
# Takes one result, or why there is none.
_Slot: TypeAlias = "SimpleQueue[tuple[T | None, BaseException | None]]"

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
    team = _Team(work, threads)
    waiting: deque[_Slot[T]] = deque()
    try:
        for item in items:
            if item is not None:
                waiting.append(team.begin(item))
            while len(waiting) >= (1 if item is None else most):
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        team.end()


class _Team(Generic[A, T]):
    """Threads that work on items as they come.

    The caller's thread meets only queues of C. Ctrl-C may leave a lock of Python's own
    taken for ever, such as those of `concurrent.futures`, when it comes right after it
    was acquired.
    """

    def __init__(self, work: Callable[[A], T], most: int) -> None:
        self._work = work
        self._most = most
        self._tasks: SimpleQueue[tuple[_Slot[T], A] | None] = SimpleQueue()
        self._threads: list[Thread] = []
        self._ended = False

    def begin(self, item: A) -> _Slot[T]:
        """Give the place where the result of an item will lie."""
        if len(self._threads) < self._most:
            # A daemon: one whose caller never ends it does not hold the process.
            thread = Thread(target=self._serve, daemon=True)
            self._threads.append(thread)
            thread.start()
        slot: _Slot[T] = SimpleQueue()
        self._tasks.put((slot, item))
        return slot

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            slot, item = task
            if self._ended:
                continue
            try:
                slot.put((self._work(item), None))
            except BaseException as error:  # raised where the result is taken
                slot.put((None, error))
            # It may be large, and the next one may be long in coming.
            del task, slot, item

    def end(self) -> None:
        """Begin no more, and wait for the work at hand."""
        self._ended = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            # Not one that Ctrl-C kept from starting. And where Python ends with a
            # generator that nobody closed, its daemons stand still for ever.
            if thread.is_alive() and not is_finalizing():
                thread.join()


def _result(slot: _Slot[T]) -> T:
    value, error = slot.get()
    try:
        if error is not None:
            raise error
        return cast("T", value)
    finally:
        del value, error  # else the error would hold this frame, and itself by it
