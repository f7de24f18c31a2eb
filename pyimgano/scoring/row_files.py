"""Rows as the bytes of a file: Parquet, or JSON lines.

Nothing of a row says when, where or how fast it was computed, so two engines write the
same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

# Columns that a row has and a score's has not: they differ from start to start.
LEFT_OUT: Final = ("ms",)

_NUMBERS = pa.list_(pa.float64())
_BOX = pa.list_(pa.int64())
_REGION = pa.struct(
    [
        ("id", pa.int64()),
        ("area", pa.float64()),
        ("bbox", _BOX),
        ("bbox_map", _BOX),
        ("centroid", _NUMBERS),
        ("fill_ratio", pa.float64()),
        ("aspect", pa.float64()),
        ("solidity", pa.float64()),
        ("max_score", pa.float64()),
        ("mean_score", pa.float64()),
        ("polygon", pa.list_(pa.list_(_NUMBERS))),
    ]
)
_ERROR = pa.struct(
    [("code", pa.string()), ("message", pa.string()), ("stage", pa.string())]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("schema_version", pa.string(), nullable=False),
        pa.field("index", pa.int64(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("ok", pa.bool_(), nullable=False),
        pa.field("score", pa.float64()),
        pa.field("p_value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("threshold_source", pa.string()),
        pa.field("label", pa.string()),
        pa.field("decision", pa.string()),
        pa.field("regions", pa.list_(_REGION)),
        pa.field("bundle_sha256", pa.string()),
        pa.field("provider", pa.string()),
        pa.field("error", _ERROR),
    ]
)


def numbered(row: dict[str, Any], index: int) -> dict[str, Any]:
    """Give a row of the runtime as one of a score.

    Args:
        index: its place among all inputs, from 0.
    """
    version, rest = row["schema_version"], dict(row)
    for name in ("schema_version", *LEFT_OUT):
        rest.pop(name, None)
    return {"schema_version": version, "index": index, **rest}


def parquet_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """Give a Parquet file of rows; the same bytes for the same rows."""
    table = pa.Table.from_pylist([_as_text(row) for row in rows], schema=SCHEMA)
    stream = io.BytesIO()
    # zstd: half the size of snappy here, and as fast to read.
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def jsonl_bytes(rows: Sequence[dict[str, Any]]) -> bytes:
    """Give rows as JSON lines."""
    lines = (json.dumps(row, allow_nan=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _as_text(row: dict[str, Any]) -> dict[str, Any]:
    """Give a row whose texts are valid: the name of a file need not be."""
    changed = dict(row)
    changed["input"] = _valid(row["input"])
    if row["error"] is not None:
        error: dict[str, str] = row["error"]
        changed["error"] = {key: _valid(value) for key, value in error.items()}
    return changed


def _valid(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
