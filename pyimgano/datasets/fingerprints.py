"""Names pictures by their bytes, so that a later step can tell what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

from pyimgano_runtime.fingerprint import fingerprint

from .images import mask_files
from .rows import ManifestRow
from .splits import CategorySplit

__all__ = [
    "changes",
    "fingerprint",
    "picture_digests",
    "split_fingerprint",
    "test_fingerprint",
    "training_fingerprint",
]


def picture_digests(rows: Iterable[ManifestRow]) -> dict[str, str]:
    """Give the sha256 of each row's file by the picture's name in the manifest."""
    return {
        row.image: hashlib.sha256(row.image_path.read_bytes()).hexdigest()
        for row in rows
    }


def training_fingerprint(split: CategorySplit) -> str:
    """Give one sha256 over what trains and calibrates: use, name, bytes, label, mask.

    Normals have no mask.
    """
    parts = {"train": split.train, "val": split.val}
    labelled = {
        f"{part}/{name}": digest
        for part, rows in parts.items()
        for name, digest in _labelled_digests(rows).items()
    }
    return fingerprint(labelled | _masks(split.train))


def test_fingerprint(split: CategorySplit) -> str:
    """Give one sha256 over the test pictures: name, bytes, label and mask.

    Where it is equal, two reports judge the same pictures by the same truth.
    """
    return fingerprint(_labelled_digests(split.test) | _masks(split.test))


def split_fingerprint(training: str, test: str) -> str:
    """Give one sha256 over both: equal where a model learned and was judged alike."""
    return fingerprint({"training": training, "test": test})


def _labelled_digests(rows: Sequence[ManifestRow]) -> dict[str, str]:
    digests = picture_digests(rows)
    return {row.image: f"{digests[row.image]} {row.label}" for row in rows}


def _masks(rows: Sequence[ManifestRow]) -> dict[str, str]:
    return {
        f"mask/{row.image}": f"{_mask_digest(row)} {row.mask_above}"
        for row in rows
        if row.label == 1 and row.mask is not None
    }


def _mask_digest(row: ManifestRow) -> str:
    files = mask_files(row.mask_path)
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return " ".join(digests)


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
