"""VisA (Zou et al., ECCV 2022), as published or converted to one-class folders.

The published form is read with the authors' own split, split_csv/1cls.csv. The
converted one (amazon-science/spot-diff, prepare_data.py) is arranged like MVTec AD.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from pyimgano_runtime._reader import closest

from ..issues import IssueLog
from ..rows import ManifestRow
from . import mvtec
from .folder_pictures import is_file, is_folder, listed, pictures_in, shown
from .interface import Layout
from .labelled_folders import LabelledFolder, checked_rows, labelled_rows
from .split_folders import categories_with, split_rows

PICTURE: Final = """\
<root>/<category>/Data/Images/Normal/0000.JPG
<root>/<category>/Data/Images/Anomaly/000.JPG
<root>/<category>/Data/Masks/Anomaly/000.png
<root>/split_csv/1cls.csv             else splits are assigned
or, converted:
<root>/<category>/train/good/0000.JPG
<root>/<category>/test/good/0001.JPG
<root>/<category>/test/bad/000.JPG
<root>/<category>/ground_truth/bad/000.png"""

# Masks hold the small number of a kind of defect (1, 2, ...): any is a defect. The
# converted ones are 0 and 255, unless a converter copied them as they were.
MASK_ABOVE: Final = 0
CONVERTED: Final = replace(mvtec.FOLDERS, picture=PICTURE, mask_above=MASK_ABOVE)

SPLIT_CSV: Final = "split_csv/1cls.csv"
COLUMNS: Final = ("object", "split", "label", "image", "mask")
SPLITS: Final = ("train", "val", "test")
LABELS: Final = {"normal": 0, "anomaly": 1}


def categories(root: Path) -> list[str]:
    """Give the folders of either form."""
    return categories_with(root, "Data/Images", "train", "test")


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the pictures of a category, with the published split where there is one."""
    if not is_folder(root / category / "Data/Images"):
        return split_rows(root, category, category, CONVERTED, log)
    table = root / SPLIT_CSV
    if is_file(table):
        found = _rows_of_table(root, category, table, log)
        return found if found is not None else []
    if is_folder(table.parent):
        _add_once(
            log,
            f"{shown(table.parent)}: holds no file 1cls.csv, so splits are assigned; "
            "copy it from the published archive to use its split",
            severity="warning",
        )
    folder = f"{category}/Data"
    return checked_rows(
        labelled_rows(
            root,
            category,
            [
                LabelledFolder(f"{folder}/Images/Normal", None, None),
                LabelledFolder(
                    f"{folder}/Images/Anomaly",
                    None,
                    "Anomaly",
                    (f"{folder}/Masks/Anomaly",),
                ),
            ],
            log,
            mask_above=MASK_ABOVE,
        ),
        root,
        folder,
        category,
        PICTURE,
        log,
    )


def _rows_of_table(
    root: Path, category: str, table: Path, log: IssueLog
) -> list[ManifestRow] | None:
    """Give the rows of one category; None if the table cannot be used."""
    lines = _read_table(table, log)
    if lines is None:
        return None
    reader = _TableRows(root, category, table, log, {})
    mine = [line for line in lines if line.cells["object"] == category]
    for line in mine:
        reader.read(line)
    found = sorted(reader.rows.values(), key=lambda row: row.image)
    if not mine:
        log.add(
            "DATASET_INVALID_STRUCTURE",
            f'{shown(table)}: names no picture of "{shown(category)}"; add its rows, '
            "or move the table away to have splits assigned",
            category=category,
        )
        return []
    _warn_of_unnamed(root, category, table, {line.cells["image"] for line in mine}, log)
    if len(reader.rows) < len(mine):  # the lines that are wrong are reported
        return found
    return checked_rows(found, root, f"{category}/Data", category, PICTURE, log)


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    cells: dict[str, str]


def _read_table(table: Path, log: IssueLog) -> list[_Line] | None:
    """Give the lines of the table; None, with the reason logged, if it is none."""
    try:
        # "-sig": a spreadsheet writes a byte-order mark when it saves the table.
        with table.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                _add_once(log, _missing_columns(table, header, missing))
                return None
            return list(_lines(reader, header))
    except (OSError, ValueError, csv.Error) as cause:  # ValueError: not UTF-8
        reason = getattr(cause, "strerror", None) or str(cause)
        _add_once(
            log,
            f"{shown(table)}: cannot be read ({reason}); copy it again from the "
            "published archive, or move it away to have splits assigned",
        )
        return None


def _lines(table: Iterable[list[str]], header: list[str]) -> Iterator[_Line]:
    for number, values in enumerate(table, 2):
        if any(values):
            cells = dict(zip(header, map(str.strip, values), strict=False))
            yield _Line(number, {name: cells.get(name, "") for name in COLUMNS})


def _missing_columns(table: Path, header: list[str], missing: list[str]) -> str:
    hints = "; ".join(f"{name}: {closest(name, header)}" for name in missing)
    return (
        f"{shown(table)}:1: lacks the columns {', '.join(missing)} (found: "
        f"{listed(header)}); expected {', '.join(COLUMNS)} ({hints})"
    )


def _add_once(log: IssueLog, message: str, severity: str = "error") -> None:
    """Log what is wrong with the table for all categories one time."""
    if all(issue.message != message for issue in log.issues):
        log.add(
            "DATASET_INVALID_STRUCTURE",
            message,
            severity="warning" if severity == "warning" else "error",
        )


@dataclass(frozen=True, slots=True)
class _TableRows:
    """Turns lines of the table into rows, by picture."""

    root: Path
    category: str
    table: Path
    log: IssueLog
    rows: dict[str, ManifestRow]

    def read(self, line: _Line) -> None:
        """Read one line; a row that is right goes to `rows`."""
        before = self.log.n_errors
        split = self._choice(line, "split", SPLITS)
        label = self._choice(line, "label", tuple(LABELS))
        image = self._file(line, "image")
        mask = self._file(line, "mask") if line.cells["mask"] else None
        if self.log.n_errors > before:
            return
        if image in self.rows:
            self._add(line, "MANIFEST_DUPLICATE_IMAGE", "image", "stands here again")
            return
        is_normal = LABELS[label] == 0
        self.rows[image] = ManifestRow(
            image=image,
            folder=self.root,
            category=self.category,
            split=split,
            label=LABELS[label],
            mask=mask,
            mask_folder=None if mask is None else self.root,
            mask_above=MASK_ABOVE,
            meta={"defect": None if is_normal else PurePosixPath(image).parent.name},
        )

    def _choice(self, line: _Line, column: str, known: tuple[str, ...]) -> str:
        written = line.cells[column]
        if written not in known:
            expected = f"expected one of {', '.join(known)} ({closest(written, known)})"
            self._add(line, "DATASET_INVALID_STRUCTURE", column, expected)
        return written

    def _file(self, line: _Line, column: str) -> str:
        """Give the path of a file under the root, in its plain form."""
        written = line.cells[column]
        pure, windows = PurePosixPath(written), PureWindowsPath(written)
        outward = ".." in pure.parts or ".." in windows.parts
        if outward or pure.is_absolute() or windows.drive:
            self._add(
                line,
                "MANIFEST_PATH_ESCAPE",
                column,
                "is absolute or leaves the root; write it relative to the root",
            )
        elif not is_file(self.root / written):
            self._add(
                line,
                f"MANIFEST_MISSING_{column.upper()}",
                column,
                f"is no file in {shown(self.root)}; copy it there or remove the line",
            )
        return pure.as_posix()

    def _add(self, line: _Line, code: str, column: str, what: str) -> None:
        written = line.cells[column]
        self.log.add(
            code,
            f'{shown(self.table)}:{line.number}: {column}: "{shown(written)}" {what}',
            line=line.number,
            field=column,
            path=shown(written),
            category=self.category,
        )


def _warn_of_unnamed(
    root: Path, category: str, table: Path, named: set[str], log: IssueLog
) -> None:
    """Log how many pictures lie in the folders that the table does not name."""
    known = {PurePosixPath(image).as_posix() for image in named}
    folders = [f"{category}/Data/Images/{kind}" for kind in ("Normal", "Anomaly")]
    unnamed = [
        f"{folder}/{name}"
        for folder in folders
        for name in pictures_in(root / folder, log)
        if f"{folder}/{name}" not in known
    ]
    if unnamed:
        log.add(
            "DATASET_INVALID_STRUCTURE",
            f"{shown(table)}: does not name {len(unnamed)} pictures of "
            f'"{shown(category)}" (such as {shown(unnamed[0])}); they are not read',
            severity="warning",
            category=category,
            n_pictures=len(unnamed),
        )


LAYOUT: Final = Layout("visa", PICTURE, categories, rows)
