"""Names pictures by their bytes, so that a later step can tell what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from pyimgano_runtime.fingerprint import fingerprint

from .rows import ManifestRow
from .splits import CategorySplit

__all__ = [
    "changes",
    "fingerprint",
    "picture_digests",
    "split_fingerprint",
    "test_fingerprint",
]


def picture_digests(rows: Iterable[ManifestRow]) -> dict[str, str]:
    """Give the sha256 of each row's file by the picture's name in the manifest."""
    return {
        row.image: hashlib.sha256(row.image_path.read_bytes()).hexdigest()
        for row in rows
    }


def split_fingerprint(split: CategorySplit) -> str:
    """Give one sha256 over all pictures of a category: use, name, bytes and label."""
    parts = {"train": split.train, "val": split.val, "test": split.test}
    return fingerprint(
        {
            f"{part}/{name}": digest
            for part, rows in parts.items()
            for name, digest in _labelled_digests(rows).items()
        }
    )


def test_fingerprint(split: CategorySplit) -> str:
    """Give one sha256 over the test pictures of a category: name, bytes and label.

    Where it is equal, two reports judge the same pictures by the same truth.
    """
    return fingerprint(_labelled_digests(split.test))


def _labelled_digests(rows: Sequence[ManifestRow]) -> dict[str, str]:
    digests = picture_digests(rows)
    return {row.image: f"{digests[row.image]} {row.label}" for row in rows}


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Give what differs between two sets of pictures, one phrase a picture."""
    found = [f"{name} is gone" for name in sorted(set(before) - set(now))]
    found += [f"{name} is new" for name in sorted(set(now) - set(before))]
    found += [
        f"{name} has other bytes"
        for name in sorted(set(before) & set(now))
        if before[name] != now[name]
    ]
    return found
