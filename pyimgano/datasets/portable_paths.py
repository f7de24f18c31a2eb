"""Paths that another machine reads differently: links, letter case, names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from .issues import IssueLog
from .manifest import real_folder, real_path
from .rows import ManifestRow

STEPS: Final = re.compile(r"(?<![^/])\./")  # "./a.png" is right everywhere
# What Windows refuses in a name, and the devices that it takes names for.
NOT_PORTABLE: Final = re.compile(
    r'[<>:"|?*\\\x00-\x1f]|[. ](?=/|$)'
    r"|(?:^|/)(?:con|prn|aux|nul|com\d|lpt\d)(?:\.[^/]*)?(?=/|$)",
    re.IGNORECASE,
)


def check_paths(rows: Sequence[ManifestRow], log: IssueLog) -> None:
    """Log links out of the data set, colliding names and names Windows refuses."""
    first_of: dict[int, int] = {}  # hash of a folded path: the row that has it first
    for number, row in enumerate(rows):
        for kind, name, folder in _paths(row):
            facts: dict[str, Any] = {
                "category": row.category,
                "line": row.line,
                "path": name,
            }
            line = f"line {row.line}: " if row.line else ""
            where = f"{row.category}: {line}{kind} {name}"
            folded = unicodedata.normalize("NFC", name).casefold()
            first = first_of.setdefault(hash((folder, folded)), number)
            if first != number and name not in (rows[first].image, rows[first].mask):
                other = rows[first]
                log.add(
                    "PATH_COLLISION",
                    f"{where} differs only in case or Unicode form from a path of "
                    f"{other.place}; on Windows and macOS they are one file, rename "
                    "one of them",
                    other_line=other.line,
                    other_image=other.image,
                    **facts,
                )
            if NOT_PORTABLE.search(STEPS.sub("", name)):
                log.add(
                    "PATH_NOT_PORTABLE",
                    f"{where} is no name on Windows; rename the file or folder",
                    **facts,
                )
            target = _outside(folder, name)
            if target is not None:
                log.add(
                    "PATH_LINK",
                    f"{where} is a link to {target}, outside of {folder}; a copy of "
                    "the folder lacks it, copy the file in its place",
                    target=target,
                    **facts,
                )


def _paths(row: ManifestRow) -> Iterator[tuple[str, str, Path]]:
    yield "picture", row.image, row.folder
    if row.mask is not None:
        yield "mask", row.mask, row.mask_folder or row.folder


def _outside(folder: Path, name: str) -> str | None:
    """Give where a path leads, if a link takes it out of its folder."""
    path = real_path(folder, name)
    return None if path.startswith(f"{real_folder(str(folder))}/") else path
