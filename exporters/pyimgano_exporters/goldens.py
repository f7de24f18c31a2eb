"""Pictures that ride in a bundle so that every device can prove its scores.

Synthetic ones show no part: they are drawn from per-pixel mean and deviation of many
normals, with seeded noise and a drawn defect.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from pyimgano_runtime.tiling import Tiling

Image = npt.NDArray[np.uint8]

MIN_NORMALS: Final = 20  # fewer would let a single photograph shine through
MAX_NORMALS: Final = 64
MAX_SIDE: Final = 320  # pixels: goldens travel to every device
COUNT: Final = 4


def synthetic_goldens(
    normals: Iterable[Image], *, seed: int, tiling: Tiling | None = None
) -> list[Image]:
    """Give four pictures (h, w, 3) uint8: two plain, two with a drawn defect.

    With fewer than 20 normals nothing of them is used: noise and shapes alone. Where
    pictures are cut into tiles, these are corners of pictures in their own scale, a
    little larger than a tile, so that tiles are cut and joined.
    """
    random = np.random.default_rng(seed)
    largest = MAX_SIDE
    if tiling is not None:
        height, width = (side + max(1, side // 8) for side in tiling.size)
        normals = (image[:height, :width] for image in normals)
        largest = max(height, width)
    mean, deviation = _statistics(normals, random, largest)
    pictures = []
    for index in range(COUNT):
        noise = random.standard_normal(mean.shape[:2])[..., None]
        picture = mean + noise * deviation
        if index % 2 == 1:
            picture = _draw_defect(picture, random)
        if index == COUNT - 1:
            picture = picture[: -3 if picture.shape[0] > 16 else None, 1:]  # odd size
        pictures.append(np.clip(np.rint(picture), 0, 255).astype(np.uint8))
    return pictures


def _statistics(
    normals: Iterable[Image], random: np.random.Generator, largest: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Give mean and deviation (h, w, 3) in grey levels."""
    size: tuple[int, int] | None = None
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for image in normals:
        if size is None:
            scale = min(1.0, largest / max(image.shape[:2]))
            height, width = (max(8, round(side * scale)) for side in image.shape[:2])
            size = (height, width)
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
        resized = F.interpolate(
            pixels[None].float(), size=size, mode="bilinear", antialias=True
        )
        values = resized[0].permute(1, 2, 0).double().numpy()
        total, squares = total + values, squares + values**2
        count += 1
        if count == MAX_NORMALS:
            break
    if count < MIN_NORMALS:
        height, width = size or (128, 128)
        rows = np.linspace(-1, 1, height)[:, None, None]
        columns = np.linspace(-1, 1, width)[None, :, None]
        tilt = random.uniform(-20, 20, (2, 3))
        mean = 128 + tilt[0] * rows + tilt[1] * columns
        return mean, np.full((height, width, 3), 6.0)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    return mean, np.sqrt(variance) + 1.0


def _draw_defect(
    picture: npt.NDArray[np.float64], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Add a soft-edged dark blob and a bright scratch."""
    height, width = picture.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width]
    center = random.uniform(0.3, 0.7, 2) * (height, width)
    radius = random.uniform(0.05, 0.12) * min(height, width)
    distance = np.hypot(rows - center[0], columns - center[1])
    blob = 1 / (1 + np.exp(np.clip((distance - radius) / 1.5, -50, 50)))
    angle = random.uniform(0, np.pi)
    across = (rows - center[1] * height / width) * np.cos(angle) + (
        columns - center[0] * width / height
    ) * np.sin(angle)
    scratch = np.exp(-0.5 * (across / 1.2) ** 2)
    result: npt.NDArray[np.float64] = (
        picture - 70 * blob[..., None] + 60 * scratch[..., None]
    )
    return result
