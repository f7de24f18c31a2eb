"""A user's own folders: good and bad pictures, divided into splits or not."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import ManifestRow
from .folder_pictures import folders_in, pictures_in, under
from .interface import Layout
from .labelled_folders import (
    LabelledFolder,
    checked_rows,
    labelled_rows,
    warn_of_masks_without_folder,
    with_sub_folders,
)
from .split_folders import (
    SplitFolders,
    log_loose_pictures,
    mask_places,
    split_rows,
)

PICTURE: Final = """\
<root>/train/good/*.png               or directly <root>/train/*.png
<root>/val/good/*.png                 optional
<root>/test/good/*.png
<root>/test/<defect>/*.png
<root>/ground_truth/<defect>/*.png    optional masks, also under masks/, mask/ or gt/
or, with splits to be assigned:
<root>/good/*.png
<root>/<defect>/*.png
"good" may be normal, ok, normals or goods; all may lie one level down in images/;
with several categories, each has such folders in <root>/<category>/"""

NORMALS: Final = frozenset({"good", "normal", "ok", "normals", "goods"})
# Names of folders of masks, in any case, "-", "_" and spaces left out.
MASKS: Final = frozenset(
    (
        *("mask", "masks", "groundtruth", "gt"),
        # Not "label": a label that is missing or torn is a defect.
        *("labels", "annotations", "segmentations"),
    )
)
SPLITS: Final = {"train": "train", "val": "val", "validation": "val", "test": "test"}


def categories(root: Path) -> list[str]:
    """Give the name of the root if it holds the folders, else those that do."""
    if _place(root, "") is not None:
        return [_root_name(root)]
    return [name for name in folders_in(root) if _place(root, name) is not None]


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the pictures of a category; without train and test, splits are None."""
    place = _place(root, "")
    if place is None or category != _root_name(root):
        place = _place(root, category)
    if place is None:
        return checked_rows([], root, category, category, PICTURE, log)
    one_down = place.rpartition("/")[2] == "images" and place != category
    masks = _mask_folders(root / place)
    if one_down:  # images/ and masks/ as brothers
        beside = _mask_folders((root / place).parent)
        masks = (*masks, *(f"../{name}" for name in beside))
    if _is_divided(root / place):
        names = SplitFolders(
            PICTURE,
            SPLITS,
            NORMALS,
            masks=masks,
            loose_are_normal=True,
            sub_folders=True,
        )
        return split_rows(root, category, place, names, log)
    return _undivided_rows(root, category, place, masks, log)


def _undivided_rows(
    root: Path, category: str, place: str, masks: tuple[str, ...], log: IssueLog
) -> list[ManifestRow]:
    tops = mask_places(place, masks)
    loose = pictures_in(root / place, log)
    if loose:
        log_loose_pictures(root, place, loose, PICTURE, log)
    kinds = [
        kind for kind in folders_in(root / place, log) if under(place, kind) not in tops
    ]
    beside = {kind: _masks_beside(kind, kinds) for kind in kinds}
    taken = {name for names in beside.values() for name in names}
    defects = [k for k in kinds if k.casefold() not in NORMALS and k not in taken]
    # Where there is one kind of defect, masks need no folder of its name.
    flat = tops if len(defects) == 1 else []
    folders = [
        LabelledFolder(
            name=under(place, kind),
            split=None,
            defect=None if kind.casefold() in NORMALS else kind,
            masks=(
                *(under(top, kind) for top in tops),
                *(under(place, name) for name in beside[kind]),
                *(flat if kind in defects else ()),
            ),
        )
        for kind in kinds
        if kind not in taken
    ]
    rows = labelled_rows(root, category, with_sub_folders(root, folders), log)
    warn_of_masks_without_folder(root, tops, folders, log)
    return checked_rows(rows, root, place, category, PICTURE, log)


def _mask_folders(folder: Path) -> tuple[str, ...]:
    """Give the folders that hold masks by their names, and test/ in them."""
    names = [name for name in folders_in(folder) if _plain(name) in MASKS]
    return (*names, *(f"{name}/test" for name in names))


def _plain(name: str) -> str:
    return name.casefold().translate({ord(sign): None for sign in "-_ "})


def _masks_beside(kind: str, kinds: list[str]) -> list[str]:
    """Give the folders that hold the masks of `kind` by their name: "bad_masks"."""
    names = {_plain(kind) + mask for mask in MASKS}
    return [name for name in kinds if _plain(name) in names]


def _place(root: Path, name: str) -> str | None:
    """Give where the folders of a category stand: `name` or `name`/images."""
    for place in (name, under(name, "images")):
        kinds = {kind.casefold() for kind in folders_in(root / place)}
        if _is_divided(root / place) or kinds & NORMALS:
            return place
    return None


def _is_divided(folder: Path) -> bool:
    return any(kind.casefold() in ("train", "test") for kind in folders_in(folder))


def _root_name(root: Path) -> str:
    """Give a name also for "." and ".."; a link keeps the name that was written."""
    name = root.name if root.name not in ("", "..") else root.resolve().name
    return name or "root"


LAYOUT: Final = Layout("custom", PICTURE, categories, rows)
