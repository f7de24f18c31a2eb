"""Scores pictures in a process beside, one at a time: it may die of any of them.

    PART_WORKER --header line, bytes--> this module as a program --row, a line--> back

A picture that ends the process becomes an error row, and the next one gets a new
process. Only parts that ended their workers before come here.
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

from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import error_row, predict_inputs

from .entries import EncodedPicture

if TYPE_CHECKING:
    from .part_worker import PartJob

MODULE: Final = "pyimgano.scoring.one_by_one"


def rows_one_by_one(
    job: PartJob, inputs: Iterable[Input], predictor: Predictor
) -> Iterator[dict[str, Any]]:
    """Give the row of each input.

    Args:
        predictor: names the bundle in error rows; nothing is scored by it.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        for item in inputs:
            try:
                header, data = _message(item)
            except ImageError as error:
                yield error_row(item.name, predictor, error)
                continue
            if process is None:
                process = _started(job)
            row = _asked(process, header, data)
            if row is None:
                died = _died(item.name, _end(process))
                process = None
                yield error_row(item.name, predictor, died)
            else:
                yield row
    finally:
        if process is not None:
            _end(process)


def _message(item: Input) -> tuple[bytes, bytes]:
    data = item.fetch() if item.fetch is not None else b""
    path = None if item.path is None else str(item.path)
    header = {"name": item.name, "path": path, "bytes": len(data)}
    return json.dumps(header).encode("ascii") + b"\n", data


def _started(job: PartJob) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-X", "utf8", "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    predictor = base64.b64encode(job.predictor).decode("ascii")
    order = {"predictor": predictor, "review_band": job.review_band}
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode("ascii") + b"\n")
    return process


def _asked(
    process: subprocess.Popen[bytes], header: bytes, data: bytes
) -> dict[str, Any] | None:
    """Give the row of a picture; None where the process ended over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(header + data)
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


def _died(name: str, code: int) -> ImageError:
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ImageError(
        f"{name}: the process that scored it ended by {how}; look at the picture, or "
        "give each worker more memory",
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
