"""Rows from a category that holds train/<kind>, test/<kind> and their masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import MASK_ABOVE, ManifestRow
from .folder_pictures import (
    MAX_NAMES,
    folders_in,
    is_folder,
    listed,
    pictures_in,
    shown,
    under,
)
from .labelled_folders import (
    LabelledFolder,
    MaskReader,
    checked_rows,
    labelled_rows,
    mask_files,
    warn_of_masks_without_folder,
    with_sub_folders,
)

TRAIN_AND_TEST: Final[Mapping[str, str]] = {"train": "train", "test": "test"}


@dataclass(frozen=True, slots=True)
class SplitFolders:
    """What a layout calls splits, normals and masks inside of a category."""

    picture: str
    splits: Mapping[str, str] = field(default_factory=lambda: TRAIN_AND_TEST)
    normals: frozenset[str] = frozenset({"good"})
    masks: tuple[str, ...] = ("ground_truth",)  # each with one folder a kind of defect
    left_out: frozenset[str] = frozenset()  # folders that are not read by intention
    loose_are_normal: bool = False  # pictures directly in train or val
    sub_folders: bool = False  # folders of pictures may hold further ones
    read_masks: MaskReader = mask_files
    mask_above: int = MASK_ABOVE


def categories_with(root: Path, *marks: str) -> list[str]:
    """Give the sub-folders that hold one of the marks, sorted."""
    return [
        name
        for name in folders_in(root)
        if any(is_folder(root / name / mark) for mark in marks)
    ]


def split_rows(
    root: Path, category: str, place: str, names: SplitFolders, log: IssueLog
) -> list[ManifestRow]:
    """Give the pictures of a category that stands in `place` under the root."""
    tops = mask_places(place, names.masks)
    folders: list[LabelledFolder] = []
    for name in folders_in(root / place, log):
        split = names.splits.get(name.casefold())
        if split is not None:
            folders += _folders_of_split(
                root, under(place, name), split, names, tops, log
            )
        elif under(place, name) not in tops and name not in names.left_out:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(root / place / name)}: no folder of this layout; it is not "
                f"read, expected\n{names.picture}",
                severity="warning",
                path=shown(under(place, name)),
            )
    if names.sub_folders:
        folders = with_sub_folders(root, folders)
    rows = labelled_rows(
        root,
        category,
        folders,
        log,
        read_masks=names.read_masks,
        mask_above=names.mask_above,
    )
    warn_of_masks_without_folder(root, tops, folders, log)
    return checked_rows(rows, root, place, category, names.picture, log)


def mask_places(place: str, masks: Iterable[str]) -> list[str]:
    """Give where folders of masks stand; "../masks" is beside `place`, not in it."""
    beside = place.rpartition("/")[0]
    return [
        under(beside, mask[3:]) if mask.startswith("../") else under(place, mask)
        for mask in masks
    ]


def log_loose_pictures(
    root: Path, place: str, names: list[str], picture: str, log: IssueLog
) -> None:
    """Log pictures whose folder does not say whether they are normal."""
    log.add(
        "DATASET_INVALID_STRUCTURE",
        f"{shown(root / place)}: holds {listed(names)} directly, so nothing says "
        "whether they are normal; put them in a folder of normals or of a defect, "
        f"expected\n{picture}",
        path=shown(place),
        found=[shown(name) for name in names[:MAX_NAMES]],
    )


def _folders_of_split(
    root: Path,
    place: str,
    split: str,
    names: SplitFolders,
    tops: list[str],
    log: IssueLog,
) -> list[LabelledFolder]:
    folders = []
    for kind in folders_in(root / place, log):
        if under(place, kind) in tops:
            continue
        folders.append(
            LabelledFolder(
                name=under(place, kind),
                split=split,
                defect=None if kind.casefold() in names.normals else kind,
                # Masks measure; of what trains or calibrates, none is asked for.
                masks=tuple(under(top, kind) for top in tops)
                if split == "test"
                else (),
            )
        )
    loose = pictures_in(root / place, log)
    if loose and names.loose_are_normal and split != "test":
        folders.insert(0, LabelledFolder(place, split, None))
    elif loose:
        log_loose_pictures(root, place, loose, names.picture, log)
    return folders
