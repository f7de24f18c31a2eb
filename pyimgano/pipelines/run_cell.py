"""One cell from its order to its outcome, wherever it runs.

Nothing heavy is imported: a Ray worker that waits for a cell holds no torch.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, Any

from .cell_process import DISK_FULL, CellProcess, Failure, cell_failure

if TYPE_CHECKING:
    from ..detectors.interface import Progress


def run_cell(
    order: dict[str, Any], progress: Progress, stop: threading.Event
) -> Failure | None:
    """Run a cell in a process of its own; give its failure, None if it finished."""
    id = order["where"]
    try:
        return CellProcess(order, threads=order["threads"]).run(
            lambda step, done, total: progress(f"{id}: {step}", done, total), stop
        )
    except OSError as error:  # no process can be made: this cell's own
        return os_failure(error)


def os_failure(error: OSError) -> Failure:
    """Give the failure of a cell that the system ended."""
    kind = DISK_FULL if error.errno == errno.ENOSPC else "OSError"
    return cell_failure(kind, str(error))
