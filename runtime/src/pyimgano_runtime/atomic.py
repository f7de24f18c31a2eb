"""Complete or absent: files by atomic rename, folders by swap.

A folder `out` is written as `.out.new`, the old one renamed to `.out.old`, the new
one into place, the old one deleted. `recover_folder` completes a swap that was
interrupted, so a kill at any moment leaves the old state or the new one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConfigError


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


def recover_folder(folder: Path) -> None:
    """Complete or undo a folder swap that an earlier process could not finish."""
    new, old = _beside(folder, "new"), _beside(folder, "old")
    if old.exists() and not folder.exists():
        # Killed between the two renames. The new folder was complete by then.
        (new if new.exists() else old).rename(folder)
    if old.exists():
        shutil.rmtree(old)
    if new.exists():
        shutil.rmtree(new)


@contextmanager
def new_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a folder to fill that takes `folder`'s place when the block succeeds.

    Raises:
        ConfigError: `folder` exists and `force` is not set, or its parent is a file.
    """
    folder = folder.absolute()
    recover_folder(folder)
    refuse_existing(folder, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        new, old = _beside(folder, "new"), _beside(folder, "old")
        new.mkdir()
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); "
            "name a folder in a place you may write to"
        ) from error
    try:
        yield new
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    if old.exists():
        shutil.rmtree(old)


def refuse_existing(folder: Path, *, force: bool) -> None:
    """Refuse an output folder that exists, unless it may be replaced.

    Raises:
        ConfigError: the folder exists and `force` is not set; or it is a file.
    """
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


def _beside(folder: Path, suffix: str) -> Path:
    if not folder.name:
        raise ConfigError(f"{folder}: has no name; name an output folder in it")
    return folder.with_name(f".{folder.name}.{suffix}")
