"""Watches drift while rows are written: `infer --stats-every` and `--drift-report`.

Both commands' rows pass by `DriftWatch.add`; nothing is computed unless one was asked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .cli_options import say
from .drift import WINDOW, DriftMonitor, DriftReading, StatisticReading
from .drift_words import NO_REFERENCE, NOTHING_KNOWN, verdict_of
from .errors import ConfigError
from .picture_statistics import picture_statistics

if TYPE_CHECKING:
    from .predictor import Image, Prediction, Predictor

STATS_SCHEMA_VERSION: Final = "1.0"


class DriftWatch:
    """Counts pictures, says how they lie every so often, and keeps a page of it."""

    def __init__(
        self,
        predictor: Predictor,
        *,
        say: Callable[[str], None],
        every: int | None = None,
        page: Path | None = None,
        clock: Callable[[], str] = str,
        window: int = WINDOW,
    ) -> None:
        """Watch a predictor's pictures.

        Args:
            say: takes a line for the person at the screen.
            every: a line of JSON after so many pictures; None: none.
            page: the HTML file to keep, written every `window` pictures and at the
                end; None: none.
            clock: gives the time that the page names.
        """
        self._predictor = predictor
        self._say, self._every, self._page = say, every, page
        self._page_every = window
        self._clock = clock
        self._pictures = 0
        self._begin()

    def _begin(self) -> None:
        """Compare with the bundle that is in use now, and say what it lacks."""
        self._settings = self._predictor.settings
        self._monitor = DriftMonitor.of(self._settings, window=self._page_every)
        self._note = ""
        if not self._monitor.references:
            self._note = NOTHING_KNOWN
        elif not self._monitor.looks_at_pictures:
            self._note = NO_REFERENCE
        if self._note:
            self._say(f"drift: {self._note}")

    def add(self, image: Image, prediction: Prediction) -> None:
        """Take one picture that was scored.

        Where another bundle was taken into use (--reload), the window begins anew.
        """
        if self._predictor.settings is not self._settings:
            self._begin()
        looks = self._monitor.looks_at_pictures
        picture = picture_statistics(image) if looks else None
        self._monitor.add(prediction.score, picture)
        self._pictures += 1
        if self._every is not None and self._pictures % self._every == 0:
            self._say(json.dumps(stats_row(self._predictor, self._monitor.reading())))
        if self._page is not None and self._pictures % self._page_every == 0:
            self._write(self._page)

    def finish(self) -> None:
        """Write the page of all pictures, and say its verdict."""
        if self._page is None:
            return
        self._write(self._page)
        verdict = verdict_of(self._monitor.reading())
        seen = " ".join(seen for seen, _ in verdict.findings)
        self._say(f"{verdict.state}: {seen or verdict.headline} ({self._page})")

    def _write(self, page: Path) -> None:
        from .atomic import write_text
        from .drift_page import drift_page

        reading = self._monitor.reading()
        html = drift_page(
            self._predictor.category,
            reading,
            bundle=self._predictor.bundle,
            note=self._note,
            written=self._clock(),
        )
        try:
            write_text(page, html)
        except OSError as cause:
            raise ConfigError(
                f"--drift-report {page}: cannot be written ({cause.strerror}); name a "
                "file in a folder that exists and that you may write to"
            ) from cause


def stats_row(predictor: Predictor, reading: DriftReading) -> dict[str, Any]:
    """Give a reading as the JSON object of `--stats-every`."""
    return {
        "schema_version": STATS_SCHEMA_VERSION,
        "kind": "drift",
        "category": predictor.category,
        "pictures": reading.pictures,
        "window": reading.window,
        "verdict": verdict_of(reading).state,
        "alarms": {name: list(tests) for name, tests in reading.alarms.items()},
        "statistics": {
            name: _statistic(found) for name, found in reading.statistics.items()
        },
        "bundle_sha256": predictor.bundle.sha256 if predictor.bundle else None,
    }


def _statistic(found: StatisticReading) -> dict[str, Any]:
    numbers = {
        "mean": found.mean,
        "median": found.median,
        "reference_mean": found.reference.mean,
        "shift": found.shift,
        "shift_errors": found.shift_errors,
        "shift_limit": found.shift_limit,
        "psi": found.psi,
        "psi_limit": found.psi_limit,
        "ks": found.ks,
        "ks_limit": found.ks_limit,
    }
    return {
        key: None if number is None else float(f"{number:.6g}")
        for key, number in numbers.items()
    }


def watch_of(options: argparse.Namespace, predictor: Predictor) -> DriftWatch:
    """Give what `--stats-every` and `--drift-report` of a command ask for.

    Raises:
        ConfigError: the page may not be written.
    """
    page = None
    if options.drift_report is not None:
        assert predictor.bundle is not None
        page = page_path(
            options.drift_report,
            bundle=predictor.bundle.root,
            rows=options.output,
            force=options.force or options.resume or options.watch is not None,
        )
    return DriftWatch(
        predictor,
        say=say,
        every=options.stats_every,
        page=page,
        clock=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def page_path(text: str, *, bundle: Path, rows: str | None, force: bool) -> Path:
    """Give the path of `--drift-report`, if it may be written.

    Args:
        rows: the file that takes the rows, if one does.

    Raises:
        ConfigError: it is there and `force` is not set, is no page of this kind, lies
            in the bundle, or is the file of the rows.
    """
    from .atomic import refuse_existing_file

    path = Path(text)
    if not path.name:
        raise ConfigError(f'--drift-report "{text}": is a folder, expected a file')
    refuse_existing_file(path, force=force, is_ours=is_page)
    if rows is not None and path.resolve() == Path(rows).resolve():
        raise ConfigError(
            f"--drift-report {path}: is the file of --output too; name another one"
        )
    if path.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(
            f"--drift-report {path}: lies in the bundle, which stays as it was "
            "released; name a file beside it"
        )
    return path


def is_page(head: bytes) -> bool:
    """Whether a file that begins so is a drift report."""
    return head.startswith(b"<!DOCTYPE html>") and b"<title>Drift of " in head
