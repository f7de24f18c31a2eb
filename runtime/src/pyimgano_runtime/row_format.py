"""Rows as text, JSONL or CSV, and back again: a ledger reads what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final, TypeAlias

from .errors import ConfigError

FORMATS: Final = ("jsonl", "csv")
COLUMNS: Final = (
    *("schema_version", "input", "category", "ok", "score", "p_value", "threshold"),
    *("threshold_source", "label", "decision", "regions"),
    *("ms.decode", "ms.infer", "ms.post", "ms.total"),
    *("bundle_sha256", "provider", "error.code", "error.message", "error.stage"),
)
WATCH_COLUMNS: Final = ("file.size", "file.mtime_us")
_NUMBERS: Final = frozenset(
    (
        *("score", "p_value", "threshold", *WATCH_COLUMNS),
        *("ms.decode", "ms.infer", "ms.post", "ms.total"),
    )
)


class JsonLines:
    """One JSON object a line."""

    head: Final = ""  # what a file begins with

    def text(self, row: dict[str, Any], encoding: str) -> str:
        """Give a row as one line, with its end, that the encoding can hold."""
        return json_in(row, encoding) + "\n"

    def records(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Give what stands in a file, record by record; the last may be torn."""
        return iter(lines)

    def row(self, record: bytes) -> dict[str, Any] | None:
        """Give the row of a record; None where it is none, or torn."""
        if not record.endswith(b"\n"):
            return None
        try:
            row = json.loads(record)
        except ValueError:  # UnicodeDecodeError is one
            return None
        return row if isinstance(row, dict) and _is_row(row) else None


class Csv:
    """One line a row under a line of names; `ms.total` is `total` of `ms`."""

    def __init__(self, columns: Sequence[str] = COLUMNS) -> None:
        self.columns = tuple(columns)
        self.head = ",".join(self.columns) + "\n"

    def text(self, row: dict[str, Any], encoding: str) -> str:
        import csv
        import io

        stream = io.StringIO()
        cells = [_cell(row, column) for column in self.columns]
        csv.writer(stream, lineterminator="\n").writerow(cells)
        return stream.getvalue().encode(encoding, "backslashreplace").decode(encoding)

    def records(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        record = b""
        for line in lines:
            record += line
            if record.count(b'"') % 2 == 0:  # else a cell goes on in the next line
                yield record
                record = b""
        if record:
            yield record

    def row(self, record: bytes) -> dict[str, Any] | None:
        if not record.endswith(b"\n"):
            return None
        import csv

        try:
            (cells,) = csv.reader([record.decode("utf-8")])
            flat = {
                name: _value(name, cell)
                for name, cell in zip(self.columns, cells, strict=True)
            }
        except (ValueError, csv.Error):
            return None
        row = _nested(flat)
        return row if _is_row(row) else None


RowFormat: TypeAlias = JsonLines | Csv


def row_format(name: str, *, watched: bool = False) -> RowFormat:
    """Give a format by its name; a watched file's rows have two columns more."""
    if name == "csv":
        return Csv((*COLUMNS, *WATCH_COLUMNS) if watched else COLUMNS)
    return JsonLines()


def json_in(value: Any, encoding: str, *, indent: int | None = None) -> str:
    """Give JSON in an encoding: a file's name need not be valid text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def read_rows(
    stream: BinaryIO, form: RowFormat, name: str
) -> Iterator[tuple[dict[str, Any], int]]:
    """Give each row of a file and the offset where it ends; a torn last one not.

    Args:
        name: what errors call the file.

    Raises:
        ConfigError: something that is no row, before the last one.
    """
    records = form.records(stream)
    end = bad = number = 0
    if form.head:
        end = len(next(records, b""))
        number = 1
    for record in records:
        number += 1
        if bad:
            raise ConfigError(
                f"{name}: line {bad} is no row of this program; mend or remove that "
                "line, or name another file"
            )
        row = form.row(record)
        end += len(record)
        if row is None:
            bad = number
        else:
            yield row, end


def looks_like_rows(head: bytes) -> bool:
    """Whether a file begins as `rows.py` begins its first row, or with half of that."""
    import re

    from .rows import ROW_SCHEMA_VERSION

    jsonl = rb'\{"schema_version": "[0-9.]+", "input": "'
    if re.match(jsonl + rb"|schema_version,input,", head):
        return True
    ours = f'{{"schema_version": "{ROW_SCHEMA_VERSION}", "input": "'.encode()
    return ours.startswith(head) or b"schema_version,input,".startswith(head)


def _is_row(row: dict[str, Any]) -> bool:
    return isinstance(row.get("input"), str) and isinstance(row.get("ok"), bool)


def _cell(row: dict[str, Any], column: str) -> Any:
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, (bool, list)):
        return json.dumps(value)  # true, false; regions
    return value


def _value(column: str, cell: str) -> Any:
    if cell == "":
        return None
    if column == "regions":
        return json.loads(cell)
    if column == "ok":
        return {"true": True, "false": False}.get(cell)
    if column in WATCH_COLUMNS:
        return int(cell)
    return float(cell) if column in _NUMBERS else cell


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for column, value in flat.items():
        outer, _, inner = column.partition(".")
        if not inner:
            row[outer] = value
        elif value is not None:
            row[outer] = (row.get(outer) or {}) | {inner: value}
        else:
            row.setdefault(outer, None)
    return row
