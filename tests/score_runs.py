"""Starts `pyimgano score` for tests, kills what it runs, and reads its rows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq

DEMO = Path(__file__).resolve().parents[1] / "bundles" / "demo"


def write_photos(folder: Path, count: int, *, side: int = 40) -> list[Path]:
    """So many small pictures of noise, by name."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"{number:04}.png"), pixels)
    return sorted(folder.iterdir())


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start the command; its stderr joins its stdout."""
    command = [sys.executable, "-m", "pyimgano.cli", "score", *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], *, within: float = 120) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    try:
        said, _ = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise AssertionError(f"did not end: {said}") from None
    return process.returncode, said


def wait_for(condition: Callable[[], Any], *, within: float = 90) -> Any:
    """What the condition gives, as soon as it is true."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not come to that")


def children_of(process: int) -> list[int]:
    """Ids of a process's own processes that are at work in Python."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it ended
        state, parent = text.rpartition(")")[2].split()[:2]
        if int(parent) == process and state != "Z":
            found.append(int(path.parent.name))
    return found


def n_parts(output: Path) -> int:
    """How many parts have their rows."""
    return len(list(output.glob("part-*.parquet")))


def rows_of(output: Path) -> list[dict[str, Any]]:
    """All rows as one table, as any reader of Parquet would take the folder."""
    rows: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return sorted(rows, key=lambda row: row["index"])


def report_of(output: Path) -> dict[str, Any]:
    """What came of it."""
    report: dict[str, Any] = json.loads((output / "_report.json").read_text("utf-8"))
    return report


def parts_of(output: Path) -> dict[str, bytes]:
    """The bytes of each file of rows."""
    return {path.name: path.read_bytes() for path in output.glob("part-*.parquet")}
