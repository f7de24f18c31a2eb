"""Files by path or by URL: local ones as ever, others through fsspec.

A URL is "s3://bucket/photos/1.png" or of any other scheme that an installed fsspec
package knows (s3fs, gcsfs, adlfs, ...). Credentials are that package's business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pyimgano_runtime.atomic import write_bytes
from pyimgano_runtime.errors import ConfigError, ImageError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

READ_AT_ONCE: Final = 500  # files
URL: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a path of this machine."""
    return URL.match(place) is not None


def join(base: str, name: str) -> str:
    """Give the place that `name` names from the folder `base`; absolute ones stay."""
    if is_url(name) or Path(name).is_absolute():
        return name
    if is_url(base):
        return f"{base.rstrip('/')}/{name}"
    return str(Path(base, name))


def parent(place: str) -> str:
    """Give the folder that a file lies in."""
    if is_url(place):
        return place.rpartition("/")[0]
    return str(Path(place).absolute().parent)


def filesystem(url: str) -> tuple[AbstractFileSystem, str]:
    """Give the file system of a URL, and the path in it.

    Raises:
        ConfigError: no such scheme, or its package is not installed.
    """
    import fsspec

    try:
        found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as cause:
        raise ConfigError(
            f"{url}: cannot be opened ({cause}); install the package of this kind of "
            "URL (s3:// needs s3fs, gs:// needs gcsfs), or name a path"
        ) from cause
    return found


def url_of(url: str, path: str) -> str:
    """Give the URL of a path in the file system of another URL."""
    scheme = url.partition("://")[0]
    return f"{scheme}://{path.removeprefix(scheme + '://')}"


def fetch(url: str, *, limit: int) -> bytes:
    """Give the bytes of the picture file at a URL.

    Args:
        limit: the most bytes that a picture may have.

    Raises:
        ImageError: of the stage "read".
    """
    files, path = filesystem(url)
    try:
        with files.open(path, "rb") as stream:
            data: bytes = stream.read(limit + 1)
    except FileNotFoundError as cause:
        raise ImageError(
            f"{url}: no such file; check the URL", code="IMAGE_MISSING", stage="read"
        ) from cause
    except OSError as cause:
        raise ImageError(
            f"{url}: cannot be read ({cause}); check the URL and your credentials",
            code="IMAGE_READ_FAILED",
            stage="read",
        ) from cause
    if len(data) > limit:
        raise ImageError(
            f"{url}: more than {limit:,} bytes, too many for a picture; save it "
            "without extra data",
            code="IMAGE_TOO_LARGE",
            stage="read",
        )
    return data


class Folder:
    """A folder, local or at a URL, whose files are complete or absent."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.local = None if is_url(place) else Path(place).absolute()
        self._files: Any = None
        self._root = ""
        if self.local is None:
            self._files, self._root = filesystem(place)

    def __str__(self) -> str:
        return self.place

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole; its folder is made where it is missing."""
        if self.local is not None:
            path = self.local / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
        else:
            # An object appears when it is complete: object stores know no half ones.
            self._files.makedirs(str(self._at(name).parent), exist_ok=True)
            self._files.pipe_file(str(self._at(name)), data)

    def read(self, name: str) -> bytes:
        """Give a file's bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.local is not None:
            return (self.local / name).read_bytes()
        data: bytes = self._files.cat_file(str(self._at(name)))
        return data

    def read_all(self, below: str, names: Sequence[str]) -> dict[str, bytes]:
        """Give the bytes of files of one folder, of a URL many at a time."""
        if self.local is not None:
            return {name: self.read(f"{below}/{name}") for name in names}
        found: dict[str, bytes] = {}
        for first in range(0, len(names), READ_AT_ONCE):
            some = names[first : first + READ_AT_ONCE]
            data = self._files.cat([str(self._at(f"{below}/{name}")) for name in some])
            found |= {PurePosixPath(path).name: data[path] for path in data}
        return found

    def sizes(self, below: str = "") -> dict[str, int]:
        """Give the bytes of each file that lies directly in a folder below this one."""
        if self.local is not None:
            folder = self.local / below
            if not folder.is_dir():
                return {}
            return {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
        self._files.invalidate_cache()  # others write there too
        path = str(self._at(below))
        if not self._files.isdir(path):
            return {}
        return {
            PurePosixPath(entry["name"]).name: entry["size"]
            for entry in self._files.ls(path, detail=True)
            if entry["type"] == "file"
        }

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
        elif self._files.exists(str(self._at(name))):
            self._files.rm_file(str(self._at(name)))

    def remove_all(self) -> None:
        """Delete everything in a folder at a URL."""
        if self._files is not None and self._files.exists(self._root):
            self._files.rm(self._root, recursive=True)

    def _at(self, name: str) -> PurePosixPath:
        return PurePosixPath(self._root, name)
