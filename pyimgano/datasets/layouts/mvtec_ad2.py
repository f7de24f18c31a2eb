"""MVTec AD 2 (Heckler-Kram et al., 2025), its public part.

`test_private` and `test_private_mixed` carry no labels, for the authors' server scores
them; they are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..issues import IssueLog
from ..rows import ManifestRow
from .interface import Layout
from .split_folders import SplitFolders, categories_with, split_rows

PICTURE: Final = """\
<root>/<category>/train/good/000_regular.png
<root>/<category>/validation/good/000_regular.png
<root>/<category>/test_public/good/000_regular.png
<root>/<category>/test_public/bad/000_regular.png
<root>/<category>/test_public/ground_truth/bad/000_regular_mask.png"""

FOLDERS: Final = SplitFolders(
    PICTURE,
    splits={"train": "train", "validation": "val", "test_public": "test"},
    masks=("test_public/ground_truth",),
    left_out=frozenset({"test_private", "test_private_mixed"}),
)


def categories(root: Path) -> list[str]:
    """Give the folders with a train or a public test folder."""
    return categories_with(root, "train", "test_public")


def rows(root: Path, category: str, log: IssueLog) -> list[ManifestRow]:
    """Give the labelled pictures of a category."""
    return split_rows(root, category, category, FOLDERS, log)


LAYOUT: Final = Layout("mvtec_ad2", PICTURE, categories, rows)
