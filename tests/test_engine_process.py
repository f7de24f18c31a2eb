"""An engine measured alone: what happens when its process fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Exported
from pyimgano.pipelines import engine_process
from pyimgano.pipelines.engine_process import EngineSource, measure_process


def test_a_process_that_fails_costs_nothing_but_its_own_numbers(tmp_path: Path) -> None:
    source = EngineSource("onnx", "bracket", 1, tmp_path / "none", None)
    found = measure_process(source, [])
    assert found["peak_rss_mb"] is None
    assert "ended with exit code 1" in found["reason"]


def test_a_process_that_hangs_is_given_up(
    exported: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_process, "SECONDS", 0.05)
    source = EngineSource("onnx", "bracket", 1, exported("pixel_stats").bundle, None)
    assert "took more than 0.05 s" in measure_process(source, [])["reason"]
