"""Turns the INPUT arguments of a command into a list of picture files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from .errors import ConfigError

# What a folder's pictures are called, in training and in use alike.
PICTURE_SUFFIXES: Final = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff"),
        *(".webp", ".gif", ".pgm", ".ppm", ".pnm", ".npy"),
    )
)


def list_inputs(
    arguments: Iterable[str], *, patterns: Sequence[str] = ()
) -> list[Path]:
    """Give the picture files of files and folders, folders sorted and recursive.

    A named file is always taken: if it is missing or no picture, that becomes its
    error row. Of a folder those are taken that `is_wanted` wants.

    Raises:
        ConfigError: no arguments, or a folder without any picture.
    """
    found: list[Path] = []
    given = list(arguments)
    if not given:
        raise ConfigError("no INPUT given; expected picture files or folders")
    for argument in given:
        if not argument:
            raise ConfigError("an INPUT is empty; expected picture files or folders")
        path = Path(argument)
        if not _is_folder(path):
            found.append(path)
            continue
        inside = sorted(
            Path(folder) / name
            for folder, _, names in os.walk(path, onerror=_refuse)
            for name in names
            if is_wanted(Path(folder, name).relative_to(path), patterns)
        )
        if not inside:
            what = "that match " if patterns else "that end with "
            raise ConfigError(
                f"{path}: holds no pictures; expected files {what}"
                + " ".join(patterns or sorted(PICTURE_SUFFIXES))
            )
        found += inside
    return found


def is_wanted(inside: Path, patterns: Sequence[str]) -> bool:
    """Whether a folder's file is taken: hidden ones never.

    Args:
        inside: its path in the folder.
        patterns: shell patterns for its name, or with a "/" for its path in the folder;
            none: it is taken if its name ends as a picture's does.
    """
    if inside.name.startswith("."):
        return False
    if not patterns:
        return inside.suffix.lower() in PICTURE_SUFFIXES
    from fnmatch import fnmatchcase

    whole = inside.as_posix()
    return any(
        fnmatchcase(whole if "/" in pattern else inside.name, pattern)
        for pattern in patterns
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False  # no usable path: its row says why


def _refuse(cause: OSError) -> None:
    """`os.walk` would pass by a folder that it cannot list."""
    raise ConfigError(
        f"{cause.filename}: cannot be listed ({cause.strerror}); "
        "check its permissions or name the files themselves"
    ) from cause
