"""The report and the gates of one `infer` command."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .atomic import refuse_existing_file, write_text
from .cli_options import say
from .row_output import Tally, refuse_inside
from .run_report import REPORT_SCHEMA_VERSION, Gates, RunStatistics, gate_lines

if TYPE_CHECKING:
    from .predictor import Predictor

_BEGINS: Final = b'{\n  "schema_version": "'
_KIND: Final = b'"kind": "run_report"'


class InferReport:
    """Counts rows, says which gates are missed, and writes the report."""

    def __init__(self, options: argparse.Namespace, predictor: Predictor) -> None:
        self.statistics = RunStatistics()
        self._options = options
        self._predictor = predictor
        self._started = _now()
        self._path = None if options.run_report is None else Path(options.run_report)
        self._gates = Gates(
            max_anomaly_rate=options.max_anomaly_rate,
            max_error_rate=options.max_error_rate,
            min_processed=options.min_processed,
        )
        if self._path is None:
            return
        goes_on = options.force or options.resume or options.watch is not None
        refuse_existing_file(self._path, force=goes_on, is_ours=_looks_like_a_report)
        if predictor.bundle is not None:
            refuse_inside(self._path, predictor.bundle.root, flag="--run-report")

    @contextmanager
    def written_at_the_end(self, tally: Tally) -> Iterator[None]:
        """Write the report after the block, however that ends."""
        try:
            yield
            self._write("stopped" if tally.stopped else "done")
        except BaseException as cause:
            ended = {KeyboardInterrupt: "interrupted", BrokenPipeError: "stopped"}
            with suppress(OSError):  # what ended the block is what matters
                self._write(ended.get(type(cause), "failed"))
            raise

    def missed_gates(self) -> bool:
        """Say on the screen which gates are missed; whether there is one."""
        lines = gate_lines(self.statistics.gate_results(self._gates))
        for line in lines:
            say(line)
        return bool(lines)

    def _write(self, ended: str) -> None:
        if self._path is None:
            return
        text = json.dumps(self._to_json(ended), indent=2, allow_nan=False)
        write_text(self._path, text + "\n")

    def _to_json(self, ended: str) -> dict[str, Any]:
        predictor, options = self._predictor, self._options
        bundle = predictor.bundle
        about = None if bundle is None else bundle.config.bundle
        roi, regions = predictor.settings.roi, predictor.settings.regions
        return {
            "schema_version": REPORT_SCHEMA_VERSION,
            "kind": "run_report",
            "started": self._started,
            "finished": _now(),
            "ended": ended,
            "bundle": {
                "path": options.bundle,
                "name": None if about is None else about.name,
                "version": None if about is None else about.version,
                "sha256": None if bundle is None else bundle.sha256,
            },
            "category": predictor.category,
            "thresholds": {
                "image": predictor.threshold,
                "source": predictor.threshold_source,
                "review_band": options.review_band,
                "pixel": predictor.settings.thresholds.pixel,
            },
            "roi": None if roi is None else asdict(roi),
            "regions": None if regions is None else asdict(regions),
            "output": options.output,
            **self.statistics.to_json(),
            "gates": self.statistics.gate_results(self._gates),
        }


def _looks_like_a_report(head: bytes) -> bool:
    return head.startswith(_BEGINS) and _KIND in head


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
