"""What the search for near-duplicates finds: in photographs, and of planted copies.

    PYIMGANO_TEST_DATA=... python benchmarks/near_duplicates.py --output FOLDER

For each reference set: the pairs across train and test, a contact sheet of the ten most
similar ones whatever their similarity (to be judged by eye), and how many of planted
copies of 60 train pictures are found: saved again, made smaller, moved, re-exposed,
noisy, turned.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pyimgano.datasets.near_duplicates import (
    SIMILAR,
    descriptor,
    find_near_duplicates,
    thumbnail,
)

Grey = np.ndarray[Any, Any]
SETS: Final = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
PLANTED: Final = 60
SHOWN_SIDE: Final = 240  # px


def saved_again(grey: Grey) -> Grey:
    """Give the picture at JPEG quality 50."""
    data = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 50])[1]
    return cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)


def halved(grey: Grey) -> Grey:
    """Give the picture at half its size."""
    return cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def moved(grey: Grey) -> Grey:
    """Give the picture moved by 2 % of its width and 1 % of its height."""
    height, width = grey.shape
    shift = np.asarray([[1, 0, 0.02 * width], [0, 1, 0.01 * height]], np.float32)
    return cv2.warpAffine(grey, shift, (width, height), borderMode=cv2.BORDER_REFLECT)


def exposed(grey: Grey) -> Grey:
    """Give the picture with less contrast and more light."""
    return cv2.convertScaleAbs(grey, alpha=0.7, beta=20)


def noisy(grey: Grey) -> Grey:
    """Give the picture with noise of 4 grey levels."""
    noise = np.random.default_rng(0).normal(0, 4, grey.shape)
    return np.clip(grey + noise, 0, 255).astype(np.uint8)


def turned(grey: Grey) -> Grey:
    """Give the picture turned by one degree."""
    height, width = grey.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 1, 1)
    return cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REFLECT)


COPIES: Final[dict[str, Callable[[Grey], Grey]]] = {
    "JPEG 50": saved_again,
    "half size": halved,
    "moved 2 %": moved,
    "re-exposed": exposed,
    "noise 4": noisy,
    "turned 1 deg": turned,
}


def search(
    greys: list[Grey], tests: np.ndarray[Any, Any], similar: float = SIMILAR
) -> Any:
    """Run the search on decoded pictures."""
    return find_near_duplicates(
        np.stack([descriptor(grey) for grey in greys]),
        tests.astype(np.int8),
        lambda index: thumbnail(greys[index]),
        same=np.arange(len(greys)),
        similar=similar,
    )


def planted_recall(greys: list[Grey], tests: np.ndarray[Any, Any]) -> dict[str, float]:
    """Give the share of planted copies that are found, by kind."""
    train = np.flatnonzero(~tests)
    chosen = np.random.default_rng(0).permutation(train)[:PLANTED]
    found = {}
    for name, change in COPIES.items():
        copies = [change(greys[index]) for index in chosen]
        labels = np.r_[np.zeros(len(train), np.bool_), np.ones(len(copies), np.bool_)]
        pairs = search([*(greys[i] for i in train), *copies], labels).pairs
        right = {
            pair.second - len(train)
            for pair in pairs
            if train[pair.first] == chosen[pair.second - len(train)]
        }
        found[name] = len(right) / len(copies)
    return found


def write_sheet(path: Path, greys: list[Grey], pairs: list[Any]) -> None:
    """Write pairs side by side, two pairs a row, their similarity above."""
    cells = []
    for pair in pairs:
        size = (SHOWN_SIDE, SHOWN_SIDE)
        sides = [cv2.resize(greys[i], size) for i in (pair.first, pair.second)]
        cell = cv2.copyMakeBorder(
            np.hstack(sides), 20, 4, 4, 4, cv2.BORDER_CONSTANT, value=255
        )
        text = f"{pair.similarity:.2f}  {pair.first} - {pair.second}"
        cv2.putText(cell, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, 0, 1)
        cells.append(cell)
    if len(cells) % 2:
        cells.append(np.full_like(cells[0], 255))
    rows = [np.hstack(cells[i : i + 2]) for i in range(0, len(cells), 2)]
    assert cv2.imwrite(str(path), np.vstack(rows))


def main() -> None:
    """Run the sets, write the sheets, print the Markdown rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        sys.exit("PYIMGANO_TEST_DATA is not set; name the folder of reference sets")
    options.output.mkdir(parents=True, exist_ok=True)
    print(f"| set | pairs | clusters | {' | '.join(COPIES)} |")
    print("|---|---|---|" + "---|" * len(COPIES))
    for name in SETS:
        folder = Path(data) / name
        lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        greys = [
            cv2.imread(str(folder / row["image_path"]), cv2.IMREAD_GRAYSCALE)
            for row in rows
        ]
        tests = np.asarray([row["split"] == "test" for row in rows])
        found = search(greys, tests)
        recall = planted_recall(greys, tests)
        shares = " | ".join(f"{share:.2f}" for share in recall.values())
        print(f"| {name} | {len(found.pairs)} | {len(found.clusters)} | {shares} |")
        # For the eye: the ten most similar, whether they count or not.
        pairs = list(search(greys, tests, 0.0).pairs)[:10]
        if pairs:
            write_sheet(options.output / f"{name}.png", greys, pairs)


if __name__ == "__main__":
    main()
