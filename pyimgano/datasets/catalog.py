"""The kinds of data set that can be named, and how each becomes rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyimgano_runtime._reader import closest, nearest

from .issues import IssueLog
from .layouts import LAYOUTS
from .layouts.folder_pictures import (
    folders_in,
    is_folder,
    listed,
    picture_names,
    shown,
)
from .layouts.interface import Layout
from .manifest import MAX_CATEGORY_NAME, scan_manifest
from .rows import ManifestRow

DATASETS: Final = ("manifest", *LAYOUTS)


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where a data set is: a manifest, or the root of a known layout."""

    dataset: str  # one of DATASETS
    manifest_path: Path | None = None
    root: Path | None = None

    @property
    def needed(self) -> list[Path]:
        """The paths that no output may replace."""
        return [path for path in (self.manifest_path, self.root) if path is not None]

    @property
    def place(self) -> str:
        """What messages call the data set: its manifest or its root."""
        path = self.manifest_path if self.dataset == "manifest" else self.root
        return self.dataset if path is None else str(path)


def scan_dataset(
    source: DataSource, log: IssueLog, *, categories: Sequence[str] = ()
) -> list[ManifestRow]:
    """Give the rows that can be read, and log what is wrong with the others.

    Of a layout come the categories that are asked for, by default all; of a manifest
    all rows, whatever is asked for.
    """
    if source.dataset == "manifest":
        return _scan_manifest(source, log)
    layout = _layout(source, log)
    root = source.root
    if layout is None or root is None:
        return []
    known = _known_categories(layout, root, log)
    unknown = [name for name in dict.fromkeys(categories) if name not in known]
    if unknown or not categories:
        _log_closed_folders(root, known, log)
    if not known:
        return []
    for name in unknown:
        _log_unknown_category(name, known, root, log)
    rows = []
    for name in known:
        if not categories or name in categories:
            rows += layout.rows(root, name, log)
    return rows


def read_dataset(
    source: DataSource, *, categories: Sequence[str] = ()
) -> list[ManifestRow]:
    """Give the rows of a data set, checked.

    Raises:
        DatasetError: all problems of the data set, the first 20 in words.
    """
    log = IssueLog()
    rows = scan_dataset(source, log, categories=categories)
    log.raise_errors()
    return rows


def list_dataset_categories(
    dataset: str,
    root: Path | str | None = None,
    *,
    manifest_path: Path | str | None = None,
) -> list[str]:
    """Give the names of the categories, sorted.

    Raises:
        DatasetError: there is no such data set; the words are those of the scan.
    """
    source = DataSource(
        dataset,
        None if manifest_path is None else Path(manifest_path),
        None if root is None else Path(root),
    )
    log = IssueLog()
    names: list[str] = []
    if dataset == "manifest":
        names = sorted({row.category for row in _scan_manifest(source, log)})
    elif (layout := _layout(source, log)) and source.root is not None:
        names = _known_categories(layout, source.root, log)
        _log_closed_folders(source.root, names, log)
    log.raise_errors()
    return names


def _scan_manifest(source: DataSource, log: IssueLog) -> list[ManifestRow]:
    if source.manifest_path is None:
        log.add(
            "MANIFEST_PATH_MISSING",
            'dataset "manifest" needs the path of a manifest; set '
            "dataset.manifest_path, or name the layout of your folders in dataset.name",
        )
        return []
    return scan_manifest(source.manifest_path, log, root=source.root)


def _layout(source: DataSource, log: IssueLog) -> Layout | None:
    """Give the layout of a source whose root is there; else log and give None."""
    layout = LAYOUTS.get(source.dataset)
    if layout is None:
        suggestion = nearest(source.dataset, DATASETS)
        log.add(
            "DATASET_UNKNOWN",
            f'no kind of data set is called "{shown(source.dataset)}" '
            f"({closest(source.dataset, DATASETS)}); known: {', '.join(DATASETS)}",
            dataset=source.dataset,
            known=list(DATASETS),
            suggestion=suggestion,
        )
        return None
    if source.root is not None and is_folder(source.root):
        return layout
    found = "none is set" if source.root is None else f"{shown(source.root)} is none"
    log.add(
        "DATASET_ROOT_MISSING",
        f'dataset "{source.dataset}" needs the root folder of the pictures, {found}; '
        f"set dataset.root (--root); expected\n{layout.picture}",
        dataset=source.dataset,
        root=None if source.root is None else shown(source.root),
    )
    return None


def _known_categories(layout: Layout, root: Path, log: IssueLog) -> list[str]:
    """Give the categories under a root; that there are none is logged."""
    found = folders_in(root, log)  # logs that the root cannot be listed
    known = []
    for name in layout.categories(root):
        if name.isprintable() and name.strip() and len(name) <= MAX_CATEGORY_NAME:
            known.append(name)
            continue
        log.add(
            "DATASET_INVALID_STRUCTURE",
            f"{shown(root / name)}: the name of a category must have 1 to "
            f"{MAX_CATEGORY_NAME} printable characters; rename the folder",
            category=shown(name),
        )
    if not known:
        loose = len(picture_names(root))
        pictures = f", and {loose} pictures" if loose else ""
        is_category = root.name in layout.categories(root.parent)
        parent = f"; it is itself a category, set the root to {shown(root.parent)}"
        log.add(
            "DATASET_CATEGORY_EMPTY",
            f'{shown(root)}: no category of layout "{layout.name}" (found folders: '
            f"{listed(found)}{pictures}){parent if is_category else ''}; expected\n"
            f"{layout.picture}",
            found=[shown(name) for name in found],
            known=[],
        )
    return known


def _log_closed_folders(root: Path, known: list[str], log: IssueLog) -> None:
    """Log folders that may not be listed: they could be categories."""
    for name in folders_in(root):
        if name not in known:
            folders_in(root / name, log)


def _log_unknown_category(
    name: str, known: list[str], root: Path, log: IssueLog
) -> None:
    suggestion = nearest(name, known)
    hint = f' (did you mean "{suggestion}"?)' if suggestion else ""
    log.add(
        "DATASET_CATEGORY_EMPTY",
        f'{shown(root)}: no category "{shown(name)}"{hint}; known: {listed(known)}',
        category=name,
        known=known,
        suggestion=suggestion,
    )
