"""The path grammar of a bundle and the only way its files are opened.

A path in infer_config.json is relative, POSIX, made of plain names; the file behind
it is a regular file with one link, reached without following any link, and its bytes
are read once, checked against size and sha256, and used from memory.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

from .errors import BundleError

_COMPONENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,119}")
_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul"]
    + [f"{port}{number}" for port in ("com", "lpt") for number in range(10)]
)
MAX_DEPTH: Final = 8


def path_problem(path: str) -> str | None:
    """Why a path is refused, in words; None if it obeys the grammar."""
    if not path:
        return "is empty"
    if "\\" in path or ":" in path:
        return "has a backslash or colon; paths are relative and use /"
    if path.startswith("/"):
        return "is absolute; paths are relative to the bundle folder"
    components = path.split("/")
    if ".." in components:
        return "leaves the bundle folder"
    if len(components) > MAX_DEPTH:
        return f"is more than {MAX_DEPTH} folders deep"
    for component in components:
        if not _COMPONENT.fullmatch(component) or component.endswith("."):
            return (
                f'has the name "{component[:40]}"; names are made of letters, digits, '
                '".", "_" and "-" and begin with a letter or digit'
            )
        if component.split(".")[0].lower() in _DEVICES:
            return f'has the name "{component}", which is a device on Windows'
    return None


def plain_name(name: str, taken: set[str]) -> str:
    """Give a file stem that obeys the grammar for any text, and note it as taken."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:60] or "part"
    if stem.split(".")[0].lower() in _DEVICES:
        stem = f"part_{stem}"
    candidate, number = stem, 2
    while candidate.lower() in taken:
        candidate, number = f"{stem}_{number}", number + 1
    taken.add(candidate.lower())
    return candidate


def read_listed(
    root: Path,
    path: str,
    *,
    size: int | None,
    sha256: str | None,
    max_bytes: int,
    allow_hard_links: bool = False,
) -> bytes:
    """Give the bytes of a bundle's file, proven to be the listed ones.

    Args:
        root: the bundle folder.
        path: relative path, by the grammar of `path_problem`.
        size: bytes that the list promises; None for infer_config.json itself.
        sha256: lower-case hex digest that the list promises.
        max_bytes: refuse anything larger before reading it.
        allow_hard_links: take a file that other names lead to as well.

    Raises:
        BundleError: missing, a link, several links, not a regular file, wrong size
            or wrong hash; the message says which.
    """
    reason = path_problem(path)
    if reason is not None:
        raise BundleError(
            f'{root}: the path "{path}" {reason}; export the bundle again'
        )
    data = _read_without_links(root, path, max_bytes, allow_hard_links)
    if size is not None and len(data) != size:
        raise BundleError(
            f"{root / path}: {len(data)} bytes, expected {size}; "
            "the file was changed after export: copy the bundle again"
        )
    if sha256 is not None:
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise BundleError(
                f"{root / path}: sha256 is {found[:16]}..., expected {sha256[:16]}...; "
                "the file was changed after export: copy the bundle again"
            )
    return data


def _read_without_links(
    root: Path, path: str, max_bytes: int, allow_hard_links: bool
) -> bytes:
    """Open each component without following links, then read the file once."""
    shown = root / path
    *folders, name = path.split("/")
    nofollow = getattr(os, "O_NOFOLLOW", 0)
    by_folder = os.open in os.supports_dir_fd
    here: int | None = None
    try:
        if by_folder:
            here = os.open(root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            for folder in folders:
                flags = os.O_RDONLY | os.O_DIRECTORY | nofollow
                deeper = os.open(folder, flags, dir_fd=here)
                os.close(here)
                here = deeper
        elif any(
            root.joinpath(*path.split("/")[:depth]).is_symlink()
            for depth in range(1, len(folders) + 2)
        ):
            raise BundleError(f"{shown}: is a link; a bundle holds plain files only")
        target = name if by_folder else str(shown)
        # O_NONBLOCK: a FIFO must be refused, not waited for.
        flags = os.O_RDONLY | nofollow | getattr(os, "O_NONBLOCK", 0)
        flags |= getattr(os, "O_BINARY", 0)
        handle = os.open(target, flags, dir_fd=here)
    except FileNotFoundError as cause:
        raise BundleError(
            f"{shown}: the file is missing; copy the whole bundle folder again"
        ) from cause
    except OSError as cause:
        raise BundleError(
            f"{shown}: cannot be opened as a plain file ({cause.strerror}); "
            "a bundle holds regular files and folders, no links"
        ) from cause
    finally:
        if here is not None:
            os.close(here)
    facts = os.fstat(handle)
    if not stat.S_ISREG(facts.st_mode):
        os.close(handle)
        raise BundleError(f"{shown}: is not a regular file; copy the bundle again")
    with os.fdopen(handle, "rb") as stream:
        if facts.st_nlink > 1 and not allow_hard_links:
            raise BundleError(
                f"{shown}: has {facts.st_nlink} hard links, expected 1: it can be "
                "changed from elsewhere; copy the bundle instead of linking it, or "
                "pass --allow-hard-links on a device that stores its files that way"
            )
        if facts.st_size > max_bytes:
            raise BundleError(
                f"{shown}: {facts.st_size} bytes, expected at most {max_bytes}; "
                "this is no file of a bundle"
            )
        # Not max_bytes: `read` takes memory for all that it is asked for.
        return stream.read(facts.st_size + 1)
