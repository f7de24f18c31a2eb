"""Writes manifests: from folders, and with every split made explicit.

Rows stand sorted by category and picture, keys in one order, paths relative: the same
pictures give the same bytes on every machine.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pyimgano_runtime.atomic import write_text
from pyimgano_runtime.errors import ConfigError

from .rows import MASK_ABOVE, ManifestRow
from .splits import CategorySplit

MAX_TEMPLATE: Final = 10_000  # bytes
# "part7_03" and "part7-04" are two pictures of part7; "004" is a picture of its own.
LAST_NUMBER: Final = re.compile(r"(?P<part>.*[^\W_].*?)[-_ .(]+\d+\)?")


def write_rows(path: Path, rows: Iterable[ManifestRow]) -> None:
    """Write the rows as a manifest; the file appears whole or not at all.

    Paths are written relative to the manifest where the pictures lie under its folder,
    else relative to their own folder, which is then the root to name.
    """
    ordered = sorted(rows, key=lambda row: (row.category, row.image))
    lines = [
        json.dumps(_payload(row, path.parent), ensure_ascii=False) for row in ordered
    ]
    write_text(path, "".join(f"{line}\n" for line in lines))


def needs_root(path: Path, folder: Path) -> bool:
    """Whether pictures of a folder cannot be named relative to a manifest."""
    return not folder.resolve().is_relative_to(path.parent.resolve())


def is_manifest(head: bytes) -> bool:
    """Whether a file that begins so is a manifest: comments, or rows."""
    for line in head.splitlines()[:-1] or [head]:
        if line.strip() and not line.startswith(b"#"):
            return line.startswith(b"{") and b'"image_path"' in line
    return True


def holds_no_rows(path: Path) -> bool:
    """Whether a file is a manifest of comments only, as "pyimgano init" writes it."""
    if not path.is_file() or path.stat().st_size > MAX_TEMPLATE:
        return False
    return all(
        not line.strip() or line.startswith(b"#")
        for line in path.read_bytes().splitlines()
    )


def _payload(row: ManifestRow, home: Path) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "image_path": _relative(row.folder, row.image, home),
        "category": row.category,
        "split": row.split,
        "label": row.label,
        "mask_path": None,
        "group_id": row.group_id,
        "meta": row.meta,
    }
    if row.mask is not None:
        folder = row.mask_folder or row.folder
        payload["mask_path"] = _relative(folder, row.mask, home)
        if row.mask_above != MASK_ABOVE:
            payload["mask_above"] = row.mask_above
    return payload


def _relative(folder: Path, name: str, home: Path) -> str:
    own, home = folder.resolve(), home.resolve()
    if not own.is_relative_to(home):
        return name
    return (PurePosixPath(own.relative_to(home).as_posix()) / name).as_posix()


def group_by_name(
    rows: Sequence[ManifestRow], pattern: str | None = None
) -> list[ManifestRow]:
    """Give the rows with a group each, read from their names.

    Args:
        pattern: a regular expression; what its first group finds in the picture's path
            names the part. None guesses: the file name without its last number.

    Raises:
        ConfigError: the pattern cannot be read or has no group.
    """
    expression = LAST_NUMBER if pattern is None else _compiled(pattern)
    grouped = []
    for row in rows:
        if pattern is None:
            match = expression.fullmatch(PurePosixPath(row.image).stem)
        else:
            match = expression.search(row.image)
        found = match[1] if match else None
        grouped.append(replace(row, group_id=found or row.group_id))
    return grouped


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as cause:
        raise ConfigError(
            f'--group-pattern: "{pattern}" is no regular expression ({cause})'
        ) from cause
    if expression.groups < 1:
        raise ConfigError(
            f'--group-pattern: "{pattern}" has no group; put the part of the name that '
            'tells the part in brackets, for example "(part\\d+)_"'
        )
    return expression


def with_kept_groups(
    rows: Sequence[ManifestRow], before: Path
) -> tuple[list[ManifestRow], int]:
    """Give the rows with the groups that an earlier manifest gave them by hand.

    Returns:
        The rows, and how many groups were taken over.
    """
    if not before.is_file():
        return list(rows), 0
    groups: dict[tuple[str, str], str] = {}
    for line in before.read_bytes().splitlines():
        try:
            old = json.loads(line)
        except ValueError:  # a comment, or no row
            continue
        if isinstance(old, dict) and isinstance(old.get("group_id"), str):
            key = (str(old.get("category")), str(old.get("image_path")))
            groups[key] = old["group_id"]
    kept, n_kept = [], 0
    for row in rows:
        name = _relative(row.folder, row.image, before.parent)
        group = groups.get((row.category, name))
        if row.group_id is None and group is not None:
            row, n_kept = replace(row, group_id=group), n_kept + 1
        kept.append(row)
    return kept, n_kept


def group_sizes(rows: Iterable[ManifestRow]) -> Counter[str]:
    """Give how many pictures each named group has."""
    return Counter(row.group_id for row in rows if row.group_id is not None)


def write_splits(manifest: Path, output: Path, splits: Sequence[CategorySplit]) -> None:
    """Write a manifest again with each row's split as assigned; all else stays.

    Comments, blank lines and the order of rows and keys are kept. A row that was given
    no split and comes to none (its category was not asked for) stays as it is.
    """
    assigned = {
        row.line: name
        for split in splits
        for name in ("train", "val", "test")
        for row in getattr(split, name)
    }
    lines = []
    with manifest.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            text = line.decode("utf-8").strip()
            if number in assigned:
                payload = json.loads(text) | {"split": assigned[number]}
                text = json.dumps(payload, ensure_ascii=False)
            lines.append(text)
    write_text(output, "".join(f"{line}\n" for line in lines))
