"""Files by path or by URL: local ones as ever, others through fsspec.

A URL is "s3://bucket/photos/1.png" or of any other scheme that an installed fsspec
package knows (s3fs, gcsfs, adlfs, ...). Credentials are that package's business.
"file:///data" is the path /data. Chains of URLs ("zip://a.png::s3://...") are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from pyimgano_runtime.atomic import write_bytes
from pyimgano_runtime.errors import ConfigError, ImageError, PyimganoError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

AT_ONCE: Final = 500  # files
# Here a file appears when it is complete; elsewhere a kill may leave half of one.
WHOLE_FILES: Final = frozenset(
    ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "memory")
)
# What says in fsspec's facts of a file that it is another version of it.
VERSIONS: Final = (
    *("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified"),
    *("mtime", "updated", "created"),
)
URL: Final = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(place: str) -> bool:
    """Whether a place is a URL rather than a path of this machine."""
    return URL.match(place) is not None


class UnknownScheme(ConfigError):
    """A URL of a scheme that nobody knows: a mistake in that URL."""


class MissingPackage(ConfigError):
    """A URL whose package is not installed: a mistake of this machine."""


def plain(place: str) -> str:
    """Give a place as given, and a "file://" URL as the path that it is."""
    for scheme in ("file://", "local://"):
        if place.startswith(f"{scheme}/"):
            return place.removeprefix(scheme)
    return place


def join(base: str, name: str) -> str:
    """Give the place that `name` names from the folder `base`; absolute ones stay."""
    name = plain(name)
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
        UnknownScheme: no such scheme, or a chain of URLs.
        MissingPackage: the package of this scheme is not installed.
        ConfigError: it cannot be opened.
    """
    import fsspec

    require_package(url)
    try:
        with as_os_error():
            found: tuple[AbstractFileSystem, str] = fsspec.core.url_to_fs(url)
    except OSError as cause:
        raise ConfigError(
            f"{url}: cannot be opened ({cause}); check the URL and your credentials"
        ) from cause
    return found


def require_package(url: str) -> None:
    """Refuse a URL that nothing here can open, whatever is at it.

    Raises:
        UnknownScheme: no such scheme, or a chain of URLs.
        MissingPackage: the package of this scheme is not installed.
    """
    import fsspec

    if "::" in url:
        raise UnknownScheme(
            f"{url}: is a chain of URLs, expected one; unpack the archive first"
        )
    try:
        fsspec.get_filesystem_class(url.partition("://")[0])
    except ValueError as cause:
        raise UnknownScheme(f"{url}: cannot be opened ({cause}); check it") from cause
    except ImportError as cause:
        raise MissingPackage(
            f"{url}: cannot be opened ({cause}); install the package of this kind of "
            "URL (s3:// needs s3fs, gs:// needs gcsfs), or name a path"
        ) from cause


def canonical(place: str) -> str:
    """Give a place with its links followed and a "/" behind, to compare beginnings.

    Raises:
        ConfigError: a URL that cannot be opened.
    """
    if not is_url(place):
        return os.path.realpath(place).rstrip("/") + "/"
    files, path = filesystem(place)
    names = files.protocol
    scheme = names if isinstance(names, str) else names[0]
    inside = PurePosixPath("/" + path).as_posix().strip("/")
    return f"{scheme}://{inside}/" if inside else f"{scheme}://"


def url_of(files: AbstractFileSystem, path: str) -> str:
    """Give the URL of a path in a file system."""
    url: str = files.unstrip_protocol(path)
    return url


def version_of(place: str) -> str:
    """Give what differs when a file has changed: its size, and its time or digest.

    Raises:
        OSError: it cannot be read.
    """
    if not is_url(place):
        stat = Path(place).stat()
        return f"{stat.st_size}:{stat.st_mtime_ns}"
    files, path = filesystem(place)
    facts = files.info(path)
    said = next((facts[key] for key in VERSIONS if facts.get(key)), None)
    return f"{facts.get('size')}:{said}"


def fetch(url: str, *, limit: int) -> bytes:
    """Give the bytes of the picture file at a URL.

    Args:
        limit: the most bytes that a picture may have.

    Raises:
        ImageError: of the stage "read".
    """
    try:
        files, path = filesystem(url)
        with as_os_error(), files.open(path, "rb") as stream:
            data: bytes = stream.read(limit + 1)
    except FileNotFoundError as cause:
        raise ImageError(
            f"{url}: no such file; check the URL", code="IMAGE_MISSING", stage="read"
        ) from cause
    except MissingPackage:
        raise  # of the machine, not of this picture
    except ConfigError as error:
        raise ImageError(str(error), code="IMAGE_READ_FAILED", stage="read") from error
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
        self._scheme = place.partition("://")[0]
        if self.local is None:
            if set(place) & set("*?["):
                raise ConfigError(
                    f"{place}: holds one of * ? [, which fsspec takes for a pattern; "
                    "name another folder"
                )
            self._files, self._root = filesystem(place)

    def __str__(self) -> str:
        return self.place

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole; its folder is made where it is missing.

        Raises:
            OSError: with the file's name.
        """
        try:
            if self.local is not None:
                path = self.local / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_bytes(path, data)
            else:
                self._write_url(self._at(name), data)
        except OSError as cause:
            if cause.errno is None or cause.filename is not None:
                raise
            where = f"{str(self).rstrip('/')}/{name}"
            raise OSError(cause.errno, cause.strerror, where) from cause

    def _write_url(self, path: PurePosixPath, data: bytes) -> None:
        with as_os_error(self.place):
            self._write_whole(path, data)

    def _write_whole(self, path: PurePosixPath, data: bytes) -> None:
        self._files.makedirs(str(path.parent), exist_ok=True)
        if self._scheme in WHOLE_FILES:
            self._files.pipe_file(str(path), data)
            return
        new = path.with_name(f".{path.name}.{os.getpid()}.new")
        self._files.pipe_file(str(new), data)
        try:
            with as_os_error(self.place):
                self._files.mv(str(new), str(path))
        except OSError:  # such as of HDFS, which replaces nothing
            if not self._files.exists(str(path)):
                raise
            self._files.rm_file(str(path))
            self._files.mv(str(new), str(path))

    def read(self, name: str) -> bytes:
        """Give a file's bytes.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.local is not None:
            return (self.local / name).read_bytes()
        with as_os_error(self.place):
            data: bytes = self._files.cat_file(str(self._at(name)))
        return data

    def read_all(self, below: str, names: Sequence[str]) -> dict[str, bytes]:
        """Give the bytes of files of one folder, of a URL many at a time."""
        if self.local is not None:
            return {name: self.read(f"{below}/{name}") for name in names}
        found: dict[str, bytes] = {}
        for some in _some(names):
            paths = [str(self._at(f"{below}/{name}")) for name in some]
            with as_os_error(self.place):
                data = self._files.cat(paths)
            found |= {PurePosixPath(path).name: data[path] for path in data}
        return found

    def sizes(self, below: str = "") -> dict[str, int]:
        """Give the bytes of each file that lies directly in a folder below this one."""
        if self.local is not None:
            folder = self.local / below
            if not folder.is_dir():
                return {}
            return {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
        return {
            name: entry["size"]
            for name, entry in self._listed(below).items()
            if entry["type"] == "file"
        }

    def names(self, below: str = "") -> set[str]:
        """Give the names of all that lies directly in a folder below this one."""
        if self.local is not None:
            folder = self.local / below
            return {p.name for p in folder.iterdir()} if folder.is_dir() else set()
        return set(self._listed(below))

    def _listed(self, below: str) -> dict[str, dict[str, Any]]:
        path = str(self._at(below))
        with as_os_error(self.place):
            self._files.invalidate_cache()  # others write there too
            if not self._files.isdir(path):
                return {}
            found = self._files.ls(path, detail=True)
        # A folder may be listed in itself: an empty object that stands for it.
        own = path.strip("/")
        return {
            PurePosixPath(entry["name"]).name: entry
            for entry in found
            if entry["name"].strip("/") != own
        }

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.local is not None:
            (self.local / name).unlink(missing_ok=True)
            return
        with as_os_error(self.place):
            if self._files.exists(str(self._at(name))):
                self._files.rm_file(str(self._at(name)))

    def remove_each(self, below: str, names: Sequence[str]) -> None:
        """Delete files of one folder that are there, of a URL many at a time."""
        if self.local is not None:
            for name in names:
                self.remove(f"{below}/{name}" if below else name)
            return
        for some in _some(names):
            with as_os_error(self.place):
                self._files.rm([str(self._at(below) / name) for name in some])

    def remove_if_empty(self, below: str = "") -> None:
        """Delete a folder below this one, or this one, that has nothing in it."""
        with suppress(OSError):
            if self.local is not None:
                (self.local / below).rmdir()
            elif self._scheme not in WHOLE_FILES and not self.names(below):
                self._files.rmdir(str(self._at(below)))

    def _at(self, name: str) -> PurePosixPath:
        return PurePosixPath(self._root, name)


@contextmanager
def as_os_error(place: str | None = None) -> Iterator[None]:
    """Let what fsspec's packages raise be an OSError.

    They are plug-ins, found by the scheme, with kinds of errors of their own.

    Args:
        place: named in front, where the caller does not.
    """
    try:
        yield
    except (OSError, MemoryError, PyimganoError):
        raise
    except Exception as cause:
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise OSError(said if place is None else f"{place}: {said}") from cause


def _some(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(names), AT_ONCE):
        yield names[first : first + AT_ONCE]
