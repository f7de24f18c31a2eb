"""What came out of a run of `infer`: counts, percentiles, errors, gates.

The report is one JSON file, complete or absent. Numbers over many rows stay small in
memory: percentiles are exact up to 10,000 rows, and of a uniform sample above that.
"""

from __future__ import annotations

import math
import random
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from .quick_dataclass import dataclass

REPORT_SCHEMA_VERSION: Final = "1.0"
PERCENTS: Final = (1, 5, 50, 95, 99)
STEPS: Final = ("decode", "infer", "post", "total")
SAMPLE_SIZE: Final = 10_000

NEXT_STEPS: Final = {
    "DECODER_MISSING": "pip install opencv-python-headless, or save pictures as PNG",
    "FRAME_TRUNCATED": "check the size given by --frames, and what writes the frames",
    "IMAGE_BIT_DEPTH": "convert all pictures by one fixed scale, such as pixel // 256",
    "IMAGE_COLOR_SPACE": "convert the pictures to RGB",
    "IMAGE_DTYPE": "save uint8 pixels 0..255, by one fixed scale for all pictures",
    "IMAGE_EMPTY": "rename files in when they are complete, or raise --settle",
    "IMAGE_FRAMES": "save each picture of the file as a file of its own",
    "IMAGE_MISSING": "keep files until their row is written",
    "IMAGE_NOT_A_FILE": "name picture files; a folder is an INPUT of its own",
    "IMAGE_READ_FAILED": "check the disk and the permissions of the files",
    "IMAGE_SHAPE": "save (height, width, 3) RGB or (height, width) grey",
    "IMAGE_SIZE": "set the camera as it was in training",
    "IMAGE_TOO_LARGE": "crop or shrink the pictures, as in training",
    "IMAGE_TOO_SMALL": "use larger pictures, as in training",
    "IMAGE_TRUNCATED": "copy the files again; rename them in when they are complete",
    "IMAGE_UNREADABLE": "save the files again as PNG, JPEG, BMP or TIFF",
    "INFERENCE_FAILED": 'run "pyimgano-runtime check" on the bundle',
    "OUT_OF_MEMORY": "use smaller pictures or fewer --decode-workers",
    "NOTHING_JUDGED": "judge pictures of the shape that trained, or a larger --roi",
    "SCORE_NOT_FINITE": 'run "pyimgano-runtime check" on the bundle',
    "VIDEO_ENDED": "check the camera's cable and power, and start again",
}


@dataclass(frozen=True, slots=True)
class Gates:
    """What a run must keep to; None where nobody asks."""

    max_anomaly_rate: float | None = None  # labels "anomaly" of the pictures scored
    max_error_rate: float | None = None  # error rows of all rows
    min_processed: int | None = None  # pictures scored


class RunStatistics:
    """Counts rows as they come, and gives what the report says of them."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self._scores = _Sample()
        self._ms = {step: _Sample() for step in STEPS}
        self._errors: dict[str, dict[str, Any]] = {}
        self._anomaly_labels = 0

    def add(self, row: dict[str, Any]) -> None:
        """Count one row."""
        self.counts["inputs"] += 1
        if not row["ok"]:
            self._add_error(row)
            return
        self.counts["ok"] += 1
        self.counts[row["decision"]] += 1
        self._anomaly_labels += row["label"] == "anomaly"
        self._scores.add(row["score"])
        for step, sample in self._ms.items():
            sample.add(row["ms"][step])

    def _add_error(self, row: dict[str, Any]) -> None:
        self.counts["failed"] += 1
        error = row["error"]
        known = self._errors.setdefault(
            error["code"],
            {
                "code": error["code"],
                "stage": error["stage"],
                "count": 0,
                "next_step": NEXT_STEPS.get(error["code"], "see the message"),
                "first_input": row["input"],
                "first_message": error["message"],
            },
        )
        known["count"] += 1

    def gate_results(self, gates: Gates) -> list[dict[str, Any]]:
        """Give each gate that was asked for, what was found, and whether it is kept.

        A rate of nothing is unknown, and an unknown one is not kept.
        """
        inputs, scored = self.counts["inputs"], self.counts["ok"]
        anomaly_rate = self._anomaly_labels / scored if scored else None
        error_rate = self.counts["failed"] / inputs if inputs else None
        found: list[tuple[str, float | None, float | None, bool]] = []
        for name, limit, value in (
            ("max_anomaly_rate", gates.max_anomaly_rate, anomaly_rate),
            ("max_error_rate", gates.max_error_rate, error_rate),
        ):
            kept = limit is not None and value is not None and value <= limit
            found.append((name, limit, value, kept))
        least = gates.min_processed
        found.append(
            ("min_processed", least, scored, least is not None and scored >= least)
        )
        return [
            {"gate": name, "limit": limit, "found": value, "kept": kept}
            for name, limit, value, kept in found
            if limit is not None
        ]

    def to_json(self) -> dict[str, Any]:
        """Give counts, percentiles and errors."""
        names = ("inputs", "ok", "failed", "anomaly", "normal", "review")
        errors = sorted(self._errors.values(), key=lambda e: (-e["count"], e["code"]))
        return {
            "counts": {name: self.counts[name] for name in names},
            "score": self._scores.to_json(),
            "ms": {step: sample.to_json() for step, sample in self._ms.items()},
            "errors": errors,
        }


def gate_lines(results: Iterable[dict[str, Any]]) -> list[str]:
    """Give a line for the person at the screen for each gate that is not kept."""
    lines = []
    for result in results:
        if result["kept"]:
            continue
        flag = "--" + result["gate"].replace("_", "-")
        value = result["found"]
        found = "no picture" if value is None else f"{value:.6g}"
        lines.append(f"gate missed: {flag} {result['limit']:g}, found {found}")
    return lines


class _Sample:
    """A uniform sample of numbers that arrive one by one (Vitter's algorithm R)."""

    def __init__(self) -> None:
        self._values = array("d")
        self._seen = 0
        self._low, self._high = math.inf, -math.inf
        self._random = random.Random(0)

    def add(self, value: float) -> None:
        self._seen += 1
        self._low, self._high = min(self._low, value), max(self._high, value)
        if len(self._values) < SAMPLE_SIZE:
            self._values.append(value)
            return
        place = self._random.randrange(self._seen)
        if place < SAMPLE_SIZE:
            self._values[place] = value

    def to_json(self) -> dict[str, Any] | None:
        """Give smallest, percentiles (by nearest rank) and largest."""
        if not self._seen:
            return None
        ordered = sorted(self._values)
        told = {"min": self._low}
        for percent in PERCENTS:
            rank = max(1, math.ceil(len(ordered) * percent / 100))
            told[f"p{percent}"] = ordered[rank - 1]
        return told | {"max": self._high}
