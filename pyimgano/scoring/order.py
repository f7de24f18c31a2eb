"""What is scored by what, as every worker must know it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Final

SCORE_SCHEMA_VERSION: Final = "1.0"

# What two starts must have in common to go on with each other's parts.
OF_THE_ROWS: Final = {
    "inputs": "--input",
    "root": "--root",
    "column": "--column",
    "bundle_sha256": "--bundle",
    "category": "--category",
    "threshold": "--threshold or --thresholds",
    "threshold_source": "--threshold or --thresholds",
    "thresholds_sha256": "--thresholds",
    "review_band": "--review-band",
    "part_size": "--part-size",
    "jsonl": "--jsonl",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreOrder:
    """What makes rows what they are. How they are computed is not in it."""

    inputs: tuple[str, ...]  # as they were named, paths absolute
    root: str | None
    column: str | None
    bundle_sha256: str
    category: str
    threshold: float
    threshold_source: str
    thresholds_sha256: str | None  # of the file, where one was named
    review_band: float | None
    part_size: int  # inputs
    jsonl: bool  # also as JSON lines

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON."""
        return asdict(self) | {"inputs": list(self.inputs)}

    def differences(self, found: dict[str, Any]) -> list[str]:
        """Say in what the order of an earlier start differs."""
        mine = self.to_json()
        return [
            f"{flag}: found {_shown(found.get(key))}, now {_shown(mine[key])}"
            for key, flag in OF_THE_ROWS.items()
            if found.get(key) != mine[key]
        ]


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
