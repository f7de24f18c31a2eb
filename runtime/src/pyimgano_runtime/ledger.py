"""The ledger of `infer --output FILE`: one row an input, across kills and restarts.

Rows are appended to `FILE.partial` and handed to the system one by one. FILE appears by
a rename when every input has its row; a watched folder is never done, so its rows go to
FILE at once. `.FILE.ledger` beside it says with what settings the rows were made.
`.FILE.lock` is held by the process that writes, and freed by the system however that
process ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from .atomic import only_writer, refuse_existing_file, write_bytes, write_text
from .errors import ConfigError, OutputError
from .inputs import FileState, Input, Inputs
from .row_format import RowFormat, looks_like_rows, read_rows
from .row_output import refuse_inside

LEDGER_SCHEMA_VERSION: Final = "1.0"


class Ledger:
    """Takes rows into a file and knows which inputs have one."""

    to_file: Final = True

    def __init__(self, output: str, form: RowFormat, *, watched: bool) -> None:
        self.path = Path(output)
        if not self.path.name:
            raise ConfigError(f'--output "{output}": is a folder, expected a file')
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self._about = self.path.with_name(f".{self.path.name}.ledger")
        self._at_work = self.path if watched else self.partial
        self._form = form
        self._watched = watched
        self._resumes = watched
        # Digests of inputs that have a row: names would be long.
        self.done: set[bytes] = set()  # of a watched folder
        self._rows = Counter[bytes]()  # of all else: an input may be named twice
        self._size = 0  # bytes of whole rows
        self._file = -1
        self.cut_short = False  # set where inputs were left
        self._about_before: bytes | None = None  # of a file that is there and done

    @contextmanager
    def locked(self, *, resume: bool, force: bool) -> Iterator[Ledger]:
        """Hold the file for this process, once nothing speaks against writing to it.

        Raises:
            ConfigError: another process writes to it; or it exists and neither
                `resume` nor `force` is given, or is no file of rows.
        """
        self._resumes = resume or self._watched
        for path in (self.path, self.partial):  # whatever happens to it, it is ours
            refuse_existing_file(path, force=True, is_ours=looks_like_rows)
        with only_writer(self.path, "file"):
            if self._watched:
                self._refuse_partial("finish it by --resume without --watch")
            elif not self._resumes and not force:
                self._refuse_existing()
                self._refuse_partial("--resume goes on with it, --force begins anew")
            yield self

    def keep_out_of(self, bundle: Path) -> None:
        """Refuse to write into a bundle's folder.

        Raises:
            ConfigError: the file would lie in it.
        """
        refuse_inside(self.path, bundle)

    def begin(
        self, settings: dict[str, Any], on_row: Callable[[dict[str, Any]], None]
    ) -> None:
        """Take over the rows that are there, or begin with none.

        Args:
            settings: everything that a row depends on besides its input: JSON values.
            on_row: told each row that is there.

        Raises:
            ConfigError: those rows were made with other settings, or are damaged.
        """
        found = self._found() if self._resumes else None
        if found is not None and found.stat().st_size > 0:
            self._refuse_other_settings(found, settings)
            self._recover(found, on_row)
            if found != self._at_work:
                found.rename(self._at_work)
        else:
            older = not self._watched and self.path.exists()
            if older and self._about.exists():
                self._about_before = self._about.read_bytes()
            # Empty first: what follows then belongs to it, not to an older FILE.
            self._at_work.write_bytes(b"")
            about = {"schema_version": LEDGER_SCHEMA_VERSION, "kind": "ledger"}
            text = json.dumps(about | {"settings": settings}, indent=1)
            write_text(self._about, text + "\n")

    def without_done(self, inputs: Inputs) -> Iterator[Input | None]:
        """Give the inputs that have no row yet, each as often as it is named."""
        for item in inputs:
            if item is not None:
                digest = input_digest(item.name, item.state)
                if digest in self._rows:
                    self._rows[digest] -= 1
                    if self._rows[digest] == 0:
                        del self._rows[digest]
                    continue
            yield item

    def __enter__(self) -> Ledger:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        self._file = os.open(self._at_work, flags, 0o666)
        os.ftruncate(self._file, self._size)
        if self._size == 0 and self._form.head:
            self._append(self._form.head.encode())
        return self

    def write(self, row: dict[str, Any]) -> None:
        """Append one row; it is with the system when this returns."""
        text = self._form.text(row, "utf-8")
        self._append(text.encode())

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            os.fsync(self._file)
            # An interrupt may have come after a row was written and before it was
            # counted in _size: the file itself says whether it has one.
            has_rows = self._has_rows(os.fstat(self._file).st_size)
        finally:
            os.close(self._file)
        if kind is None and not self._watched and (has_rows or not self.cut_short):
            self._at_work.replace(self.path)
        elif not has_rows:  # as if never begun
            self._at_work.unlink()
            if self._about_before is None:
                self._about.unlink(missing_ok=True)
            else:
                write_bytes(self._about, self._about_before)

    def _has_rows(self, size: int) -> bool:
        return size > len(self._form.head)

    def _append(self, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as cause:
            os.ftruncate(self._file, self._size)  # no half of a row stays
            room = cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            raise OutputError(
                f"{self._at_work}: cannot be written ({cause.strerror}); the rows so "
                f"far are kept: {'make room' if room else 'mend that'} and go on "
                "by --resume"
            ) from cause
        self._size += len(data)

    def _refuse_existing(self) -> None:
        if self.path.exists():
            raise ConfigError(
                f"{self.path}: already exists and nothing is overwritten; --resume "
                "goes on with its rows, --force replaces them, or name another file"
            )

    def _refuse_partial(self, way_out: str) -> None:
        # One that was stopped before its first row may have left an empty file.
        if self.partial.exists() and self._has_rows(self.partial.stat().st_size):
            raise ConfigError(
                f"{self.partial}: holds the rows of a run that was stopped; {way_out}"
            )

    def _found(self) -> Path | None:
        """Give the file with the rows that are there, if there is one."""
        found = [path for path in (self._at_work, self.path) if path.exists()]
        return found[0] if found else None

    def _refuse_other_settings(self, found: Path, settings: dict[str, Any]) -> None:
        before = _flat(self._settings_before(found))
        settings = _flat(json.loads(json.dumps(settings)))  # as the file has them
        names = sorted({*before, *settings})
        different = [
            f"{name} {_told(before, name)} there and {_told(settings, name)} now"
            for name in names
            if before.get(name) != settings.get(name)
        ]
        if different:
            raise ConfigError(
                f"{found}: its rows were made with other settings ("
                + "; ".join(different)
                + "); use those settings again, or name another --output"
            )

    def _settings_before(self, found: Path) -> dict[str, Any]:
        try:
            about = json.loads(self._about.read_bytes())
            version, settings = about["schema_version"], about["settings"]
        except FileNotFoundError as cause:
            raise ConfigError(
                f"{self._about}: is missing, so nothing says how the rows of {found} "
                "were made; name another --output, or begin anew by --force"
            ) from cause
        except (ValueError, KeyError, TypeError) as cause:
            raise ConfigError(
                f"{self._about}: is damaged, so nothing says how the rows of {found} "
                "were made; name another --output, or begin anew by --force"
            ) from cause
        if str(version).split(".")[0] != LEDGER_SCHEMA_VERSION.split(".")[0]:
            raise ConfigError(
                f"{self._about}: schema_version {version}, expected "
                f"{LEDGER_SCHEMA_VERSION}; use the program that wrote it"
            )
        return dict(settings)

    def _recover(self, found: Path, on_row: Callable[[dict[str, Any]], None]) -> None:
        with found.open("rb") as stream:
            head = stream.read(len(self._form.head)).decode("utf-8", "replace")
            if head != self._form.head:
                if not self._form.head.startswith(head):  # else torn in its first line
                    raise ConfigError(
                        f"{found}: has other columns than this program writes; name "
                        "another --output"
                    )
                return
            stream.seek(0)
            self._size = len(self._form.head)
            for row, end in read_rows(stream, self._form, str(found)):
                digest = input_digest(row["input"], _state_of(row))
                if self._watched:
                    self.done.add(digest)
                else:
                    self._rows[digest] += 1
                self._size = end
                on_row(row)


def input_digest(name: str, state: FileState | None) -> bytes:
    """Give 16 bytes that stand for an input: its name, and the version of its file."""
    known = name.encode("utf-8", "backslashreplace")
    if state is not None:
        known += b"\0%d\0%d" % (state.size, state.mtime_us)
    return hashlib.blake2b(known, digest_size=16).digest()


def _state_of(row: dict[str, Any]) -> FileState | None:
    file = row.get("file")
    return FileState(file["size"], file["mtime_us"]) if isinstance(file, dict) else None


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """Give settings with the members of an object under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        members = value.items() if isinstance(value, dict) else [(None, value)]
        for member, own in members:
            flat[name if member is None else f"{name}.{member}"] = own
    return flat


def _told(settings: dict[str, Any], name: str) -> str:
    return json.dumps(settings.get(name), ensure_ascii=False)
