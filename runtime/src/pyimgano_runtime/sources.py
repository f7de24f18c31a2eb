"""Turns the INPUT arguments of a command into a list of picture files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from .errors import ConfigError

SUFFIXES: Final = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"),
        *(".pgm", ".ppm", ".pnm", ".npy"),
    )
)


def list_inputs(arguments: Iterable[str]) -> list[Path]:
    """Give the picture files of files and folders, folders sorted and recursive.

    A named file is always taken: if it is missing or no picture, that becomes its
    error row. In a folder, files with a picture's suffix are taken.

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
            if Path(name).suffix.lower() in SUFFIXES
        )
        if not inside:
            raise ConfigError(
                f"{path}: holds no pictures; expected files that end with "
                + " ".join(sorted(SUFFIXES))
            )
        found += inside
    return found


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
