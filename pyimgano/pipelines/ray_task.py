"""What a Ray worker does for one cell; imports nothing heavy, see `run_cell`."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime.atomic import only_writer
from pyimgano_runtime.errors import ConfigError

from .cell_process import Failure, cell_failure
from .run_cell import run_cell

NOT_SHARED: Final = "NotShared"  # the kind of failure
MUST_BE_SHARED: Final = (
    "the output folder of a suite must lie on a file system that every node of the "
    "cluster mounts at this path"
)
_WRITER_ENDS_S: Final = 60.0


def run_on_node(order: dict[str, Any], attempt: int, gpus: float) -> Failure | None:
    """Run a cell on the machine of this worker; give its failure.

    Args:
        attempt: 1 for the first; before others were workers that were lost.
        gpus: what the cell demands; without any it sees none.
    """
    if not gpus:  # newer versions of Ray leave all of them visible
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    folder = Path(order["output"])  # OUTPUT/cells/<id>
    suite = folder.parents[1] / "suite.json"
    if not suite.is_file():
        host = socket.gethostname()
        error = f"{suite}: is not there on the node {host}; {MUST_BE_SHARED}"
        return cell_failure(NOT_SHARED, error)
    if attempt > 1:
        _wait_for_writer(folder)
    return run_cell(order, _no_progress, threading.Event())


def _wait_for_writer(folder: Path) -> None:
    """Let the cell of a lost worker end: it does so once it sees that nobody waits."""
    folder.parent.mkdir(exist_ok=True)
    ends = time.monotonic() + _WRITER_ENDS_S
    while time.monotonic() < ends:
        try:
            with only_writer(folder):
                return
        except ConfigError:
            time.sleep(0.2)


def _no_progress(step: str, done: int, total: int) -> None:
    """Say nothing: the suite counts cells, and no line comes back from a node."""
