"""Work by threads: results in order, a bounded number ahead, an end to it."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from pyimgano_runtime.ordered_threads import each_in_order, in_order


def test_results_come_in_order_however_long_each_takes() -> None:
    def work(index: int) -> int:
        time.sleep(0.002 * (index % 5 == 0))
        return index * index

    expected = [index * index for index in range(40)]
    assert list(in_order(work, 40, threads=4)) == expected


def test_nothing_gives_nothing() -> None:
    assert list(in_order(lambda index: index, 0, threads=2)) == []


@pytest.mark.parametrize(
    ("threads", "ahead", "most"), [(2, 3, 3), (3, 1, 3), (2, None, 8)]
)
def test_no_more_are_begun_than_may_wait(
    threads: int, ahead: int | None, most: int
) -> None:
    begun: list[int] = []
    results = in_order(begun.append, 100, threads=threads, ahead=ahead)
    for taken in range(10):
        next(results)
        time.sleep(0.005)  # give the threads time to do too much
        assert len(begun) <= taken + most
    results.close()


def test_closing_waits_for_the_work_at_hand_and_begins_no_more() -> None:
    begun, go_on = [], threading.Event()

    def work(index: int) -> None:
        begun.append(index)
        if index:
            go_on.wait(30)

    before = threading.active_count()
    results = in_order(work, 50, threads=2)
    next(results)
    go_on.set()
    results.close()
    assert threading.active_count() == before
    assert len(begun) < 50


def test_items_may_be_endless_and_are_asked_for_by_the_caller() -> None:
    asked_by: list[threading.Thread] = []

    def items() -> Iterator[int]:
        for item in itertools.count():
            asked_by.append(threading.current_thread())
            yield item

    results = each_in_order(lambda item: -item, items(), threads=2, ahead=3)
    assert list(itertools.islice(results, 20)) == [-item for item in range(20)]
    results.close()
    assert len(asked_by) == 22
    assert set(asked_by) == {threading.current_thread()}


def test_all_that_wait_are_given_before_more_is_asked_for_where_there_is_none() -> None:
    given: list[int] = []

    def items() -> Iterator[int | None]:
        yield from (1, 2, None)
        assert given == [-1, -2]
        yield 3

    for result in each_in_order(lambda item: -item, items(), threads=1, ahead=9):
        given.append(result)
    assert given == [-1, -2, -3]


def test_an_error_comes_at_its_turn() -> None:
    def work(index: int) -> int:
        if index == 2:
            raise ValueError("two")
        return index

    results = in_order(work, 9, threads=2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_an_error_that_was_caught_holds_nothing() -> None:
    """Pictures are large, and a service may never collect garbage."""

    class Picture:
        pass

    alive: weakref.WeakSet[Picture] = weakref.WeakSet()

    def work(index: int) -> Picture:
        picture = Picture()
        alive.add(picture)
        if index == 2:
            raise ValueError("two")
        return picture

    gc.disable()
    try:
        with pytest.raises(ValueError, match="two"):
            list(in_order(work, 9, threads=2))
        assert len(alive) == 0
    finally:
        gc.enable()


def test_a_process_ends_with_results_that_nobody_takes() -> None:
    script = """
import time
from pyimgano_runtime.ordered_threads import in_order
results = in_order(lambda index: time.sleep(0.05), 99, threads=2)
next(results)
"""
    done = subprocess.run([sys.executable, "-c", script], timeout=30)
    assert done.returncode == 0
