"""Progress is for people: bars in a terminal, else a plain line now and then."""

from __future__ import annotations

import pytest

from pyimgano.terminal_progress import TerminalProgress


def test_short_work_prints_nothing_without_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with TerminalProgress() as progress:
        for done in range(3):
            progress("features", done, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_a_terminal_sees_the_step_on_stderr_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # what rich takes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    with TerminalProgress() as progress:
        progress("bracket: features", 2, 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "bracket: features" in captured.err
    assert "2/2" in captured.err


def test_an_error_inside_ends_the_bars_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        with TerminalProgress() as progress:
            progress("features", 1, 2)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert capsys.readouterr().err == ""


def test_a_log_gets_a_line_now_and_then_with_loss_and_remaining_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with TerminalProgress(clock=lambda: now) as progress:
        for done in range(61):
            progress(f"bracket: training, loss {1 / (done + 1):.3f}", done, 200)
            now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "bracket: training, loss 0.032: 30 of 200, about 2 min 50 s left",
        "bracket: training, loss 0.016: 60 of 200, about 2 min 20 s left",
    ]


def test_a_resumed_step_is_judged_by_what_it_did_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with TerminalProgress(clock=lambda: now) as progress:
        progress("training", 1000, 1100)
        now = 40.0
        progress("training", 1020, 1100)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "training: 1020 of 1100, about 2 min 40 s left"


def test_work_that_begins_again_is_judged_anew(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    with TerminalProgress(clock=lambda: now) as progress:
        progress("folds", 0, 4)
        now = 29.0
        progress("folds", 4, 4)
        progress("folds", 0, 4)
        now = 35.0
        progress("folds", 2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "folds: 2 of 4, about 6 s left"
