"""The output folder: rows in parts, and what a restart needs to go on.

    DIR/  part-000000.parquet ...      rows; no other Parquet file lies here
          _score.json  _report.json    what was asked for; what came of it
          _index/part-000000.list      the inputs of a part
                 part-000000.done      counts: the part is complete
                 part-000000.attempts  how often it was begun, while it is not complete
          _jsonl/part-000000.jsonl     the same rows, with --jsonl

Names that begin with "_" are passed by where a folder is read as one table. Inputs are
listed once, at the first start: a folder that grows meanwhile changes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple

from pyimgano_runtime._reader import dump_json
from pyimgano_runtime.errors import ConfigError, OutputError, PyimganoError

from ..source_date import timestamp
from .entries import Entry, ParquetEntry, from_line, to_line
from .order import SCORE_SCHEMA_VERSION, ScoreOrder
from .places import Folder

ORDER: Final = "_score.json"
REPORT: Final = "_report.json"
INDEX: Final = "_index"
JSONL: Final = "_jsonl"
OURS: Final = frozenset((ORDER, REPORT, INDEX, JSONL))

# Names of ours in the folder, in INDEX and in JSONL; ".x.new" are half written.
PARTS: Final = re.compile(r"part-\d{6,}\.parquet")
RECORDS: Final = re.compile(r"part-\d{6,}\.(list|done|attempts)")
LINES: Final = re.compile(r"part-\d{6,}\.jsonl")
NEW: Final = re.compile(
    r"\.(part-\d{6,}\.(parquet|list|done|attempts|jsonl)|_(score|report)\.json)"
    r"\.\d+\.new"
)
COUNTS: Final = ("parquet_bytes", "rows", "ok", "anomaly", "normal", "review")


def part_name(number: int) -> str:
    """Give the name of a part, without its ending."""
    return f"part-{number:06}"


def planned_rows(number: int, part_size: int, n_inputs: int) -> int:
    """Give how many rows a part has: the last one has what is left."""
    return min(part_size, n_inputs - number * part_size)


class Attempts(NamedTuple):
    """How often a part was begun and did not end."""

    ever: int  # in all starts of the command
    now: int  # in this one: then it was not the command that was killed


class ScoreFolder:
    """The files of one `pyimgano score`."""

    def __init__(self, place: str) -> None:
        self.files = Folder(place)
        self._was_there = True

    @contextmanager
    def errors_as(self, kind: type[PyimganoError]) -> Iterator[None]:
        """Let a failure to read or write the folder be an error that names it."""
        try:
            yield
        except OSError as cause:
            named = cause.filename is not None and cause.strerror is not None
            reason = f"{cause.filename}: {cause.strerror}" if named else str(cause)
            raise kind(
                f"--output {self.files}: cannot be written ({reason}); make room, or "
                "name a folder in a place you may write to; what is finished stays"
            ) from cause

    def begin(
        self,
        order: ScoreOrder,
        *,
        force: bool,
        before_deleting: Callable[[], None] = lambda: None,
    ) -> dict[str, Any] | None:
        """Make the folder, or give the document of an earlier start to go on with.

        Args:
            before_deleting: called before `force` deletes rows; raises where a mistake
                in the inputs would leave nothing in their place.

        Returns:
            None where the inputs are still to be listed.

        Raises:
            ConfigError: the folder holds something else, or the rows of other settings.
        """
        local = self.files.local
        self._was_there = local is None or os.path.lexists(local)
        found = self._document()
        if found is None or force:
            self._refuse_foreign(found)
            if found is not None:
                before_deleting()
            self._begin_anew(order)
            return None
        self._refuse_other_tables()
        different = order.differences(found["order"])
        if different:
            lines = "\n".join(f"  - {line}" for line in different)
            raise ConfigError(
                f"{self.files}: holds rows of other settings:\n{lines}\nname another "
                "--output, or pass --force to replace it"
            )
        if found["state"] != "listed":  # it was cut short, maybe while it deleted
            self._begin_anew(order)
            return None
        return found

    def _begin_anew(self, order: ScoreOrder) -> None:
        # The order first: if deleting is cut short, nothing that is left counts as a
        # row or as a list of it.
        self._write_order(order, {"state": "listing"})
        self._clear_rows()

    def clear(self) -> None:
        """Delete what this command has written, and nothing else."""
        self._clear_rows()
        self.files.remove(ORDER)  # the last: until then all of it is ours

    def _clear_rows(self) -> None:
        for below, ours in (("", PARTS), (JSONL, LINES), (INDEX, RECORDS)):
            names = sorted(self.files.names(below))
            mine = [n for n in names if ours.fullmatch(n) or NEW.fullmatch(n)]
            self.files.remove_each(below, mine)
            if below:
                self.files.remove_if_empty(below)
        self.files.remove(REPORT)

    def discard(self) -> None:
        """Delete the folder, as far as this command has made it."""
        self.clear()
        if not self._was_there:
            self.files.remove_if_empty()

    def _refuse_foreign(self, found: dict[str, Any] | None) -> None:
        """Refuse a folder with anything in it that this command did not write."""
        top = self.files.names()
        foreign = sorted(n for n in top if not NEW.fullmatch(n))
        if found is not None:
            foreign = [n for n in foreign if n not in OURS and not PARTS.fullmatch(n)]
            for below, ours in ((INDEX, RECORDS), (JSONL, LINES)):
                names = sorted(self.files.names(below)) if below in top else []
                foreign += [
                    f"{below}/{n}"
                    for n in names
                    if not ours.fullmatch(n) and not NEW.fullmatch(n)
                ]
        if not foreign:
            return
        more = f" and {len(foreign) - 1:,} more" if len(foreign) > 1 else ""
        deleted = " and which --force does not delete" if found is not None else ""
        raise ConfigError(
            f"{self.files}: already holds {foreign[0]}{more}, which this command did "
            f"not write{deleted}; name another --output"
        )

    def _refuse_other_tables(self) -> None:
        """Refuse Parquet files among the rows that are not of them."""
        names = sorted(n for n in self.files.sizes() if n.endswith(".parquet"))
        others = [n for n in names if not PARTS.fullmatch(n)]
        if others:
            raise ConfigError(
                f"{self.files}: holds {others[0]}, which would be read as rows of "
                "this command; move it elsewhere"
            )

    def _document(self) -> dict[str, Any] | None:
        try:
            data = self.files.read(ORDER)
        except FileNotFoundError:
            return None
        except NotADirectoryError as cause:
            raise ConfigError(
                f"{self.files}: is a file, expected a folder; name another --output"
            ) from cause
        try:
            document: dict[str, Any] = json.loads(data)
            version = str(document["schema_version"])
            known = {"order", "state"}
            if document["state"] == "listed":
                known |= {"n_inputs", "n_parts", "skipped", "links", "remote"}
            if not known <= set(document):
                raise ValueError
        except (ValueError, KeyError, TypeError) as cause:
            raise ConfigError(
                f"{self.files}/{ORDER}: was not written by this command; name another "
                "--output"
            ) from cause
        if version.split(".")[0] != SCORE_SCHEMA_VERSION.split(".")[0]:
            raise ConfigError(
                f"{self.files}/{ORDER}: schema_version {version}, expected "
                f"{SCORE_SCHEMA_VERSION}; use the program that wrote it, or name "
                "another --output"
            )
        return document

    def _write_order(self, order: ScoreOrder, facts: dict[str, Any]) -> dict[str, Any]:
        document = {
            "schema_version": SCORE_SCHEMA_VERSION,
            "kind": "score",
            "order": order.to_json(),
            "started": timestamp(),
            **facts,
        }
        self.files.write(ORDER, _as_bytes(document))
        return document

    def write_index(
        self,
        order: ScoreOrder,
        entries: Iterable[Entry],
        *,
        listed: Callable[[int], None],
        facts: Callable[[], dict[str, Any]],
    ) -> dict[str, Any]:
        """Write the index of all inputs; give the document that says how many.

        Args:
            listed: told how many there are so far.
            facts: gives, at the end, what else the document shall hold.

        Raises:
            OutputError: it cannot be written.
        """
        parts = n_inputs = 0
        for lines, count in _parts(entries, order.part_size):
            with self.errors_as(OutputError):
                self.files.write(f"{INDEX}/{part_name(parts)}.list", b"".join(lines))
            parts += 1
            n_inputs += count
            listed(n_inputs)
        counts = {"state": "listed", "n_inputs": n_inputs, "n_parts": parts}
        with self.errors_as(OutputError):
            return self._write_order(order, counts | facts())

    def entries(self, number: int) -> list[Entry]:
        """Give the inputs of a part."""
        data = self.files.read(f"{INDEX}/{part_name(number)}.list")
        return [from_line(line) for line in data.splitlines()]

    def begin_part(self, number: int, start: str) -> Attempts:
        """Note that a part is begun; give how often it was begun before.

        Args:
            start: what names this start of the command.
        """
        name = f"{INDEX}/{part_name(number)}.attempts"
        before = Attempts(0, 0)
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            known = json.loads(self.files.read(name))
            same = known["start"] == start
            before = Attempts(int(known["all"]), int(known["now"]) if same else 0)
        now = {"start": start, "now": before.now + 1, "all": before.ever + 1}
        self.files.write(name, json.dumps(now).encode())
        return before

    def forget_attempts(self, number: int) -> None:
        """Note that a part was not ended by what is in it."""
        self.files.remove(f"{INDEX}/{part_name(number)}.attempts")

    def finish_part(
        self, number: int, parquet: bytes, jsonl: bytes | None, counts: dict[str, Any]
    ) -> None:
        """Write the rows of a part, and that it is complete."""
        name = part_name(number)
        if jsonl is not None:
            self.files.write(f"{JSONL}/{name}.jsonl", jsonl)
        self.files.write(f"{name}.parquet", parquet)
        done = counts | {"parquet_bytes": len(parquet)}
        if jsonl is not None:
            done["jsonl_bytes"] = len(jsonl)
        self.files.write(f"{INDEX}/{name}.done", json.dumps(done).encode())
        self.files.remove(f"{INDEX}/{name}.attempts")

    def finished(self, *, part_size: int, n_inputs: int) -> dict[int, dict[str, Any]]:
        """Give the counts of each complete part.

        A part is complete if its files have the length that its record says, and the
        record says as many rows as it has inputs.
        """
        rows, lines = self.files.sizes(), self.files.sizes(JSONL)
        names = [file for file in self.files.sizes(INDEX) if file.endswith(".done")]
        found = {}
        for file, record in self.files.read_all(INDEX, names).items():
            name, done = file.removesuffix(".done"), _counts(record)
            if done is None:
                continue  # damaged: scored again
            number, n_lines = int(name.removeprefix("part-")), done.get("jsonl_bytes")
            if (
                rows.get(f"{name}.parquet") == done["parquet_bytes"]
                and (n_lines is None or lines.get(f"{name}.jsonl") == n_lines)
                and done["rows"] == planned_rows(number, part_size, n_inputs)
            ):
                found[number] = done
        return found

    def sweep(self) -> None:
        """Delete what killed workers had begun to write."""
        for below in ("", INDEX, JSONL):
            for name in self.files.sizes(below):
                if NEW.fullmatch(name):
                    self.files.remove(f"{below}/{name}" if below else name)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write what came of it."""
        self.files.write(REPORT, _as_bytes(report))


def _as_bytes(document: dict[str, Any]) -> bytes:
    # Names of files need not be valid text: "\\udcff" is how JSON writes such a part.
    return dump_json(document).encode("utf-8", "backslashreplace")


def _counts(record: bytes) -> dict[str, Any] | None:
    """Give what a ".done" file says; None where it is damaged."""
    try:
        done = json.loads(record)
        whole = all(type(done[key]) is int for key in COUNTS)
        whole &= all(
            {"count", "first_input", "first_message"} <= set(error)
            for error in done["errors"].values()
        )
        whole &= done["peak_rss_mb"] is None or done["peak_rss_mb"] >= 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return done if whole else None


def _parts(
    entries: Iterable[Entry], part_size: int
) -> Iterator[tuple[list[bytes], int]]:
    """Give the lines of each part and how many inputs they are."""
    lines: list[bytes] = []
    count = 0
    for entry in entries:
        taken = 0
        while taken < len(entry):
            piece = entry
            room = part_size - count
            if isinstance(entry, ParquetEntry) and len(entry) > 1:
                piece = entry.part(taken, min(taken + room, len(entry)))
            lines.append(to_line(piece))
            taken += len(piece)
            count += len(piece)
            if count == part_size:
                yield lines, count
                lines, count = [], 0
    if lines:
        yield lines, count
