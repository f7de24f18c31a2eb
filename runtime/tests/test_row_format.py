"""Rows as JSONL and CSV: what is written is read back."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.row_format import (
    COLUMNS,
    WATCH_COLUMNS,
    looks_like_rows,
    read_rows,
    row_format,
)

SCORED: dict[str, Any] = {
    "schema_version": "1.1",
    "input": 'a "b",\nc.png',
    "category": "part",
    "ok": True,
    "score": 40.123456789,
    "p_value": None,
    "threshold": 100.0,
    "threshold_source": "bundle: conformal",
    "label": "normal",
    "decision": "review",
    "regions": [{"id": 1, "bbox": [0, 1, 2, 3]}],
    "ms": {"decode": 1.5, "infer": 2.0, "post": 0.25, "total": 3.75},
    "bundle_sha256": "ab" * 32,
    "provider": None,
    "error": None,
    "file": {"size": 12, "mtime_us": 1_764_000_000_123_456},
}
FAILED = SCORED | {
    **{
        "ok": False,
        "score": None,
        "label": None,
        "decision": None,
        "ms": None,
        "regions": None,
    },
    "error": {"code": "IMAGE_EMPTY", "message": "0 bytes, really", "stage": "decode"},
}


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_rows_come_back_as_they_were(name: str) -> None:
    form = row_format(name, watched=True)
    text = form.head + form.text(SCORED, "utf-8") + form.text(FAILED, "utf-8")
    found = list(read_rows(io.BytesIO(text.encode()), form, "rows"))
    assert [row for row, _ in found] == [SCORED, FAILED]
    assert found[-1][1] == len(text.encode())


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_a_file_torn_anywhere_gives_its_whole_rows(name: str) -> None:
    form = row_format(name, watched=True)
    first, second = (form.text(row, "utf-8").encode() for row in (SCORED, FAILED))
    whole = len(form.head) + len(first)
    for cut in range(len(second)):
        data = form.head.encode() + first + second[:cut]
        found = list(read_rows(io.BytesIO(data), form, "rows"))
        assert [(row["ok"], end) for row, end in found] == [(True, whole)]


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_something_else_between_rows_is_refused_with_its_line(name: str) -> None:
    form = row_format(name, watched=True)
    data = form.head + "nonsense\n" + form.text(SCORED, "utf-8")
    line = 1 + bool(form.head)
    with pytest.raises(ConfigError, match=f"^rows: line {line} is no row"):
        list(read_rows(io.BytesIO(data.encode()), form, "rows"))


def test_csv_has_one_flat_column_a_value() -> None:
    form = row_format("csv")
    text = form.head + form.text(SCORED, "utf-8")
    head, cells = csv.reader(io.StringIO(text))
    assert tuple(head) == COLUMNS
    row = dict(zip(head, cells, strict=True))
    assert (row["ok"], row["p_value"], row["ms.total"]) == ("true", "", "3.75")
    assert row["error.code"] == ""
    assert not set(head) & set(WATCH_COLUMNS)


def test_a_name_that_is_no_text_is_written_all_the_same() -> None:
    row = SCORED | {"input": "\udcff.png"}
    assert row_format("csv").text(row, "utf-8").count("\\udcff.png") == 1
    form = row_format("jsonl")
    assert form.row(form.text(row, "utf-8").encode()) == row


@pytest.mark.parametrize(
    ("head", "ours"),
    [
        (b'{"schema_version": "1.0", "input": "a.png", ', True),
        (b"schema_version,input,category", True),
        (b'{"schema_version": "1.1", "inp', True),
        (b"", True),
        (b'{"schema_version": "1.0", "categories": {"input": 1}}', False),
        (b"\x89PNG\r\n", False),
        (b"half of a download", False),
    ],
)
def test_a_file_of_rows_is_known_by_its_head(head: bytes, ours: bool) -> None:
    assert looks_like_rows(head) is ours
