"""A small bundle with a drift reference, and pictures of its line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny_bundle import edit_document, save_picture, write_bundle

from pyimgano_runtime import Predictor
from pyimgano_runtime.picture_statistics import picture_statistics
from pyimgano_runtime.reference import picture_reference, with_scores

N = 60  # pictures of the reference

Image = npt.NDArray[np.uint8]


def picture(rng: np.random.Generator, brighter: float = 0) -> Image:
    """Give a picture of the line: grey about 80, its lamp is not quite steady."""
    level = rng.normal(80 + brighter, 4)
    values = np.clip(rng.normal(level, 6, (24, 32, 3)), 0, 255)
    return values.astype(np.uint8)


def write_watched_bundle(folder: Path, **options: Any) -> Path:
    """Write a bundle whose reference and calibration are of such pictures."""
    write_bundle(folder, threshold=200.0, **options)
    predictor = Predictor.open(folder)
    rng = np.random.default_rng(7)
    images = [picture(rng) for _ in range(N)]
    scores = sorted(predictor.predict(image).score for image in images)
    reference = picture_reference([picture_statistics(i) for i in images], N)

    def edit(document: dict[str, Any]) -> None:
        document["schema_version"] = "1.3"
        (category,) = document["categories"].values()
        category["calibration"] = {"image_scores": scores, "n_images": N}
        category["thresholds"]["provenance"]["image"] |= {"n_images": N, "n_groups": N}
        category["reference"] = json.loads(json.dumps(asdict(reference)))

    edit_document(folder, edit)
    settings = Predictor.open(folder).settings
    own = with_scores(reference, settings.thresholds, settings.calibration)

    def add_scores(document: dict[str, Any]) -> None:
        (category,) = document["categories"].values()
        category["reference"] = json.loads(json.dumps(asdict(own)))

    edit_document(folder, add_scores)
    return folder


def save_pictures(folder: Path, n: int, *, brighter: float = 0, seed: int = 8) -> Path:
    """Write pictures of the line into a folder."""
    rng = np.random.default_rng(seed)
    for index in range(n):
        save_picture(folder / f"{index:04d}.png", picture(rng, brighter))
    return folder
