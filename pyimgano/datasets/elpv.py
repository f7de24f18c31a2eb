"""Real photographs without a hub: solar cells from the PyPI package `elpv-dataset`.

The package holds 2,624 electroluminescence pictures (300 x 300, grey) of the cells of
44 solar modules, each with the probability that experts gave to a defect. We take the
monocrystalline cells that were judged surely good (0) or surely defective (1).

Cells of one module lie side by side in the file order and look alike, so a random split
would test on modules that the model has seen. The files do not say where a module
ends: we cut the order into blocks of neighbours and give each block to one split. The
blocks cut through modules, so results stay a little too good.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from pyimgano_runtime.atomic import write_text
from pyimgano_runtime.errors import ConfigError, DatasetError

PACKAGE: Final = "elpv_dataset"
CATEGORY: Final = "elpv_mono"
LICENCE_NOTE: Final = (
    "solar cell pictures: ELPV data set, CC BY-NC-SA 4.0, not for commercial use; cite "
    "Buerhop-Lutz et al., EU PVSEC 2018, and Deitsch et al., Solar Energy 185, 2019"
)

BLOCK: Final = 18  # neighbouring cells that share a split; a module has about 60
TEST_BLOCKS: Final = 3  # every third block tests

SURELY_GOOD: Final = 0.0
SURELY_DEFECTIVE: Final = 1.0


class _Cell(NamedTuple):
    path: Path
    defective: bool
    block: int

    @property
    def tests(self) -> bool:
        return self.block % TEST_BLOCKS == TEST_BLOCKS - 1


def write_elpv(
    folder: Path,
    *,
    n_train: int = 200,
    n_test_normal: int = 80,
    n_test_defect: int = 60,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Path of the manifest of a new data set in `folder`, pictures copied into it.

    Of each kind the wanted number is taken, spread evenly over the file order and so
    over the modules; all of them where there are fewer.

    Args:
        progress: called with (pictures copied, pictures in all) after each picture.

    Raises:
        ConfigError: the package is not installed.
        DatasetError: its files are not the ones we know.
    """
    cells = _cells(_data_folder())
    chosen = [
        ("train", cell)
        for cell in _spread([c for c in cells if not (c.tests or c.defective)], n_train)
    ]
    for defective, count in ((False, n_test_normal), (True, n_test_defect)):
        found = [c for c in cells if c.tests and c.defective == defective]
        chosen += [("test", cell) for cell in _spread(found, count)]

    lines = []
    for done, (split, cell) in enumerate(chosen, start=1):
        kind = "defective" if cell.defective else "good"
        image_path = f"images/{CATEGORY}/{split}/{kind}/{cell.path.name}"
        target = folder / image_path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cell.path.read_bytes())
        row = {
            "image_path": image_path,
            "category": CATEGORY,
            "split": split,
            "label": int(cell.defective),
            "mask_path": None,
            "group_id": f"block-{cell.block:02d}",
            "meta": {"defect": "defective cell" if cell.defective else None},
        }
        lines.append(json.dumps(row) + "\n")
        if progress:
            progress(done, len(chosen))
    manifest = folder / "manifest.jsonl"
    write_text(manifest, "".join(lines))
    return manifest


def _data_folder() -> Path:
    """Find the package's files without importing it: that would need Pillow."""
    spec = find_spec(PACKAGE)
    for place in (spec and spec.submodule_search_locations) or ():
        if (Path(place) / "data" / "labels.csv").is_file():
            return Path(place) / "data"
    raise ConfigError(
        "--dataset elpv: its pictures come in the package elpv-dataset, which is not "
        "installed here: pip install elpv-dataset (91 MB; CC BY-NC-SA 4.0)"
    )


def _cells(folder: Path) -> list[_Cell]:
    """The monocrystalline cells that are surely good or defective, in file order."""
    labels = folder / "labels.csv"
    cells: list[_Cell] = []
    with labels.open(encoding="utf-8", newline="") as stream:
        table = csv.reader(stream, delimiter=" ", skipinitialspace=True)
        for number, row in enumerate(table, start=1):
            try:
                name, probability, kind = (field for field in row if field)
                defective = float(probability)
            except ValueError as cause:
                raise DatasetError(
                    f'{labels}: line {number}: found {row}, expected "path probability '
                    'type"; install elpv-dataset 1.0.0.post1'
                ) from cause
            if kind == "mono" and defective in (SURELY_GOOD, SURELY_DEFECTIVE):
                block = len(cells) // BLOCK
                cells.append(_Cell(folder / name, defective == SURELY_DEFECTIVE, block))
    return cells


def _spread(cells: list[_Cell], count: int) -> list[_Cell]:
    """At most `count` cells, evenly spaced from the first to the last."""
    if len(cells) <= count:
        return cells
    return [cells[place * len(cells) // count] for place in range(count)]
