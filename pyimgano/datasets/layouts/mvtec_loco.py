"""MVTec LOCO AD (Bergmann et al., IJCV 2022): logical and structural anomalies."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import ManifestRow
from .interface import Layout
from .labelled_folders import mask_folders
from .split_folders import SplitFolders, categories_with, split_rows

PICTURE: Final = """\
<root>/<category>/train/good/000.png
<root>/<category>/validation/good/000.png
<root>/<category>/test/good/000.png
<root>/<category>/test/logical_anomalies/000.png
<root>/<category>/test/structural_anomalies/000.png
<root>/<category>/ground_truth/logical_anomalies/000/000.png, 001.png, ..."""

FOLDERS: Final = SplitFolders(
    PICTURE,
    splits={"train": "train", "validation": "val", "test": "test"},
    # One folder a picture, one file a defect. The value of a file's pixels names the
    # kind of defect (defects_config.json), so any value above 0 is one.
    read_masks=mask_folders,
    mask_above=0,
)


def categories(root: Path) -> list[str]:
    """Give the folders with a train or a test folder."""
    return categories_with(root, "train", "test")


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the pictures of a category; a mask is the folder of its files."""
    return split_rows(root, category, category, FOLDERS, log)


LAYOUT: Final = Layout("mvtec_loco", PICTURE, categories, rows)
