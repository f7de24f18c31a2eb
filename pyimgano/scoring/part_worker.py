"""Scores a part of the index, in whatever process an engine gives.

A part that its worker did not survive twice is scored picture by picture in a process
beside (`one_by_one`), so that one picture that kills whoever decodes it becomes an
error row.
"""

from __future__ import annotations

import errno
import os
import pickle
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.peak_memory import peak_rss_mb
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.rows import predict_inputs

from .entries import Entry, InputLost
from .one_by_one import rows_one_by_one
from .row_files import jsonl_bytes, numbered, parquet_bytes
from .score_folder import ScoreFolder, planned_rows

# Times that a part was begun and did not end: in all starts, as a picture may end the
# command too; and in one start, as it may be the command that was killed.
CAREFUL_FROM: Final = 2
GIVEN_UP_FROM: Final = 6
FULL: Final = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}

# "part", "worker", and one of "done", "refused", "failed" and "lost"
Outcome = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PartJob:
    """What a worker needs to score any part; small, and travels to other machines."""

    output: str  # absolute path, or URL
    start: str  # names this start of the command
    predictor: bytes  # pickled: path and sha256 of the bundle, and how to open it
    review_band: float | None
    part_size: int
    n_inputs: int  # of all parts
    jsonl: bool
    decode_workers: int


class PartWorker:
    """Scores parts, one after another, with one predictor."""

    def __init__(self, job: PartJob) -> None:
        self.job = job
        self.folder = ScoreFolder(job.output)
        # Of ours, just made by the process that started this one.
        self.predictor: Predictor = pickle.loads(job.predictor)

    def score(self, number: int) -> Outcome:
        """Score a part and write it; say what came of it.

        What would end every other part as well is "refused" (a bundle that differs
        here) or "failed" (a full disk); "lost" is what ends this one alone. All of it
        is said, not raised, since engines would try again.
        """
        told = {"part": number, "worker": f"{platform.node()}:{os.getpid()}"}
        try:
            return told | self._score(number)
        except (BundleError, ConfigError) as error:
            self._forget_if_possible(number)
            return told | {"refused": str(error), "kind": type(error).__name__}
        except InputLost as error:
            self._forget_if_possible(number)
            return told | {"lost": str(error)}
        except OSError as error:
            self._forget_if_possible(number)
            full = error.errno in FULL
            return told | {"failed": _in_words(error), "disk_full": full}
        except MemoryError:
            raise  # it may be that of one picture: as if its worker was killed
        except Exception as error:  # a part's failure, as a cell's is of a suite
            traceback.print_exc()
            self._forget_if_possible(number)
            said = f"part {number}: {type(error).__name__}: {error}; report this fault"
            return told | {"lost": said}

    def _forget_if_possible(self, number: int) -> None:
        with suppress(OSError):  # of the same cause as the error that is told
            self.folder.forget_attempts(number)

    def _score(self, number: int) -> Outcome:
        start = time.perf_counter()
        rules = self.predictor.rules  # a bundle that differs here is refused by this
        planned = planned_rows(number, self.job.part_size, self.job.n_inputs)
        entries = self._entries(number, planned)
        before = self.folder.begin_part(number, self.job.start)
        if before.now >= GIVEN_UP_FROM:
            return {
                "lost": f"part {number} was begun {before.now} times and its worker "
                "was lost each time"
            }
        inputs = (item for entry in entries for item in entry.inputs(rules))
        first = number * self.job.part_size
        found = self._rows(inputs, careful=before.ever >= CAREFUL_FROM)
        rows = [numbered(row, index) for index, row in enumerate(found, first)]
        if len(rows) != planned:
            raise InputLost(
                f"part {number}: {planned} inputs gave {len(rows)} rows; a Parquet "
                "file of --input has changed since it was listed"
            )
        counts = counted(rows) | {
            "seconds": round(time.perf_counter() - start, 3),
            "peak_rss_mb": peak_rss_mb(),
        }
        jsonl = jsonl_bytes(rows) if self.job.jsonl else None
        self.folder.finish_part(number, parquet_bytes(rows), jsonl, counts)
        return {"done": counts, "begun_before": before.ever}

    def _entries(self, number: int, planned: int) -> list[Entry]:
        try:
            found = self.folder.entries(number)
        except (ValueError, TypeError, IndexError):
            found = []  # damaged
        except FileNotFoundError as cause:
            raise OSError(
                f"{cause.filename or self.folder.files}: is not there on this machine; "
                "--output must lie on a file system that all machines share, or at a "
                "URL"
            ) from cause
        listed = sum(map(len, found))
        if listed != planned:
            raise InputLost(
                f"the list of part {number} is damaged: {listed} inputs, expected "
                f"{planned}; --force lists all of them again"
            )
        return found

    def _rows(
        self, inputs: Iterator[Input], *, careful: bool
    ) -> Iterator[dict[str, Any]]:
        if careful:
            yield from rows_one_by_one(self.job, inputs, self.predictor)
            return
        judged = predict_inputs(
            *(self.predictor, inputs),
            with_map=False,
            decode_workers=self.job.decode_workers,
            review_band=self.job.review_band,
        )
        yield from (row for row, _, _ in judged)


def _in_words(error: OSError) -> str:
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{error.filename}: {error.strerror}"


def counted(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Give how many rows say what."""
    counts = {"rows": len(rows), "ok": 0, "anomaly": 0, "normal": 0, "review": 0}
    errors: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["ok"]:
            counts["ok"] += 1
            counts[row["decision"]] += 1
        else:
            error = row["error"]
            known = errors.setdefault(
                error["code"],
                {
                    "count": 0,
                    "first_input": row["input"],
                    "first_message": error["message"],
                },
            )
            known["count"] += 1
    return {**counts, "errors": errors}
