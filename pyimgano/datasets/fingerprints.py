"""Names pictures by their bytes, so that a later step can tell what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from .rows import ManifestRow


def picture_digests(rows: Iterable[ManifestRow]) -> dict[str, str]:
    """Give the sha256 of each row's file by the picture's name in the manifest."""
    return {
        row.image: hashlib.sha256(row.image_path.read_bytes()).hexdigest()
        for row in rows
    }


def fingerprint(digests: Mapping[str, str]) -> str:
    """Give one sha256 over the sorted (name, sha256) of pictures."""
    lines = (f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


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
