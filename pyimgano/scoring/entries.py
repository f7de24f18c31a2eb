"""What is to be scored, as lines of the index: files, and rows of Parquet files.

["photos/1.png", "/data/photos/1.png"]                        one file
{"parquet": "/data/a.parquet", "rows": [0, 1000], ...}        a thousand pictures
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pyimgano_runtime.decode import largest_file
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.inputs import Input

from .places import fetch, filesystem, is_url, join, version_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROWS_AT_ONCE: Final = 16  # of encoded pictures, each some megabytes


class InputLost(OSError):
    """What was listed is not there as it was: it ends its part, and no other one."""


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
    version: str  # of the file when it was listed, by `places.version_of`

    def __len__(self) -> int:
        return self.stop - self.start

    def part(self, start: int, stop: int) -> ParquetEntry:
        """Give some of its rows, counted from its first one."""
        facts = asdict(self)
        facts |= {"start": self.start + start, "stop": self.start + stop}
        return ParquetEntry(**facts)

    def inputs(self, rules: InputRules) -> Iterator[Input]:
        """Give each row as the runtime takes it; a few are in memory at a time.

        Raises:
            InputLost: the file cannot be read any more, or is another version of it.
        """
        for number, picture, name in self._rows():
            where = f"{self.shown}#{number}"
            if isinstance(picture, str):
                if not picture:
                    yield Input(where, fetch=_Missing(where, self.column, "empty"))
                    continue
                place = join(self.base, picture)
                yield file_input(picture if name is None else name, place, rules)
            elif picture is None:
                text = where if name is None else name
                yield Input(text, fetch=_Missing(where, self.column, "null"))
            else:
                text = where if name is None else name
                yield Input(text, fetch=EncodedPicture(picture))

    def _rows(self) -> Iterator[tuple[int, bytes | str | None, str | None]]:
        """Give (number, encoded picture or its path, name) of each row."""
        import pyarrow as pa

        try:
            self._refuse_other_version()
            with open_parquet(self.file) as parquet:
                first = 0
                for group in range(parquet.num_row_groups):
                    count = parquet.metadata.row_group(group).num_rows
                    if first < self.stop and first + count > self.start:
                        yield from self._rows_of(parquet, group, first)
                    first += count
            self._refuse_other_version()  # written to while it was read
        except (OSError, pa.ArrowException) as cause:
            raise InputLost(
                f"{self.file}: cannot be read as it was listed ({cause}); has this "
                "Parquet file changed since? Put it back as it was, with its time, or "
                "score what it holds now into another --output"
            ) from cause

    def _refuse_other_version(self) -> None:
        found = version_of(self.file)
        if found != self.version:
            raise OSError(f"size and time or digest: then {self.version}, now {found}")

    def _rows_of(
        self, parquet: pq.ParquetFile, group: int, first: int
    ) -> Iterator[tuple[int, bytes | str | None, str | None]]:
        columns = [self.column] if self.names is None else [self.column, self.names]
        for batch in parquet.iter_batches(
            batch_size=ROWS_AT_ONCE, row_groups=[group], columns=columns
        ):
            low = max(self.start - first, 0)
            high = min(self.stop - first, batch.num_rows)
            if low < high:
                some = batch.slice(low, high - low)
                names: list[str | None] = [None] * some.num_rows
                if self.names is not None:
                    names = _texts(some.column(self.names))
                pictures, own = self._pictures(some.column(self.column))
                if self.kind == "struct" and self.names is None:
                    names = own
                numbers = range(first + low, first + high)
                yield from zip(numbers, pictures, names, strict=True)
            first += batch.num_rows

    def _pictures(
        self, column: pa.Array
    ) -> tuple[Sequence[bytes | str | None], list[str | None]]:
        """Give the pictures of a column, or their paths, and its own names of them."""
        nothing: list[str | None] = [None] * len(column)
        if self.kind == "path":
            return _texts(column), nothing
        if self.kind == "bytes":
            return column.to_pylist(), nothing
        fields = {field.name: n for n, field in enumerate(column.type)}
        parts = column.flatten()  # null where the struct is
        encoded = parts[fields["bytes"]].to_pylist()
        paths = _texts(parts[fields["path"]]) if "path" in fields else nothing
        # A path without bytes is a picture that was not embedded.
        both = zip(encoded, paths, strict=True)
        return [path if data is None else data for data, path in both], paths


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
    found: str

    def __call__(self) -> bytes:
        raise ImageError(
            f'{self.where}: "{self.column}" is {self.found}, expected a picture; leave '
            "the row out",
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


def _texts(column: pa.Array) -> list[str | None]:
    """Give the texts of a column, as names of files: they need not be valid text."""
    import pyarrow as pa
    import pyarrow.types as types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_integer(column.type):
        column = column.cast(pa.string())
    found = column.cast(pa.large_binary()).to_pylist()
    return [None if one is None else os.fsdecode(one) for one in found]


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
