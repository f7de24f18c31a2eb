"""Draws pictures of a part into good/, bad/ and bad_masks/, to try the path with.

    python examples/draw_part.py part

The same seed gives the same pictures; no download, nobody's photographs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

from pyimgano.datasets.generated_parts import DEFECT_NAMES, PART_NAMES, draw_part


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Draw pictures of a part.")
    parser.add_argument("folder", type=Path, help="folder to make")
    parser.add_argument("--part", choices=PART_NAMES, default="bracket")
    parser.add_argument("--good", type=int, default=150, help="good pictures")
    parser.add_argument("--bad", type=int, default=24, help="bad pictures")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    for number in range(options.good):
        drawn = draw_part(options.part, random)
        save(options.folder / "good" / f"{number:03d}.png", drawn.image_u8)
    for number in range(options.bad):
        defect = DEFECT_NAMES[number % len(DEFECT_NAMES)]
        drawn = draw_part(options.part, random, defect=defect)
        save(options.folder / "bad" / f"{number:03d}.png", drawn.image_u8)
        mask = drawn.mask.astype(np.uint8) * 255
        save(options.folder / "bad_masks" / f"{number:03d}.png", mask)
    print(f"{options.folder}: {options.good} good and {options.bad} bad pictures")


def save(path: Path, pixels: np.ndarray) -> None:
    """Write a PNG file of RGB or grey pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    path.write_bytes(encoded[1].tobytes())


if __name__ == "__main__":
    main()
