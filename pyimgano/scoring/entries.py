"""What is to be scored, as lines of the index: files, and rows of Parquet files.

["photos/1.png", "/data/photos/1.png"]                        one file
{"parquet": "/data/a.parquet", "rows": [0, 1000], ...}        a thousand pictures
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyimgano_runtime.decode import largest_file
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.inputs import Input

from .places import fetch, filesystem, is_url, join

if TYPE_CHECKING:
    import pyarrow.parquet as pq

ROWS_AT_ONCE: Final = 16  # of encoded pictures, each some megabytes


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One picture file."""

    name: str  # `input` of its row
    place: str  # absolute path, or URL

    def __len__(self) -> int:
        return 1

    def inputs(self, rules: InputRules) -> Iterator[Input]:
        """Give it as the runtime takes it."""
        yield file_input(self.name, self.place, rules)


@dataclass(frozen=True, slots=True)
class ParquetEntry:
    """Rows of a Parquet file, a picture each: encoded, or the path of one."""

    file: str  # absolute path, or URL
    start: int
    stop: int
    column: str  # of paths, of encoded pictures, or of structs with `bytes`
    kind: str  # "path", "bytes" or "struct"
    names: str | None  # column of what rows are called; None: FILE#ROW
    shown: str  # the file as it was named
    base: str  # folder that relative paths are of

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> ParquetEntry:
        """Give some of its rows, counted from its first one."""
        facts = asdict(self)
        facts |= {"start": self.start + start, "stop": self.start + stop}
        return ParquetEntry(**facts)

    def inputs(self, rules: InputRules) -> Iterator[Input]:
        """Give each row as the runtime takes it; a few are in memory at a time."""
        for number, row in self._rows():
            value = row[self.column]
            name = row[self.names] if self.names is not None else None
            if self.kind == "struct" and value is not None:
                name = value.get("path") if name is None else name
                value = value.get("bytes")
            text = f"{self.shown}#{number}" if name is None else str(name)
            if value is None:
                yield Input(text, fetch=_Missing(f"{self.shown}#{number}", self.column))
            elif self.kind == "path":
                shown = value if name is None else text
                yield file_input(shown, join(self.base, value), rules)
            else:
                yield Input(text, fetch=EncodedPicture(value))

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        import pyarrow as pa

        columns = [self.column] if self.names is None else [self.column, self.names]
        try:
            with open_parquet(self.file) as parquet:
                if not set(columns) <= set(parquet.schema_arrow.names):
                    raise OSError(f"{self.file}: has no column {' or '.join(columns)}")
                first = 0
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if first < self.stop and first + count > self.start:
                        yield from self._rows_of(parquet, group, first, columns)
                    first += count
        except (OSError, pa.ArrowException) as cause:
            raise OSError(
                f"{self.file}: cannot be read ({cause}); has this Parquet file "
                "changed since it was listed?"
            ) from cause

    def _rows_of(
        self, parquet: pq.ParquetFile, group: int, first: int, columns: list[str]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for batch in parquet.iter_batches(
            batch_size=ROWS_AT_ONCE, row_groups=[group], columns=columns
        ):
            low = max(self.start - first, 0)
            high = min(self.stop - first, batch.num_rows)
            if low < high:
                rows = batch.slice(low, high - low).to_pylist()
                yield from enumerate(rows, first + low)
            first += batch.num_rows


Entry: TypeAlias = FileEntry | ParquetEntry


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """Gives the bytes of a picture that are at hand."""

    data: bytes

    def __call__(self) -> bytes:
        return self.data


@dataclass(frozen=True, slots=True)
class _Missing:
    where: str
    column: str

    def __call__(self) -> bytes:
        raise ImageError(
            f'{self.where}: "{self.column}" is null, expected a picture; leave the row '
            "out",
            code="IMAGE_MISSING",
            stage="read",
        )


@dataclass(frozen=True, slots=True)
class _Url:
    url: str
    limit: int

    def __call__(self) -> bytes:
        return fetch(self.url, limit=self.limit)


def file_input(name: str, place: str, rules: InputRules) -> Input:
    """Give the input of a file by its path or URL."""
    if is_url(place):
        return Input(name, fetch=_Url(place, largest_file(rules)))
    return Input(name, Path(place))


def open_parquet(place: str) -> pq.ParquetFile:
    """Open a Parquet file by its path or URL; its pages are read as they are wanted.

    Raises:
        OSError: it cannot be read.
        pyarrow.ArrowInvalid: it is none.
    """
    import pyarrow.parquet as pq

    if is_url(place):
        files, path = filesystem(place)
        return pq.ParquetFile(path, filesystem=files, pre_buffer=False)
    return pq.ParquetFile(place, memory_map=True, pre_buffer=False)


def to_line(entry: Entry) -> bytes:
    """Give an entry as a line of the index."""
    if isinstance(entry, FileEntry):
        same = entry.name == entry.place
        value: Any = [entry.name] if same else [entry.name, entry.place]
    else:
        value = asdict(entry)
    # ASCII: a file's name need not be valid text.
    return json.dumps(value).encode("ascii") + b"\n"


def from_line(line: bytes) -> Entry:
    """Give the entry of a line of the index."""
    value = json.loads(line)
    if isinstance(value, list):
        return FileEntry(value[0], value[-1])
    return ParquetEntry(**value)
