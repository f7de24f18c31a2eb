"""MVTec AD (Bergmann et al., CVPR 2019), and every set that is arranged like it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import ManifestRow
from .interface import Layout
from .split_folders import SplitFolders, categories_with, split_rows

PICTURE: Final = """\
<root>/<category>/train/good/000.png
<root>/<category>/test/good/000.png
<root>/<category>/test/<defect>/000.png
<root>/<category>/ground_truth/<defect>/000_mask.png"""

FOLDERS: Final = SplitFolders(PICTURE)


def categories(root: Path) -> list[str]:
    """Give the folders with a train or a test folder."""
    return categories_with(root, "train", "test")


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the pictures of a category; the kind of defect stands in `meta`."""
    return split_rows(root, category, category, FOLDERS, log)


LAYOUT: Final = Layout("mvtec", PICTURE, categories, rows)
