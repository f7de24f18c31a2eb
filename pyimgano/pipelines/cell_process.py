"""Starts a process for a cell of a suite, and says how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ..detectors.interface import Progress

DISK_FULL: Final = "DiskFull"  # the kind of failure that every other cell would meet
Failure = dict[str, str]  # kind, error, traceback


class CellProcess:
    """The process that `suite_cell` runs in."""

    def __init__(self, order: dict[str, Any], *, threads: int) -> None:
        self._order = order
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": str(threads),  # read by torch when it loads
        }

    def run(self, progress: Progress, stop: threading.Event) -> Failure | None:
        """Run the cell to its end; give what failed.

        It is ended early when `stop` is set.
        """
        if stop.is_set():
            return cell_failure("Interrupted", "the suite was interrupted")
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-m", "pyimgano.pipelines.suite_cell"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self._environment,
                start_new_session=True,  # so that its own processes end with it
            )
            ended = threading.Event()
            watch = threading.Thread(
                target=_end_on, args=(process, stop, ended), daemon=True
            )
            watch.start()
            try:
                outcome = self._follow(process, progress)
            finally:
                ended.set()
                process.wait()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")
        if outcome is None:
            return _crash(process.returncode, said)
        return outcome.get("failed")

    def _follow(
        self, process: subprocess.Popen[bytes], progress: Progress
    ) -> dict[str, Any] | None:
        """Pass on progress; give the outcome, None where the process told none."""
        assert process.stdin is not None
        assert process.stdout is not None
        # stdin stays open: its end tells the cell that nobody waits any more.
        try:
            with process.stdout as stdout:
                _send(process.stdin, self._order)
                for line in stdout:
                    if not line.endswith(b"\n"):
                        break  # killed while it said this
                    message: dict[str, Any] = json.loads(line)
                    if "progress" not in message:
                        return message
                    progress(*message["progress"])
            return None
        finally:
            with suppress(BrokenPipeError):  # of an order that was never read
                process.stdin.close()


def _send(stdin: IO[bytes], order: dict[str, Any]) -> None:
    try:
        stdin.write((json.dumps(order) + "\n").encode())
        stdin.flush()
    except BrokenPipeError:
        pass  # it ended already; its exit code and stderr tell more


def _end_on(
    process: subprocess.Popen[bytes], stop: threading.Event, ended: threading.Event
) -> None:
    while not ended.wait(0.1):
        if stop.is_set():
            end_group(process.pid)  # what it had begun is swept by the next start
            return


def end_group(leader: int) -> None:
    """End a process and those that it started."""
    if os.name == "nt":
        os.kill(leader, signal.SIGTERM)  # ends at once there
        return
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _crash(code: int, said: str) -> Failure:
    how = f"exit code {code}"
    if code < 0:
        how = f"signal {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            how += ", as the system sends it when memory runs out"
    lines = said.strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return cell_failure(
        "ProcessEnded", f"the cell's process ended by {how}{last}", said
    )


def cell_failure(kind: str, error: str, trace: str = "") -> Failure:
    """Give what is recorded of a cell that failed."""
    return {"kind": kind, "error": error, "traceback": trace}
