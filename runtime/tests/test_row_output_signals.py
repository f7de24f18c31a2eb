"""What signals do to a run of `infer`: `Drain`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from pyimgano_runtime import row_output
from pyimgano_runtime.row_output import Drain, RowWriter

BOTH = (signal.SIGTERM, signal.SIGINT)
noted: list[str] = []


@pytest.fixture(autouse=True)
def nothing_noted() -> None:
    noted.clear()


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def run(drain: Drain, rows: Sequence[Sequence[str]]) -> None:
    """Note the steps of each row; some raise."""
    with drain.rows():
        for row in rows:
            for step in row:
                _do(step, drain)
            drain.after_row()


def _do(step: str, drain: Drain) -> None:
    if step == "interrupt":
        interrupt()
    elif step == "wait":
        with drain.waiting():
            noted.append("waiting")
            interrupt()
    elif step == "disk full":
        raise OSError(step)
    elif step == "pipe closed":
        raise BrokenPipeError
    noted.append(step)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([["interrupt", "count"], ["count"]], ["interrupt", "count"]),
        ([["count"], ["wait", "count"]], ["count", "waiting"]),
        ([["interrupt", "wait"]], ["interrupt"]),
        ([["interrupt", "pipe closed"]], ["interrupt"]),  # its reader had it too
        ([["interrupt", "interrupt", "count"]], ["interrupt", "interrupt", "count"]),
    ],
    ids=["row", "waiting", "waits no more", "pipe", "twice at once"],
)
def test_an_interrupt_waits_for_the_end_of_a_row_and_not_for_inputs(
    rows: list[list[str]], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_output, "AGAIN_S", 60.0)  # twice at once, however slow
    with Drain() as drain, pytest.raises(KeyboardInterrupt):
        run(drain, rows)
    assert noted == expected


def test_a_second_interrupt_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row may hang: it goes to a pipe that nobody reads."""
    monkeypatch.setattr(row_output, "AGAIN_S", 0.0)
    with Drain() as drain, pytest.raises(KeyboardInterrupt):
        run(drain, [["interrupt", "hang", "interrupt", "count"]])
    assert noted == ["interrupt", "hang"]


def test_what_follows_a_second_interrupt_needs_one_more_and_no_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The threads that decode are waited for, and one of them may hang too."""
    monkeypatch.setattr(row_output, "AGAIN_S", 0.0)
    with Drain() as drain, drain.rows():
        for _ in range(2):
            interrupt_noted()
        assert noted == ["held", "raised"]
        interrupt_noted()
    assert noted == ["held", "raised", "raised"]


def interrupt_noted() -> None:
    try:
        interrupt()
        noted.append("held")
    except KeyboardInterrupt:
        noted.append("raised")


def test_an_interrupt_of_the_last_row_is_not_lost() -> None:
    with Drain() as drain, pytest.raises(KeyboardInterrupt), drain.rows():
        interrupt()


@pytest.mark.parametrize(
    ("row", "error"),
    [(["interrupt", "disk full"], OSError), (["pipe closed"], BrokenPipeError)],
)
def test_an_error_goes_before_the_interrupt(
    row: list[str], error: type[Exception]
) -> None:
    with pytest.raises(error), Drain() as drain:
        run(drain, [row])


def test_outside_of_rows_an_interrupt_ends_at_once() -> None:
    with Drain(), pytest.raises(KeyboardInterrupt):
        interrupt()


def test_sigterm_is_a_wish() -> None:
    with Drain() as drain:
        signal.raise_signal(signal.SIGTERM)
        assert drain.asked
        assert not drain.cut_short


def test_handlers_are_given_back_after_all_that_may_happen() -> None:
    before = [signal.getsignal(number) for number in BOTH]
    with Drain() as drain:
        assert [signal.getsignal(number) for number in BOTH] != before
    assert [signal.getsignal(number) for number in BOTH] == before
    with pytest.raises(KeyboardInterrupt), Drain() as drain:
        run(drain, [["interrupt"]])
    assert [signal.getsignal(number) for number in BOTH] == before


def test_an_interrupt_that_nobody_wants_stays_ignored() -> None:
    """`nohup` and `&` in a script start programs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Drain() as drain, drain.rows():
            interrupt()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_get_no_signals_and_leave_them_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Drain() as drain, drain.rows():
            seen.append((signal.getsignal(signal.SIGINT), drain.asked))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_run_that_was_stopped_before_its_first_row_replaces_no_older_file(
    tmp_path: Path, cut_short: bool
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"schema_version": "1.1", "input": "a.png"}\n', encoding="utf-8")
    with RowWriter(str(path), force=True) as writer:
        writer.cut_short = cut_short
    assert (path.read_text(encoding="utf-8") != "") == cut_short
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]
