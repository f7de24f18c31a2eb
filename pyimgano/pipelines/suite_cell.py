"""One cell of a suite, in a process of its own: whatever it does, the others go on.

The order comes as one line of JSON on stdin, progress and outcome go to stdout, a JSON
object a line. When stdin ends, whoever ordered the cell is gone, and so is this
process: a cell that nobody waits for would run into the resumed one.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from ..detectors.plugins import load_plugins
from ..workbench.config import LoadedConfig, parse_config
from .cell_process import DISK_FULL, end_group
from .compare_engines import MeasureOptions
from .run_benchmark import BenchmarkRequest
from .train_and_compare import train_and_compare

SAY_EVERY_S = 0.2


def main() -> None:
    """Run the cell that stdin describes."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _run(order)
    except Exception as error:  # recorded as this cell's failure
        trace = traceback.format_exc()
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        kind = DISK_FULL if full else type(error).__name__
        _say({"failed": {"kind": kind, "error": str(error), "traceback": trace}})
        return
    _say({"finished": True})


def _run(order: dict[str, Any]) -> None:
    where = order["where"]
    # Relative paths in a detector's options stand on it. On another machine it may be
    # missing; what needs it says so.
    if Path(order["working_folder"]).is_dir():
        os.chdir(order["working_folder"])
    load_plugins(order["plugins"])
    config = parse_config(order["config"], where)
    loaded = LoadedConfig(config, Path(where).absolute())
    request = BenchmarkRequest(
        loaded=loaded,
        dataset_name=order["dataset_name"],
        model=order["model"],
        engines=tuple(order["engines"]),
        threads=order["threads"],
        options=MeasureOptions(**order["options"]),
        robustness_images=order["robustness_images"],
    )
    train_and_compare(
        request,
        Path(order["output"]),
        force=False,
        keep=loaded.source.needed,
        progress=_Progress(),
    )


class _Progress:
    """Tells the parent, but not more often than a person can read."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        now = time.monotonic()
        if done == total or now - self._said > SAY_EVERY_S:
            self._said = now
            _say({"progress": [step, done, total]})


def _say(message: dict[str, Any]) -> None:
    # Past sys.stdout: what a library prints must not be taken for a message of ours.
    os.write(_OUT, (json.dumps(message) + "\n").encode())


def _end_with_parent() -> None:
    sys.stdin.read()  # returns when the parent is gone
    end_group(os.getpid())


if __name__ == "__main__":
    _OUT = os.dup(1)
    os.dup2(2, 1)
    main()
