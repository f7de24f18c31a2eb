"""BTAD, beanTech Anomaly Detection (Mishra et al., ISIE 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import ManifestRow
from .interface import Layout
from .split_folders import SplitFolders, categories_with, split_rows

PICTURE: Final = """\
<root>/01/train/ok/0000.bmp
<root>/01/test/ok/0000.bmp
<root>/01/test/ko/0000.bmp
<root>/01/ground_truth/ko/0000.png"""

# Pictures and masks are .png in some categories and .bmp in others: stems decide.
FOLDERS: Final = SplitFolders(PICTURE, normals=frozenset({"ok"}))


def categories(root: Path) -> list[str]:
    """Give the folders with a train or a test folder: 01, 02 and 03."""
    return categories_with(root, "train", "test")


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the pictures of a category."""
    return split_rows(root, category, category, FOLDERS, log)


LAYOUT: Final = Layout("btad", PICTURE, categories, rows)
