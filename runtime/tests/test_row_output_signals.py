"""What signals do to a run of `infer`: `Drain`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence

import pytest

from pyimgano_runtime.row_output import Drain


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def run(drain: Drain, in_block: Sequence[str], after: Sequence[str] = ()) -> None:
    """Note each step in a block and after it; a step may be an interrupt."""
    with drain.whole():
        for step in in_block:
            _do(step)
    for step in after:
        _do(step)


def _do(step: str) -> None:
    if step == "interrupt":
        interrupt()
    elif step == "fail":
        raise OSError("disk full")
    noted.append(step)


noted: list[str] = []


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    noted.clear()


def test_an_interrupt_waits_for_the_end_of_a_block() -> None:
    with Drain() as drain, pytest.raises(KeyboardInterrupt):
        run(drain, ["interrupt", "count"], ["next"])
    assert noted == ["interrupt", "count"]


def test_a_second_interrupt_does_not_wait() -> None:
    """A block may hang: its row goes to a pipe that nobody reads."""
    with Drain() as drain, pytest.raises(KeyboardInterrupt):
        run(drain, ["interrupt", "hang", "interrupt", "count"])
    assert noted == ["interrupt", "hang"]


def test_outside_of_a_block_an_interrupt_ends_at_once() -> None:
    with Drain() as drain, pytest.raises(KeyboardInterrupt):
        run(drain, ["count"], ["interrupt", "next"])
    assert noted == ["count"]


def test_an_error_of_the_block_goes_before_the_interrupt() -> None:
    with Drain() as drain, pytest.raises(OSError, match="disk full"):
        run(drain, ["interrupt", "fail"])


def test_sigterm_is_a_wish_and_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Drain() as drain:
        signal.raise_signal(signal.SIGTERM)
        assert drain.asked
    after = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    assert after == before


def test_an_interrupt_that_nobody_wants_stays_ignored() -> None:
    """`nohup` and `&` in a script start programs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Drain() as drain, drain.whole():
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_get_no_signals_and_leave_them_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Drain() as drain, drain.whole():
            seen.append((signal.getsignal(signal.SIGINT), drain.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
