"""Names pictures by their bytes, so that a later step can tell what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from pyimgano_runtime.fingerprint import fingerprint

from .rows import ManifestRow

__all__ = ["changes", "fingerprint", "picture_digests"]


def picture_digests(rows: Iterable[ManifestRow]) -> dict[str, str]:
    """Give the sha256 of each row's file by the picture's name in the manifest."""
    return {
        row.image: hashlib.sha256(row.image_path.read_bytes()).hexdigest()
        for row in rows
    }


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
