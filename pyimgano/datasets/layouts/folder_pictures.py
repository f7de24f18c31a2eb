"""Names of the pictures and of the folders in a folder, sorted; nothing is opened."""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pyimgano_runtime.sources import PICTURE_SUFFIXES

from ..issues import IssueLog

# Pictures that no decoder here reads; files of other kinds are no pictures at all.
UNREAD_SUFFIXES: Final = frozenset(
    (
        *(".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dng", ".cr2", ".cr3"),
        *(".nef", ".arw", ".raw", ".exr", ".hdr", ".psd", ".svg", ".mp4", ".avi"),
    )
)
# Folders that systems make by themselves; the last may not even be listed.
SYSTEM_FOLDERS: Final = frozenset(
    ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
)
MAX_NAMES: Final = 12  # in one message


def pictures_in(folder: Path, log: IssueLog) -> list[str]:
    """Give the names of the pictures in a folder; a folder that is missing has none.

    Hidden files and sub-folders are left out. What is called like a picture and is no
    regular file (a folder, a FIFO, a link to nothing) is left out with a warning.
    """
    names = []
    for entry in _entries(folder, log):
        if PurePosixPath(entry.name).suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if _is(entry, stat.S_ISREG):
            names.append(entry.name)
        else:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(folder / entry.name)}: is called like a picture, but is no "
                "regular file; it is left out, remove or rename it",
                severity="warning",
                path=shown(folder / entry.name),
            )
    return names


def warn_of_unread_pictures(
    folder: Path, read_folders: Iterable[str], log: IssueLog
) -> None:
    """Log pictures of formats that are not read, and sub-folders that are not.

    Args:
        read_folders: names of the sub-folders that are read.
    """
    suffixes = Counter(
        PurePosixPath(name).suffix.lower() for name in unread_pictures(folder)
    )
    unread = [f"{n} {suffix}" for suffix, n in sorted(suffixes.items())]
    if unread:
        log.add(
            "DATASET_INVALID_STRUCTURE",
            f"{shown(folder)}: {', '.join(unread)} files are not read; save them as "
            "PNG or JPEG",
            severity="warning",
            path=shown(folder),
        )
    for name in folders_in(folder):
        n_pictures = len(picture_names(folder / name))
        if n_pictures and name not in read_folders:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(folder / name)}: {n_pictures} pictures in a sub-folder are "
                "not read; move them up",
                severity="warning",
                path=shown(folder / name),
                n_pictures=n_pictures,
            )


def unread_pictures(folder: Path) -> list[str]:
    """Give the names of pictures whose formats are not read."""
    names = [entry.name for entry in _entries(folder, None)]
    return [n for n in names if PurePosixPath(n).suffix.lower() in UNREAD_SUFFIXES]


def picture_names(folder: Path) -> list[str]:
    """Give the names of the pictures in a folder, without a word on what is not one."""
    return pictures_in(folder, IssueLog())


def folders_in(folder: Path, log: IssueLog | None = None) -> list[str]:
    """Give the names of the sub-folders, without hidden ones and those of systems."""
    return [
        entry.name
        for entry in _entries(folder, log)
        if entry.name not in SYSTEM_FOLDERS and _is(entry, stat.S_ISDIR)
    ]


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; a path that none can have has none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # missing, a loop, not permitted; a NUL
        return False


def is_file(path: Path) -> bool:
    """Whether there is such a regular file."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def under(place: str, name: str) -> str:
    """Give the name of something in a folder, both relative to the root."""
    return f"{place}/{name}" if place else name


def shown(path: Path | str) -> str:
    """Give a path as text that can be printed whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else json.dumps(text)


def listed(names: list[str]) -> str:
    """Give a few names for a message, or "nothing"."""
    more = [f"and {len(names) - MAX_NAMES} more"] if len(names) > MAX_NAMES else []
    return ", ".join([shown(name) for name in names[:MAX_NAMES]] + more) or "nothing"


def _entries(folder: Path, log: IssueLog | None) -> list[os.DirEntry[str]]:
    """Give what a folder holds, sorted by name; what prevents it is logged."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as cause:  # not permitted, a loop; a NUL
        reason = getattr(cause, "strerror", None) or str(cause)
        if log is not None:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(folder)}: cannot be listed ({reason}); check its permissions",
                path=shown(folder),
                reason=reason,
            )
        return []
    return [
        entry
        for entry in entries
        if not entry.name.startswith(".") and _can_be_written(entry, folder, log)
    ]


def _can_be_written(
    entry: os.DirEntry[str], folder: Path, log: IssueLog | None
) -> bool:
    """Whether a name is UTF-8: else no report or bundle could hold it."""
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        if log is not None:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(folder / entry.name)}: the name is not UTF-8; rename it",
                path=shown(folder / entry.name),
            )
        return False
    return True


def _is(entry: os.DirEntry[str], kind: Any) -> bool:
    """Whether an entry is of a kind, links followed; mostly known without a stat."""
    try:
        return entry.is_dir() if kind is stat.S_ISDIR else entry.is_file()
    except OSError:  # a link that loops
        return False
