"""Runs `pyimgano-runtime infer` as a process, and reads what it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60.0  # seconds: only a fault waits so long
INFER = [sys.executable, "-m", "pyimgano_runtime", "infer", "--bundle"]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Give the rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def inputs_of(path: Path) -> list[str]:
    """Give what the rows of a JSONL file are of, by file name."""
    return [Path(row["input"]).name for row in rows_of(path)]


def started(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    """Start `infer --bundle` and give the process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([*INFER, *map(str, arguments)], text=True, **pipes)


def wait_for(
    ready: Callable[[], Any], child: subprocess.Popen[str] | None = None
) -> None:
    """Wait until something is true, while a process runs."""
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, "it never became true"
        if child is not None and child.poll() is not None:
            raise AssertionError(f"ended with {child.returncode}: {told(child)}")
        time.sleep(0.01)


def lines_in(path: Path) -> int:
    """Count the whole lines of a file that may not be there yet."""
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def told(child: subprocess.Popen[str]) -> str:
    """Wait for a process, close its pipes and give its stderr."""
    _, err = child.communicate(timeout=PATIENCE)
    return err


@contextmanager
def on_stdin(data: bytes) -> Iterator[None]:
    """Let file descriptor 0 give these bytes for the block."""
    before = os.dup(0)
    with tempfile.TemporaryFile() as stream:
        stream.write(data)
        stream.seek(0)
        os.dup2(stream.fileno(), 0)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
