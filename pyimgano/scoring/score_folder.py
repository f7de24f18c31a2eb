"""The output folder: rows in parts, and what a restart needs to go on.

    DIR/  part-000000.parquet ...      rows; no other Parquet file lies here
          _score.json  _report.json    what was asked for; what came of it
          _index/part-000000.list      the inputs of a part
                 part-000000.done      counts: the part is complete
                 part-000000.attempts  how often it was begun, while it is not
          _jsonl/part-000000.jsonl     the same rows, with --jsonl

Names that begin with "_" are passed by where a folder is read as one table. Inputs are
listed once, at the first start: a folder that grows meanwhile changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pyimgano_runtime._reader import dump_json
from pyimgano_runtime.atomic import delete_folder, refuse_existing, refuse_replacing
from pyimgano_runtime.errors import ConfigError

from ..source_date import timestamp
from .entries import Entry, ParquetEntry, from_line, to_line
from .order import SCORE_SCHEMA_VERSION, ScoreOrder
from .places import Folder

ORDER: Final = "_score.json"
REPORT: Final = "_report.json"
INDEX: Final = "_index"
JSONL: Final = "_jsonl"


def part_name(number: int) -> str:
    """Give the name of a part, without its ending."""
    return f"part-{number:06}"


class ScoreFolder:
    """The files of one `pyimgano score`."""

    def __init__(self, place: str) -> None:
        self.files = Folder(place)

    def begin(
        self, order: ScoreOrder, *, force: bool, keep: Sequence[Path]
    ) -> dict[str, Any] | None:
        """Make the folder, or give the document of an earlier start to go on with.

        Args:
            keep: what `force` may not delete: inputs and bundle.

        Returns:
            None where the inputs are still to be listed.

        Raises:
            ConfigError: the folder holds something else, or the rows of other settings.
        """
        found = self._document()
        local = self.files.local
        if force:
            if local is not None:
                refuse_replacing(local, force=True, keep=keep)
            else:
                self._refuse_foreign(found)
            self.discard()
            found = None
        if found is None:
            if local is not None:
                refuse_existing(local, force=False)
            elif self.files.sizes():
                self._refuse_foreign(None)
            self._write_order(order, {"state": "listing"})
            return None
        different = order.differences(found["order"])
        if different:
            lines = "\n".join(f"  - {line}" for line in different)
            raise ConfigError(
                f"{self.files}: holds rows of other settings:\n{lines}\nname another "
                "--output, or pass --force to replace it"
            )
        return found if found["state"] == "listed" else None

    def discard(self) -> None:
        """Delete the folder."""
        if self.files.local is not None:
            delete_folder(self.files.local)
        else:
            self.files.remove_all()

    def _refuse_foreign(self, found: dict[str, Any] | None) -> None:
        if found is None and self.files.sizes():
            raise ConfigError(
                f"{self.files}: already holds files that this command did not write; "
                "name another --output"
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
            document["order"], document["state"]
        except (ValueError, KeyError, TypeError) as cause:
            raise ConfigError(
                f"{self.files}/{ORDER}: was not written by this command; name another "
                "--output"
            ) from cause
        return document

    def _write_order(self, order: ScoreOrder, facts: dict[str, Any]) -> dict[str, Any]:
        document = {
            "schema_version": SCORE_SCHEMA_VERSION,
            "kind": "score",
            "order": order.to_json(),
            "started": timestamp(),
            **facts,
        }
        self.files.write(ORDER, dump_json(document).encode())
        return document

    def write_index(
        self,
        order: ScoreOrder,
        entries: Iterable[Entry],
        *,
        listed: Callable[[int], None],
        skipped: Callable[[], dict[str, int]],
    ) -> dict[str, Any]:
        """Write the index of all inputs; give the document that says how many.

        Args:
            listed: told how many there are so far.
            skipped: gives, at the end, how many were passed by, by category.
        """
        parts = n_inputs = 0
        for lines, count in _parts(entries, order.part_size):
            self.files.write(f"{INDEX}/{part_name(parts)}.list", b"".join(lines))
            parts += 1
            n_inputs += count
            listed(n_inputs)
        facts = {"state": "listed", "n_inputs": n_inputs, "n_parts": parts}
        return self._write_order(order, facts | {"skipped": skipped()})

    def entries(self, number: int) -> list[Entry]:
        """Give the inputs of a part."""
        data = self.files.read(f"{INDEX}/{part_name(number)}.list")
        return [from_line(line) for line in data.splitlines()]

    def begin_part(self, number: int) -> int:
        """Note that a part is begun; give how often it was begun before."""
        name = f"{INDEX}/{part_name(number)}.attempts"
        try:
            before = int(self.files.read(name) or b"0")
        except FileNotFoundError:
            before = 0
        self.files.write(name, str(before + 1).encode())
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

    def finished(self) -> dict[int, dict[str, Any]]:
        """Give the counts of each complete part; damaged ones are not complete."""
        rows, lines = self.files.sizes(), self.files.sizes(JSONL)
        names = [file for file in self.files.sizes(INDEX) if file.endswith(".done")]
        found = {}
        for file, record in self.files.read_all(INDEX, names).items():
            name, done = file.removesuffix(".done"), json.loads(record)
            whole = rows.get(f"{name}.parquet") == done["parquet_bytes"]
            size = done.get("jsonl_bytes")
            if whole and (size is None or lines.get(f"{name}.jsonl") == size):
                found[int(name.removeprefix("part-"))] = done
        return found

    def sweep(self) -> None:
        """Delete what killed workers had begun to write."""
        for below in ("", INDEX, JSONL):
            for name in self.files.sizes(below):
                if name.startswith(".") and name.endswith(".new"):
                    self.files.remove(f"{below}/{name}" if below else name)

    def write_report(self, report: dict[str, Any]) -> None:
        """Write what came of it."""
        self.files.write(REPORT, dump_json(report).encode())


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
