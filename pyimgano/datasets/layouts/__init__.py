"""The table of folder layouts, and which one a folder is of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from . import btad, custom, mvtec, mvtec_ad2, mvtec_loco, visa
from .folder_pictures import folders_in, is_folder
from .interface import Layout

LAYOUTS: Final[dict[str, Layout]] = {
    "custom": custom.LAYOUT,
    "mvtec": mvtec.LAYOUT,
    "mvtec_loco": mvtec_loco.LAYOUT,
    "mvtec_ad2": mvtec_ad2.LAYOUT,
    "visa": visa.LAYOUT,
    "btad": btad.LAYOUT,
}

# A layout is recognised by a category that holds all folders of one line. Of mvtec also
# ground_truth is asked for: without masks, `custom` reads the same and knows val too.
MARKS: Final[tuple[tuple[str, tuple[str, ...]], ...]] = (
    ("mvtec_ad2", ("test_public",)),
    ("mvtec_loco", ("test/logical_anomalies",)),
    ("mvtec_loco", ("test/structural_anomalies",)),
    ("visa", ("Data/Images",)),
    ("btad", ("train/ok", "test/ko")),
    ("mvtec", ("train/good", "test", "ground_truth")),
)
NOT_IN_MVTEC: Final = ("val", "validation")


def recognise(root: Path) -> str | None:
    """Give the name of the layout that a folder is of, or None.

    Only names of folders are looked at, two levels deep; nothing is opened.
    """
    categories = [root / name for name in folders_in(root)]
    for name, marks in MARKS:
        if any(_is_marked(category, name, marks) for category in categories):
            return name
    return "custom" if custom.categories(root) else None


def _is_marked(category: Path, name: str, marks: tuple[str, ...]) -> bool:
    if not all(is_folder(category / mark) for mark in marks):
        return False
    return name != "mvtec" or not any(is_folder(category / v) for v in NOT_IN_MVTEC)
