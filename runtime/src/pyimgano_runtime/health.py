"""A small JSON file that tells a supervisor whether this program does its work.

`check` writes one verdict. A running `infer` keeps one up to date:

    with HealthFile(Path("health.json"), predictor, say=print) as health:
        for row in rows:
            health.row(row)      # once for each row; beat() where none comes

Every version of the file is complete (atomic rename). `ok` is false before `check` has
ended, after a failure, and where the last `FAILING` rows were all failures.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .atomic import refuse_existing_file, write_text
from .errors import ConfigError

if TYPE_CHECKING:
    from .check import CheckReport
    from .predictor import Predictor

HEALTH_SCHEMA_VERSION: Final = "1.0"
EVERY_S: Final = 5.0
FAILING: Final = 10  # so many failed rows one after the other are no bad luck
_BEGINNING: Final = b'{"schema_version": "'
_KIND: Final = b'"kind": "health"'


def refuse_health_file(path: Path, bundle: Path) -> None:
    """Refuse a place where no health file may be written.

    Raises:
        ConfigError: a file of another kind, a folder, or a place in the bundle; its
            folder does not exist.
    """
    refuse_existing_file(path, force=True, is_ours=_looks_like_health)
    if path.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(
            f"--health-file {path}: lies in the bundle, which stays as it was "
            "released; name a file beside it"
        )


def write_health(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts, complete or not at all."""
    head = {"schema_version": HEALTH_SCHEMA_VERSION, "kind": "health"}
    write_text(path, json.dumps(head | dict(facts), allow_nan=False) + "\n")


def check_facts(report: CheckReport | None, problems: list[str]) -> dict[str, Any]:
    """Give what a health file says of a check.

    Args:
        report: None where the check did not come to its end.
        problems: why it failed; with none of them and a report, the bundle is ready.
    """
    judged = [r for r in report.results if r.agrees is not None] if report else []
    return {
        "ok": report is not None and report.ok and not problems,
        "bundle_sha256": report.bundle_sha256 if report else None,
        "checked_at": utc_now(),
        "goldens": {
            "agree": sum(r.agrees is True for r in judged),
            "judged": len(judged),
            "all": len(report.results) if report else 0,
        },
        "provider": report.provider.name if report else None,
        "problems": problems,
    }


class HealthFile:
    """The health file of a program that judges pictures until it is stopped."""

    def __init__(
        self,
        path: Path,
        predictor: Predictor,
        *,
        say: Callable[[str], None],
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Write the first version: ready, no picture yet.

        Args:
            predictor: names bundle and provider; asked at every writing, so that one
                which reloads its bundle names the new one.
            say: takes a line where the file cannot be written: once, the work goes on.
            every_s: seconds that pass at least between two versions.
            clock: gives seconds.
        """
        self._path = path
        self._predictor = predictor
        self._say = say
        self._every_s = every_s
        self._clock = clock
        self._started_at = utc_now()
        self._counts = {"pictures": 0, "failed": 0, "anomalies": 0}
        self._failed_in_a_row = 0
        self._last_error: dict[str, Any] | None = None
        self._said = False
        self._write("running", [])

    def row(self, row: Mapping[str, Any]) -> None:
        """Count a row of `infer`, and write where the last version is old enough."""
        self._counts["pictures"] += 1
        self._counts["anomalies"] += row["label"] == "anomaly"
        if row["ok"]:
            self._failed_in_a_row = 0
        else:
            self._counts["failed"] += 1
            self._failed_in_a_row += 1
            self._last_error = {**row["error"], "input": row["input"], "at": utc_now()}
        self.beat()

    def beat(self) -> None:
        """Write where the last version is old enough: also where no picture comes.

        A loop that waits for pictures calls it each time it has looked for one.
        """
        if self._clock() - self._written >= self._every_s:
            self._write("running", [])

    def __enter__(self) -> HealthFile:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        """Write the last version: "stopped", or "failed" and why."""
        if kind is None or issubclass(kind, BrokenPipeError):
            self._write("stopped", [])
        else:
            self._write("failed", [str(error) or kind.__name__])

    def _write(self, state: str, problems: list[str]) -> None:
        self._written = self._clock()
        bundle = self._predictor.bundle
        failing = self._failed_in_a_row >= FAILING
        facts = {
            "ok": state == "running" and not failing,
            "state": state,
            "bundle_sha256": bundle.sha256 if bundle else None,
            "provider": self._predictor.provider,
            "started_at": self._started_at,
            "updated_at": utc_now(),
            **self._counts,
            "failed_in_a_row": self._failed_in_a_row,
            "last_error": self._last_error,
            "problems": problems,
        }
        try:
            write_health(self._path, facts)
        except OSError as error:
            if not self._said:
                self._say(f"warning: --health-file {self._path}: {error.strerror}")
                self._said = True
        else:
            self._said = False


def utc_now() -> str:
    """Give the time as "2026-11-28T22:10:05Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _looks_like_health(head: bytes) -> bool:
    return head.startswith(_BEGINNING) and _KIND in head[:80]
