"""Ratio benchmarks of the runtime: wide bounds that only a regression breaks.

What is aimed at and what was measured: docs/performance.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pyimgano_runtime.cores import usable_cores

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script of benchmarks/ and give its JSON; Markdown rows follow it."""
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    found, end = json.JSONDecoder().raw_decode(done.stdout)
    assert "| what | goal |" in done.stdout[end:]
    return dict(found)


def test_a_cold_start_costs_little_more_than_onnxruntime_itself() -> None:
    found = run("cold_start.py", "--repeats", "7")
    assert found["ratios"]["limit, cpu"]["median"] <= 1.6
    assert found["ratios"]["limit with OpenCV, cpu"]["median"] <= 1.4
    # Against importing numpy and onnxruntime, which help must never do.
    limit = found["sides"]["limit"]["cpu_ms"]
    assert found["sides"]["pyimgano-runtime --help"]["cpu_ms"] <= 0.45 * limit
    assert found["sides"]["pyimgano --help"]["cpu_ms"] <= 0.9 * limit


@pytest.mark.skipif(usable_cores() < 2, reason="needs two cores")
def test_a_folder_is_faster_than_one_picture_after_the_other(tmp_path: Path) -> None:
    found = run(
        *("throughput.py", "--work", str(tmp_path), "--pictures", "200"),
        *("--side", "512"),
    )
    assert found["ratios"]["1 worker, 1 thread"]["median"] >= 1.15


def test_memory_is_near_a_bare_sessions_and_flat(tmp_path: Path) -> None:
    found = run(
        *("runtime_memory.py", "--work", str(tmp_path), "--pictures", "800"),
        *("--rounds", "2"),
    )
    ratios = found["ratios"]
    assert ratios["one picture, peak, infer, .npy / session alone"]["median"] <= 1.4
    assert ratios["800 pictures, peak, infer / session and OpenCV"]["median"] <= 1.4
    assert found["last_quarter_by_second"]["infer"] <= 1.1
