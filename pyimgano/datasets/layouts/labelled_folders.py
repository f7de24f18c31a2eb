"""Rows from folders whose pictures share split and label, with their masks."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from ..issues import IssueLog
from ..rows import MASK_ABOVE, ManifestRow
from .folder_pictures import (
    folders_in,
    is_folder,
    listed,
    pictures_in,
    shown,
    under,
    unread_pictures,
    warn_of_unread_pictures,
)

MASK_ENDING: Final = "_mask"  # 001.png and 001_mask.png

# The masks of a folder by stem; names relative to the root.
MaskNames = dict[str, list[str]]
MaskReader = Callable[[Path, str, IssueLog], MaskNames]


@dataclass(frozen=True, slots=True)
class LabelledFolder:
    """One folder of pictures; names are relative to the root."""

    name: str
    split: str | None
    defect: str | None  # the kind of defect; None: normals
    masks: tuple[str, ...] = ()  # folders that may hold its masks


def mask_files(root: Path, folder: str, log: IssueLog) -> MaskNames:
    """Give the masks of a folder with one file a picture."""
    masks: MaskNames = {}
    for name in pictures_in(root / folder, log):
        masks.setdefault(_stem(name), []).append(under(folder, name))
    return masks


def mask_folders(root: Path, folder: str, log: IssueLog) -> MaskNames:
    """Give the masks of a folder with one folder a picture."""
    return {
        unicodedata.normalize("NFC", name): [under(folder, name)]
        for name in folders_in(root / folder, log)
        if pictures_in(root / folder / name, log)
    }


def labelled_rows(
    root: Path,
    category: str,
    folders: Iterable[LabelledFolder],
    log: IssueLog,
    *,
    read_masks: MaskReader = mask_files,
    mask_above: int = MASK_ABOVE,
) -> list[ManifestRow]:
    """Give the pictures of folders, sorted by name.

    A picture of a defect without a mask is a warning where its folder of masks holds
    others; a mask without a picture is one too.
    """
    rows = []
    folders = list(folders)
    read = {folder.name for folder in folders}
    for folder in folders:
        names = pictures_in(root / folder.name, log)
        own = f"{folder.name}/"
        below = [name.removeprefix(own) for name in read if name.startswith(own)]
        warn_of_unread_pictures(root / folder.name, below, log)
        masks: MaskNames = {}
        for place in folder.masks:
            for stem, found in read_masks(root, place, log).items():
                masks.setdefault(stem, []).extend(found)
        n_masks = sum(map(len, masks.values()))
        _warn_of_masks_among_pictures(root / folder.name, names, log)
        for name in names:
            mask = _take_mask(masks, _stem(name))
            if mask is None and n_masks and folder.defect is not None:
                _log_missing_mask(root, folder, name, log)
            rows.append(
                ManifestRow(
                    image=under(folder.name, name),
                    folder=root,
                    category=sys.intern(category),
                    split=folder.split,
                    label=0 if folder.defect is None else 1,
                    mask=mask,
                    mask_folder=None if mask is None else root,
                    mask_above=mask_above,
                    meta={"defect": folder.defect},
                )
            )
        _warn_of_unused_masks(root, folder, masks, log)
    return sorted(rows, key=lambda row: row.image)


def with_sub_folders(
    root: Path, folders: Sequence[LabelledFolder], *, depth: int = 3
) -> list[LabelledFolder]:
    """Give the folders and all below them, which share split, label and masks."""
    known = {folder.name for folder in folders}
    found = []
    for folder in folders:
        found.append(folder)
        below = [
            replace(
                folder,
                name=under(folder.name, name),
                defect=None if folder.defect is None else f"{folder.defect}/{name}",
                masks=tuple(under(place, name) for place in folder.masks),
            )
            for name in (folders_in(root / folder.name) if depth else [])
            if under(folder.name, name) not in known
        ]
        found += with_sub_folders(root, below, depth=depth - 1)
    return found


def warn_of_masks_without_folder(
    root: Path, tops: Sequence[str], folders: Iterable[LabelledFolder], log: IssueLog
) -> None:
    """Log what lies under folders of masks and belongs to no folder of pictures."""
    used = {place for folder in folders for place in folder.masks} | set(tops)
    for top in tops:
        for kind in folders_in(root / top, log):
            if under(top, kind) not in used:
                log.add(
                    "DATASET_INVALID_STRUCTURE",
                    f"{shown(root / top / kind)}: masks of no folder of test pictures; "
                    "they are not used, give both folders one name",
                    severity="warning",
                    path=shown(under(top, kind)),
                )
        loose = pictures_in(root / top, log)
        if loose:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(root / top)}: holds {listed(loose)} directly; they are not "
                "used, put masks in a folder with the name of the defect",
                severity="warning",
                path=shown(top),
            )


def checked_rows(
    rows: list[ManifestRow],
    root: Path,
    place: str,
    category: str,
    expected: str,
    log: IssueLog,
) -> list[ManifestRow]:
    """Give the rows; that there are none, or no normals to train, is logged."""
    normals = [r for r in rows if r.label == 0 and r.split in ("train", None)]
    if normals:
        return rows
    found = folders_in(root / place)
    if "train" in found:
        found = [
            *found,
            *(f"train/{name}" for name in folders_in(root / place / "train")),
        ]
    unread = sum(len(unread_pictures(root / place / name)) for name in found)
    formats = f"; {unread} files of formats that are not read" if unread else ""
    code = "DATASET_INVALID_STRUCTURE" if rows else "DATASET_CATEGORY_EMPTY"
    lacks = "no normal pictures to train" if rows else "no pictures"
    log.add(
        code,
        f'{shown(root / place)}: {lacks} of category "{category}" (found folders: '
        f"{listed(found)}{formats}); expected\n{expected}",
        category=category,
        found=[shown(name) for name in found],
    )
    return rows


def _stem(name: str) -> str:
    # One normal form: macOS writes names of its own, and masks come from elsewhere.
    return unicodedata.normalize("NFC", PurePosixPath(name).stem)


def _take_mask(masks: MaskNames, stem: str) -> str | None:
    """Give the mask of a picture; it is then no longer there for another."""
    for key in (stem + MASK_ENDING, stem):
        if masks.get(key):
            return masks[key].pop(0)
    return None


def _log_missing_mask(
    root: Path, folder: LabelledFolder, name: str, log: IssueLog
) -> None:
    there = [place for place in folder.masks if is_folder(root / place)]
    places = " or ".join(map(shown, there))
    log.add(
        "MANIFEST_MISSING_MASK",
        f"{shown(root / folder.name / name)}: has no mask in {places}, where other "
        "masks are; it is left out of pixel metrics, add a mask with the picture's "
        "name, as the others have it",
        # No list says that there should be one: some sets mask only a part.
        severity="warning",
        path=under(folder.name, name),
        looked=there,
    )


def _warn_of_unused_masks(
    root: Path, folder: LabelledFolder, masks: MaskNames, log: IssueLog
) -> None:
    for place in sorted(place for left in masks.values() for place in left):
        log.add(
            "DATASET_INVALID_STRUCTURE",
            f"{shown(root / place)}: the mask of no picture in {shown(folder.name)}, "
            "or a second one; it is not used, correct its name or remove it",
            severity="warning",
            path=shown(place),
        )


def _warn_of_masks_among_pictures(
    folder: Path, names: Sequence[str], log: IssueLog
) -> None:
    """Log what would train or be tested as a picture, but is probably a mask."""
    stems = {_stem(name) for name in names}
    for name in names:
        stem = _stem(name)
        if stem.endswith(MASK_ENDING) and stem.removesuffix(MASK_ENDING) in stems:
            log.add(
                "DATASET_INVALID_STRUCTURE",
                f"{shown(folder / name)}: looks like a mask but lies among the "
                "pictures, and is taken for one; move it to ground_truth",
                severity="warning",
                path=shown(folder / name),
            )
