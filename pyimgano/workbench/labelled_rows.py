"""The labelled pictures that set a threshold by best F1, refused before any work.

They judge which threshold is best, so none of them may train, calibrate or test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pyimgano_runtime._reader import closest
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.infer_config import InputRules

from ..datasets.fingerprints import picture_digests
from ..datasets.images import inspect_pictures
from ..datasets.issues import IssueLog, raise_listed
from ..datasets.manifest import scan_manifest
from ..datasets.rows import ManifestRow
from ..datasets.splits import CategorySplit
from .config import LoadedConfig

Labelled = Mapping[str, Sequence[ManifestRow]]


def load_labelled(
    loaded: LoadedConfig, splits: Sequence[CategorySplit], rules: InputRules
) -> Labelled:
    """Give the labelled rows of each category; none where the config names no manifest.

    A row's `split` says nothing here.

    Raises:
        DatasetError: rows or pictures that cannot be read, a category without defects,
            without normals or without rows, or pictures that train, val or test holds
            too (by their bytes) or other pictures of (by their group); all at once.
    """
    path = loaded.labelled_manifest
    if path is None:
        return {}
    log = IssueLog()
    rows = scan_manifest(path, log, root=loaded.source.root)
    log.raise_errors()
    known = sorted({row.category for row in rows})
    labelled = {
        split.category: [row for row in rows if row.category == split.category]
        for split in splits
    }
    problems: list[str] = []
    for split in splits:
        problems += _missing(split.category, labelled[split.category], known, path)
        problems += _of_used_groups(split, labelled[split.category], path)
    try:
        inspect_pictures([row for own in labelled.values() for row in own], rules)
    except DatasetError as error:
        problems.append(f"{path}: {error}")
    else:
        for split in splits:
            problems += _seen_before(split, labelled[split.category], path)
    raise_listed(problems)
    return labelled


def _missing(
    name: str, rows: Sequence[ManifestRow], known: Sequence[str], path: Path
) -> list[str]:
    if not rows:
        return [
            f'{path}: no rows of category "{name}" ({closest(name, known)}); '
            "calibration.labelled_manifest needs normals and defects of each category "
            f"that is trained; it holds: {', '.join(known)}"
        ]
    return [
        f"{path}: {name}: no {what} (label {label}) among {len(rows)} rows; "
        "calibration.labelled_manifest needs both, add pictures of them"
        for label, what in ((0, "normals"), (1, "defects"))
        if not any(row.label == label for row in rows)
    ]


def _of_used_groups(
    split: CategorySplit, rows: Sequence[ManifestRow], path: Path
) -> list[str]:
    """Say which pictures show a part that the run uses otherwise."""
    used = {
        row.group_id: f"{part} ({row.image})"
        for part in ("train", "val", "test")
        for row in getattr(split, part)
        if row.group_id
    }
    return [
        f'{path}: {row.title} is of group "{row.group_id}", as a picture of '
        f"{used[row.group_id]} is; labelled pictures must be of other parts: remove "
        "the row"
        for row in rows
        if row.group_id in used
    ]


def _seen_before(
    split: CategorySplit, rows: Sequence[ManifestRow], path: Path
) -> list[str]:
    """Say which pictures the run uses otherwise, and which have two labels."""
    used = {
        digest: f"{part} ({image})"
        for part in ("train", "val", "test")
        for image, digest in picture_digests(getattr(split, part)).items()
    }
    digests = picture_digests(rows)
    problems = [
        f"{path}: {row.title} has the bytes of a picture of "
        f"{used[digests[row.image]]}; labelled pictures must be others: remove the row"
        for row in rows
        if digests[row.image] in used
    ]
    first: dict[str, ManifestRow] = {}
    for row in rows:
        other = first.setdefault(digests[row.image], row)
        if other.label != row.label:
            problems.append(
                f"{path}: {row.title} is labelled {row.label}, the same bytes are "
                f"labelled {other.label} on {other.place}; decide which it is"
            )
    return problems
