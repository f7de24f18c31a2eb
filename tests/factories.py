"""Data for tests: drawn on the spot, small, the same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyimgano.datasets.generated_parts import draw_part, write_parts


def write_dataset(
    folder: Path,
    *,
    part: str = "bracket",
    n_train: int = 12,
    n_val: int = 0,
    n_test_normal: int = 4,
    n_test_defect: int = 4,
    size: tuple[int, int] = (96, 96),
    seed: int = 0,
    with_splits: bool = True,
) -> Path:
    """Manifest of a new data set; `with_splits=False` leaves every split null."""
    manifest = write_parts(
        folder,
        parts=(part,),
        n_train=n_train + n_val,
        n_test_normal=n_test_normal,
        n_test_defect=n_test_defect,
        size=size,
        seed=seed,
    )
    rows = read_rows(manifest)
    for row in rows[n_train : n_train + n_val]:
        row["split"] = "val"
    if not with_splits:
        rows = [row | {"split": None} for row in rows]
    return write_manifest(manifest, rows)


def read_rows(manifest: Path) -> list[dict[str, Any]]:
    """Rows of a manifest as they stand in the file."""
    return [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]


def write_manifest(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """The path, after the rows were written there, one a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def texture_image(
    rng: np.random.Generator, size: tuple[int, int] = (96, 96)
) -> NDArray[np.uint8]:
    """A woven texture (H, W, 3) RGB that fills the picture."""
    return draw_part("fabric", rng, size=size).image_u8


def corrupt_copy(path: Path) -> Path:
    """A copy beside `path` that ends after half of its bytes."""
    data = path.read_bytes()
    copy = path.with_name(f"{path.stem}_truncated{path.suffix}")
    copy.write_bytes(data[: len(data) // 2])
    return copy
