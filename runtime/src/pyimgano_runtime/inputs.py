"""One thing to judge: a picture file, or pixels that a stream gave.

Sources give a row of them. Where nothing is there at present (no new file, no line on
stdin) they give None, so that what waits can be judged and a wish to stop be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .quick_dataclass import dataclass

if TYPE_CHECKING:
    from .errors import ImageError
    from .predictor import Image

Inputs = Iterable["Input | None"]


@dataclass(frozen=True, slots=True)
class FileState:
    """Which version of a watched file: with its path, what tells it from others."""

    size: int  # bytes
    mtime_us: int  # microseconds since 1970: exact in every JSON reader

    def to_json(self) -> dict[str, Any]:
        """Give the `file` entry of a row."""
        return {"size": self.size, "mtime_us": self.mtime_us}


@dataclass(frozen=True, slots=True)
class Input:
    """What becomes one row: a file by its path, its bytes, or the pixels themselves."""

    name: str  # `input` of its row
    path: Path | None = None
    # Gives the bytes of a picture file that lies elsewhere; raises ImageError.
    fetch: Callable[[], bytes] | None = None
    pixels: Image | ImageError | None = None  # (H, W, 3) or (H, W) uint8
    decode_ms: float = 0.0  # what the stream took for the pixels
    state: FileState | None = None  # of a watched file


def file_inputs(paths: Iterable[Path]) -> Iterator[Input]:
    """Give the inputs of picture files."""
    return (Input(str(path), path) for path in paths)
