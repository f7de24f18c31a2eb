"""Complete or absent: files by atomic rename, folders by swap.

A folder `out` is written as `.out.new`, the old one renamed to `.out.old`, the new
one into place, the old one renamed to `.out.gone` and deleted. So `.out.old` is
complete whenever it is there, and a kill at any moment leaves the old state or the
new one. One writer at a time: it holds `.out.lock`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from .errors import ConfigError

# One of these lies at the top of every folder that we write.
MADE_BY_US: Final = (
    *("report.json", "infer_config.json", "overview.html", "_score.json"),
)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is complete or absent, even across a crash."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with LF line ends, complete or absent."""
    write_bytes(path, text.encode("utf-8"))


def finish_swap(folder: Path) -> None:
    """Put a folder in place whose swap was interrupted; for readers, deletes nothing.

    Raises:
        ConfigError: the name is too long, or the place may not be read.
    """
    folder = _placed(folder)
    try:
        if os.path.lexists(folder) or not _beside(folder, "old").exists():
            return
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be read ({error.strerror})") from error
    # A writer at work will finish by itself, and where we may not write, the next
    # writer does it.
    with suppress(ConfigError, OSError), only_writer(folder):
        _put_in_place(folder)


@contextmanager
def new_folder(
    folder: Path, *, force: bool = False, keep: Sequence[Path] = ()
) -> Iterator[Path]:
    """Give a folder to fill that takes `folder`'s place when the block succeeds.

    Raises:
        ConfigError: see `refuse_replacing`; or another process writes to `folder`,
            or the place cannot be written.
    """
    folder = _placed(folder)
    new, old, gone = (_beside(folder, name) for name in ("new", "old", "gone"))
    with _cannot_be_written(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        with _cannot_be_written(folder):
            _put_in_place(folder)
            refuse_replacing(folder, force=force, keep=keep)
            _clean_up(new, old, gone)
            new.mkdir()
        try:
            yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        try:
            refuse_replacing(folder, force=force, keep=keep)
        except ConfigError as error:
            raise ConfigError(
                f"{error}; what was made meanwhile is complete in {new}, move it "
                "before the next start"
            ) from error
        with _cannot_be_written(folder):
            _swap(folder, new, old, gone)


def refuse_existing(folder: Path, *, force: bool) -> None:
    """Refuse an output folder that exists, unless `force` lets us write into it.

    Raises:
        ConfigError: the folder exists and `force` is not set; or it is a file, or
            its name is too long.
    """
    with _cannot_be_written(folder):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ConfigError(
                f"{folder}: is a file or a link, expected a folder to make; "
                "name another output folder"
            )
        if folder.exists() and any(folder.iterdir()) and not force:
            raise ConfigError(
                f"{folder}: already exists and nothing is overwritten; "
                "name another output folder or pass --force to replace it"
            )


def refuse_existing_file(
    path: Path, *, force: bool, is_ours: Callable[[bytes], bool]
) -> None:
    """Refuse an output file that exists, unless `force` lets us replace it.

    Args:
        is_ours: told the first 4096 bytes, says whether it is a file of the kind that
            is to be written. Another one is never replaced.

    Raises:
        ConfigError: the file exists and `force` is not set, or it is another kind of
            file, a folder, a link or a device; its folder does not exist, or its name
            is too long.
    """
    with _cannot_be_written(path):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise ConfigError(
                f"{path}: is a folder, a link or a device, expected a file to write; "
                "name another output file"
            )
        if path.exists() and not force:
            raise ConfigError(
                f"{path}: already exists and nothing is overwritten; name another "
                "output file or pass --force to replace it"
            )
        if path.exists():
            with path.open("rb") as stream:
                head = stream.read(4096)
            if head and not is_ours(head):
                raise ConfigError(
                    f"{path}: is a file of another kind, which is never replaced; name "
                    "another output file"
                )
        if not path.parent.is_dir():
            raise ConfigError(
                f"{path}: {path.parent} is no folder; make it first, or name a file "
                "in another one"
            )


def refuse_replacing(folder: Path, *, force: bool, keep: Sequence[Path] = ()) -> None:
    """Refuse an output folder that may not be deleted to make place for a new one.

    Args:
        keep: files and folders that are still needed; the working directory always is.

    Raises:
        ConfigError: see `refuse_existing`; or the folder is or holds something of
            `keep`, or it is none that we wrote.
    """
    folder = _placed(folder)
    refuse_existing(folder, force=force)
    with _cannot_be_written(folder):
        with suppress(FileNotFoundError, NotADirectoryError):
            _beside(folder, "lock").lstat()  # a longer name than the folder's own
        if not folder.is_dir():
            return
        for path in (*keep, *_working_directory()):
            if _holds(folder, path):
                raise ConfigError(
                    f"{folder}: replacing it would delete {path}, which is still "
                    "needed; name another output folder"
                )
        ours = any((folder / name).is_file() for name in MADE_BY_US)
        if not ours and any(folder.iterdir()):
            raise ConfigError(
                f"{folder}: is not a folder that this program wrote (none of "
                f"{', '.join(MADE_BY_US)} at its top), so --force does not delete it; "
                "name another output folder"
            )


def delete_folder(folder: Path) -> None:
    """Delete a folder that may be deleted: at once by name, then what is in it.

    A kill in between leaves `.<name>.gone`, which the next call deletes.
    """
    gone = _beside(_placed(folder), "gone")
    with _cannot_be_written(folder):
        if gone.exists():
            shutil.rmtree(gone)
        if folder.exists():
            _delete(_placed(folder), gone)


def _holds(folder: Path, path: Path) -> bool:
    """Tell whether `path`, as written or with its links followed, is in `folder`."""
    # By identity: another spelling, another case or a second mount is the same folder.
    for place in {path.absolute(), path.resolve()}:
        for above in (place, *place.parents):
            with suppress(OSError):  # what does not exist is not deleted
                if above.samefile(folder):
                    return True
    return False


def _working_directory() -> list[Path]:
    with suppress(FileNotFoundError):  # it was deleted under us
        return [Path.cwd()]
    return []


def _put_in_place(folder: Path) -> None:
    """Finish a swap that was interrupted between its renames."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    if old.exists() and not os.path.lexists(folder):
        # Killed between the first two renames. The new folder was complete by then.
        (new if new.exists() else old).rename(folder)


def _clean_up(new: Path, old: Path, gone: Path) -> None:
    """Delete what an earlier process left."""
    if gone.exists():
        shutil.rmtree(gone)
    _delete(old, gone)  # before half of `.new` is deleted beside a complete `.old`
    if new.exists():
        shutil.rmtree(new)


def _swap(folder: Path, new: Path, old: Path, gone: Path) -> None:
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    _delete(old, gone)


def _delete(old: Path, gone: Path) -> None:
    """Delete by way of a name that is never taken for a complete folder."""
    if old.exists():
        old.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)  # what stays goes at the next start


@contextmanager
def only_writer(folder: Path, kind: str = "folder") -> Iterator[None]:
    """Hold the lock of an output folder, or of a file: `kind` is what errors call it.

    The system frees it when its process ends, however it ends. A process id in the
    file would not do: in a container the next start has the same one.

    Raises:
        ConfigError: another process holds it.
    """
    path = _beside(folder, "lock")
    with _cannot_be_written(folder):
        file = _open_locked(path, kind)
        while not _is_at(file, path):  # its last holder removed it meanwhile
            os.close(file)
            file = _open_locked(path, kind)
    try:
        yield
    finally:
        if sys.platform == "win32":
            os.close(file)  # an open file cannot be removed there
            with suppress(OSError):
                path.unlink()
        else:
            path.unlink(missing_ok=True)
            os.close(file)


def _open_locked(path: Path, kind: str) -> int:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _lock(file)
    except BlockingIOError as error:
        os.close(file)
        raise ConfigError(
            f"{path}: another process is writing to this output {kind}; wait for it, "
            f"or name another output {kind}"
        ) from error
    return file


def _lock(file: int) -> None:
    """Lock an open file, or raise BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks: better written than not


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def _cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); "
            "name a folder in a place you may write to"
        ) from error


def _placed(folder: Path) -> Path:
    """Give the absolute path, with a name to put others beside."""
    folder = folder.absolute()
    return folder.resolve() if folder.name == ".." else folder


def _beside(folder: Path, suffix: str) -> Path:
    if not folder.name:
        raise ConfigError(f"{folder}: has no name; name an output folder in it")
    return folder.with_name(f".{folder.name}.{suffix}")
