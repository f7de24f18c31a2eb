"""What every folder layout offers: its categories, and the rows of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..issues import IssueLog
from ..rows import ManifestRow


@dataclass(frozen=True, slots=True)
class Layout:
    """A way of arranging pictures in folders.

    Attributes:
        name: what users write: "mvtec".
        picture: the folders in a few lines, for errors and docs.
        categories: the names under a root, sorted; none if it is not of this layout.
        rows: the pictures of one category, sorted by name, splits as the layout sets
            them; what is wrong with the folders is logged.
    """

    name: str
    picture: str
    categories: Callable[[Path], list[str]]
    rows: Callable[[Path, str, IssueLog], list[ManifestRow]]
