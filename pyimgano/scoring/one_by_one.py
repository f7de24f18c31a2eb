"""Scores pictures in a process beside, one at a time: it may die of any of them.

    PART_WORKER --header line, bytes--> this module as a program --row, a line--> back

A picture that ends the process becomes an error row, and the next one gets a new
process. Only parts that ended their workers before come here. The program says first
that the bundle is open: what ends it before that is no picture's fault.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyimgano_runtime.errors import BundleError, ImageError, PyimganoError
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import error_row, predict_inputs

from .entries import EncodedPicture

if TYPE_CHECKING:
    from .part_worker import PartJob

MODULE: Final = "pyimgano.scoring.one_by_one"
READY: Final = b'{"ready": true}\n'


def rows_one_by_one(
    job: PartJob, inputs: Iterable[Input], predictor: Predictor
) -> Iterator[dict[str, Any]]:
    """Give the row of each input.

    Args:
        predictor: names the bundle in error rows; nothing is scored by it.

    Raises:
        BundleError: the bundle is refused by the process.
        OSError: the process cannot be started.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        for item in inputs:
            try:
                data = item.fetch() if item.fetch is not None else b""
            except ImageError as error:
                yield error_row(item.name, predictor, error)
                continue
            if process is None:
                process = _started(job)
            row = _asked(process, item, data)
            if row is None:
                died = _died(item.name, _end(process))
                process = None
                yield error_row(item.name, predictor, died)
            else:
                yield row
    finally:
        if process is not None:
            _end(process)


def _started(job: PartJob) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        start_new_session=True,  # Ctrl-C is the command's: it would look like a death
    )
    predictor = base64.b64encode(job.predictor).decode("ascii")
    order = {"predictor": predictor, "review_band": job.review_band}
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(order).encode("ascii") + b"\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if line == READY:
        return process
    how = _how(_end(process))
    if line.endswith(b"\n"):
        raise BundleError(json.loads(line)["refused"])
    raise OSError(
        f"the process that scores picture by picture ended by {how} before it had "
        "opened the bundle; look at the memory of this machine"
    )


def _asked(
    process: subprocess.Popen[bytes], item: Input, data: bytes
) -> dict[str, Any] | None:
    """Give the row of a picture; None where the process ended over it."""
    path = None if item.path is None else str(item.path)
    header = {"name": item.name, "path": path, "bytes": len(data)}
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(header).encode("ascii") + b"\n" + data)
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    row: dict[str, Any] = json.loads(line)
    return row


def _end(process: subprocess.Popen[bytes]) -> int:
    """End a process by the end of its stdin; give its exit code."""
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):  # it has ended already
        process.stdin.close()
    process.stdout.close()
    return process.wait()


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _died(name: str, code: int) -> ImageError:
    return ImageError(
        f"{name}: the process that scored it ended by {_how(code)}; look at the "
        "picture, or give each worker more memory",
        code="WORKER_DIED",
        stage="infer",
    )


def main() -> None:
    """Answer with a row for each picture on stdin, until it ends."""
    import pickle

    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no row
    order = json.loads(sys.stdin.buffer.readline())
    # Of ours, from the process that started this one.
    predictor: Predictor = pickle.loads(base64.b64decode(order["predictor"]))
    try:
        predictor.rules  # noqa: B018 - a bundle that differs here is refused by this
    except PyimganoError as error:
        os.write(out, json.dumps({"refused": str(error)}).encode("ascii") + b"\n")
        return
    os.write(out, READY)
    while line := sys.stdin.buffer.readline():
        header = json.loads(line)
        data = sys.stdin.buffer.read(header["bytes"])
        if header["path"] is None:
            item = Input(header["name"], fetch=EncodedPicture(data))
        else:
            item = Input(header["name"], Path(header["path"]))
        judged = predict_inputs(
            *(predictor, [item]), with_map=False, review_band=order["review_band"]
        )
        for row, _, _ in judged:
            os.write(out, json.dumps(row).encode("ascii") + b"\n")


if __name__ == "__main__":
    main()
