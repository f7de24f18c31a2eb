"""One picture of a data set, wherever the list came from: manifest or folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MASK_ABOVE: Final = 127  # half of 255: safe for JPEG's errors and for 1-bit masks


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One picture of a data set.

    Paths are kept as text under a folder that rows share: pathlib keeps the parts of
    every path for good, which would be half of a row's memory.
    """

    image: str  # as written in the manifest: the stable name of this picture
    folder: Path  # `image` stands under it
    category: str
    split: str | None  # "train", "val", "test", or None: to be assigned
    label: int  # 0 normal, 1 anomaly
    mask: str | None = None  # a picture, or a folder of pictures that are joined
    mask_folder: Path | None = None  # `mask` stands under it
    mask_above: int = MASK_ABOVE  # a defect is where the mask is brighter than this
    group_id: str | None = None  # pictures of one part: never divided between splits
    line: int = 0  # in the manifest; 0 where there is none
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def image_path(self) -> Path:
        """Where the picture lies."""
        return self.folder / self.image

    @property
    def image_file(self) -> str:
        """Where the picture lies, as text: for loops over very many rows."""
        return f"{self.folder}/{self.image}"

    @property
    def mask_path(self) -> Path | None:
        """Where its mask lies, if it has one."""
        if self.mask is None:
            return None
        return (self.mask_folder or self.folder) / self.mask

    @property
    def group(self) -> str:
        """The group, or the picture itself where it has none."""
        return f"group:{self.group_id}" if self.group_id else f"image:{self.image}"

    @property
    def title(self) -> str:
        """What a message calls this row."""
        return f"line {self.line}: {self.image}" if self.line else self.image

    @property
    def place(self) -> str:
        """Where a person finds this row."""
        return f"line {self.line}" if self.line else self.image
