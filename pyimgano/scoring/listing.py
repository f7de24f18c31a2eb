"""Turns what --input names into entries, one after another.

Lists, manifests and tables are read line by line; the names of one folder, and those
that fit a pattern, are sorted in memory.

| what is named | what is scored |
| --- | --- |
| a folder | its pictures, sorted and recursive; or the rows of its Parquet files |
| "photos/**/*.png" | the files that fit, sorted |
| a picture file | itself |
| .txt or .lst | a list of paths, one a line |
| .jsonl | a manifest, by the `image_path` of its lines |
| .parquet | its rows: encoded pictures, or paths |
"""

from __future__ import annotations

import codecs
import glob
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyimgano_runtime.errors import ConfigError, raise_all
from pyimgano_runtime.sources import PICTURE_SUFFIXES, is_wanted

from .entries import Entry, FileEntry, ParquetEntry, open_parquet
from .places import (
    UnknownScheme,
    as_os_error,
    filesystem,
    is_url,
    join,
    parent,
    require_package,
    url_of,
    version_of,
)

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LISTS: Final = (".txt", ".lst")
MANIFESTS: Final = (".jsonl", ".ndjson")
PARQUET: Final = (".parquet", ".pq")
GLOB: Final = frozenset("*?[")
MAX_SHOWN: Final = 20  # problems in words
ENCODED_COLUMNS: Final = ("image", "image_bytes", "bytes", "encoded", "data")
PATH_COLUMNS: Final = ("path", "image_path", "input", "file", "filename", "uri", "url")
NAME_COLUMNS: Final = ("input", "path", "image_path", "name", "file", "filename", "id")


@dataclass(slots=True)
class Listing:
    """What the arguments of one start name."""

    arguments: Sequence[str]
    category: str  # lines of manifests that name another one are passed by
    root: str | None = None  # folder of relative paths in lists, manifests, Parquet
    column: str | None = None  # of Parquet files; None: chosen by type and name
    skipped: Counter[str] = field(default_factory=Counter)  # by their category
    links: int = 0  # to folders, which are not followed
    remote: bool = False  # whether a picture, or a table of them, is at a URL
    output: str | None = None  # `places.canonical`: nothing that lies in it is taken
    _schemes: set[str] = field(default_factory=set)

    def entries(self) -> Iterator[Entry]:
        """Give what is to be scored, in order.

        Raises:
            ConfigError: an argument that names nothing, or cannot be read.
        """
        for argument in self.arguments:
            n_found, skipped = 0, self.skipped.copy()
            for entry in self._listed(argument):
                n_found += len(entry)
                self._note(entry, argument)
                yield entry
            if not n_found:
                raise ConfigError(self._nothing(argument, self.skipped - skipped))

    def _listed(self, argument: str) -> Iterator[Entry]:
        try:
            with as_os_error():
                yield from self._of(argument)
        except OSError as cause:
            raise ConfigError(
                f"--input {argument}: cannot be read ({cause.strerror or cause}); "
                "check it, its permissions and, of a URL, your credentials"
            ) from cause

    def _note(self, entry: Entry, argument: str) -> None:
        """Note whether it is at a URL; refuse what cannot be read or is of ours."""
        place = entry.place if isinstance(entry, FileEntry) else entry.file
        if self.output is not None and place.startswith(self.output):
            raise ConfigError(
                f"--input {argument}: {place} lies in --output, which would score "
                "what it writes; name an --output that no input names"
            )
        if isinstance(entry, ParquetEntry) and not is_url(place):
            place = entry.base
        if is_url(place):
            self.remote = True
            scheme = place.partition("://")[0]
            if scheme not in self._schemes:
                self._schemes.add(scheme)
                with suppress(UnknownScheme):  # a mistake in this one: its row says so
                    require_package(place)

    def _of(self, argument: str) -> Iterator[Entry]:
        suffix = Path(argument).suffix.lower()
        if _is_folder(argument):
            yield from self._of_folder(argument)
        elif set(argument) & GLOB and not _exists(argument):
            yield from self._of_glob(argument)
        elif suffix in PICTURE_SUFFIXES:
            yield FileEntry(argument, _absolute(argument))  # missing: its row says so
        elif suffix in PARQUET:
            yield from self._of_parquet(argument, argument)
        elif suffix in LISTS:
            yield from self._of_list(argument)
        elif suffix in MANIFESTS:
            yield from self._of_manifest(argument)
        elif not _exists(argument):
            raise ConfigError(
                f"--input {argument}: no such file or folder; check the path"
            )
        else:
            raise ConfigError(
                f"--input {argument}: is none of the kinds that are known by their "
                f"names: a folder, a picture, a list of paths ({', '.join(LISTS)}), a "
                f"manifest ({', '.join(MANIFESTS)}), a Parquet file "
                f"({', '.join(PARQUET)}) or a pattern; rename it"
            )

    def _nothing(self, argument: str, skipped: Counter[str]) -> str:
        if skipped:
            others = ", ".join(sorted(skipped))
            return (
                f'--input {argument}: no line is of category "{self.category}", found '
                f"{others}; name another one by --category, or leave `category` out "
                "of the lines"
            )
        if _is_folder(argument):
            known = " ".join(sorted(PICTURE_SUFFIXES))
            return (
                f"--input {argument}: holds no pictures and no Parquet files; expected "
                f"files that end with {known}"
            )
        if set(argument) & GLOB and not _exists(argument):
            return f"--input {argument}: no file fits this pattern; check it"
        return f"--input {argument}: names no picture; expected at least one"

    def _of_folder(self, folder: str) -> Iterator[Entry]:
        empty, links = True, 0
        for name, place, is_link in _walk(folder):
            if is_link:
                links += 1
            elif is_wanted(Path(name), ()):
                empty = False
                yield FileEntry(name, place)
        self.links += links
        if empty:
            for name, place, is_link in _walk(folder):
                if not is_link and _is_table(Path(name)):
                    yield from self._of_parquet(name, place)

    def _of_glob(self, pattern: str) -> Iterator[Entry]:
        for name, place in _matching(pattern):
            if Path(name).suffix.lower() in PARQUET:
                yield from self._of_parquet(name, place)
            else:
                yield FileEntry(name, place)

    def _base(self, file: str) -> str:
        base = parent(file) if self.root is None else self.root
        return base if is_url(base) else str(Path(base).absolute())

    def _of_list(self, file: str) -> Iterator[Entry]:
        base = self._base(file)
        for _, line in _lines(file):
            if line:
                name = os.fsdecode(line)
                yield FileEntry(name, join(base, name))

    def _of_manifest(self, file: str) -> Iterator[Entry]:
        base = self._base(file)
        problems: list[str] = []
        for number, line in _lines(file):
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            name, category, problem = _manifest_line(text)
            if problem:
                problems.append(f"{file}:{number}: {problem}")
                if len(problems) >= MAX_SHOWN:
                    break
            elif category is not None and category != self.category:
                self.skipped[category] += 1
            else:
                yield FileEntry(name, join(base, name))
        raise_all(problems)

    def _of_parquet(self, name: str, place: str) -> Iterator[Entry]:
        place = _absolute(place)
        with _opened(name, place) as (parquet, version):
            column, kind = image_column(parquet.schema_arrow, name, self.column)
            # A row of a path is called by it.
            names = None if kind == "path" else _name_column(parquet.schema_arrow)
            rows = parquet.metadata.num_rows
        base = self._base(place)
        if rows:
            yield ParquetEntry(place, 0, rows, column, kind, names, name, base, version)


def fixed_head(argument: str) -> tuple[str, bool]:
    """Give the folder that a pattern begins in; anything else as it is.

    Returns:
        (place, whether it is a pattern).
    """
    if not set(argument) & GLOB or (not is_url(argument) and _exists(argument)):
        return argument, False
    fixed = argument[: min(argument.find(c) for c in GLOB if c in argument)]
    if is_url(argument):
        scheme, _, inside = fixed.partition("://")
        return f"{scheme}://{inside.rpartition('/')[0]}", True
    return fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else "."), True


def image_column(schema: pa.Schema, file: str, named: str | None) -> tuple[str, str]:
    """Give the column of the pictures, and its kind: "path", "bytes" or "struct".

    Raises:
        ConfigError: no column, several, or one of another type.
    """
    kinds = {field.name: _kind(field.type) for field in schema}
    known = {
        name: kind
        for name, kind in kinds.items()
        if kind is not None and schema.names.count(name) == 1
    }
    told = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if named is not None:
        if known.get(named) is None:
            raise ConfigError(
                f"{file}: --column {named}: expected a column of bytes or of paths, "
                f"found {told}"
            )
        return named, known[named]
    encoded = [name for name, kind in known.items() if kind != "path"]
    for candidates in (
        [name for name in ENCODED_COLUMNS if name in encoded],
        encoded if len(encoded) == 1 else [],
        [name for name in PATH_COLUMNS if known.get(name) == "path"],
    ):
        if candidates:
            return candidates[0], known[candidates[0]]
    raise ConfigError(
        f"{file}: which column holds the pictures or their paths? Name it by --column; "
        f"found {told}"
    )


def _kind(type: pa.DataType) -> str | None:
    import pyarrow.types as types

    if types.is_dictionary(type):
        type = type.value_type
    if _is_bytes(type):
        return "bytes"
    if _is_text(type):
        return "path"
    if types.is_struct(type):
        inside = {field.name: field.type for field in type}
        if _is_bytes(inside.get("bytes")) and (
            "path" not in inside or _is_text(inside["path"])
        ):
            return "struct"
    return None


def _is_bytes(type: pa.DataType | None) -> bool:
    return str(type) in ("binary", "large_binary", "binary_view")


def _is_text(type: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(type):
        type = type.value_type
    return str(type) in ("string", "large_string", "string_view")


def _name_column(schema: pa.Schema) -> str | None:
    """Give the column of what encoded pictures are called: of text or of integers."""
    import pyarrow.types as types

    for name in NAME_COLUMNS:
        if schema.names.count(name) == 1:
            type = schema.field(name).type
            if _kind(type) == "path" or types.is_integer(type):
                return name
    return None


@contextmanager
def _opened(name: str, place: str) -> Iterator[tuple[pq.ParquetFile, str]]:
    """Give a Parquet file, and which version of it."""
    import pyarrow as pa

    try:
        version, parquet = version_of(place), open_parquet(place)
    except (OSError, pa.ArrowInvalid) as cause:
        reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        raise ConfigError(
            f"--input {name}: cannot be read as Parquet ({reason}); check the file"
        ) from cause
    with parquet:
        yield parquet, version


def _manifest_line(text: bytes) -> tuple[str, str | None, str | None]:
    """Give (path, category, problem) of a line."""
    try:
        row = json.loads(text)
    except ValueError as cause:
        return "", None, f"is no JSON ({cause}), expected a line of a manifest"
    path = row.get("image_path") if isinstance(row, dict) else None
    if not isinstance(path, str) or not path:
        return "", None, 'has no "image_path", expected the path of a picture'
    category = row.get("category")
    if category is not None and not isinstance(category, str):
        return "", None, f'"category" is {category!r}, expected text'
    return path, category, None


def _lines(file: str) -> Iterator[tuple[int, bytes]]:
    try:
        with _stream(file) as stream:
            for number, line in enumerate(stream, 1):
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                yield number, text.rstrip(b"\r\n")
    except OSError as cause:
        raise ConfigError(
            f"--input {file}: cannot be read ({cause.strerror or cause}); check the "
            "path and its permissions"
        ) from cause


def _stream(file: str) -> Any:
    if is_url(file):
        files, path = filesystem(file)
        return files.open(path, "rb")
    return Path(file).open("rb")


def _absolute(name: str) -> str:
    return name if is_url(name) else str(Path(name).absolute())


def _is_folder(place: str) -> bool:
    if is_url(place):
        if set(place) & GLOB:
            return False
        files, path = filesystem(place)
        return bool(files.isdir(path))
    with suppress(OSError):  # such as a name that is too long: its row says why
        return Path(place).is_dir()
    return False


def _exists(place: str) -> bool:
    if is_url(place):
        files, path = filesystem(place)
        return bool(files.exists(path))
    with suppress(OSError):
        return Path(place).exists()
    return False


def _matching(pattern: str) -> Iterator[tuple[str, str]]:
    if is_url(pattern):
        files, path = filesystem(pattern)
        for found, facts in sorted(files.glob(path, detail=True).items()):
            if facts["type"] == "file":
                yield url_of(files, found), url_of(files, found)
        return
    for name in sorted(glob.iglob(pattern, recursive=True)):  # noqa: PTH207 - Path.glob takes no absolute pattern
        if _is_taken(Path(name)):
            yield name, str(Path(name).absolute())


def _is_table(inside: Path) -> bool:
    return inside.suffix.lower() in PARQUET and not inside.name.startswith((".", "_"))


def _is_taken(path: Path) -> bool:
    """Whether it is a file, or a link that leads to nothing: its row says so."""
    try:
        return path.is_file() or (path.is_symlink() and not path.exists())
    except OSError:
        return True  # such as a link to a name that is too long


def _walk(folder: str) -> Iterator[tuple[str, str, bool]]:
    """Give (name, absolute place, whether it is a link to a folder) of each file.

    Sorted by path, folder by folder. Links to folders are not followed.
    """
    if is_url(folder):
        files, path = filesystem(folder)
        for found in files.find(path):  # sorted; as a list, as fsspec gives it
            yield url_of(files, found), url_of(files, found), False
        return
    base = str(Path(folder).absolute())
    waiting = _listed(base, "")
    while waiting:
        inside, kind = waiting.pop()
        if kind == "folder":
            waiting += _listed(base, f"{inside}/")
        elif kind != "other":
            yield str(Path(folder, inside)), f"{base}/{inside}", kind == "link"


def _listed(base: str, inside: str) -> list[tuple[str, str]]:
    """Give what lies in a folder, last name first, and of what kind it is."""
    try:
        with os.scandir(f"{base}/{inside}") as scan:
            found = [(f"{inside}{entry.name}", _kind_of(entry)) for entry in scan]
    except OSError as cause:
        raise ConfigError(
            f"{cause.filename}: cannot be listed ({cause.strerror}); check its "
            "permissions"
        ) from cause
    return sorted(found, reverse=True)


def _kind_of(entry: os.DirEntry[str]) -> str:
    """Say "folder", "link" (to a folder), "file" or "other" (a pipe, a device)."""
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    with suppress(OSError):  # a link in a circle, or to what may not be seen
        if entry.is_dir():
            return "link"
    return "file" if _is_taken(Path(entry.path)) else "other"
