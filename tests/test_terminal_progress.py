"""Progress is for people: silent where stderr is no terminal."""

from __future__ import annotations

import pytest

from pyimgano.terminal_progress import TerminalProgress


def test_nothing_is_printed_without_a_terminal(
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
