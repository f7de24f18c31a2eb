"""Judges the facts of decoded pictures: what is out of line with the rest.

A category is judged against itself: a limit holds where a picture is far from the
middle of its category (median and MAD) *and* by a step that a person sees. Some
limits are absolute, for a category that is dark as a whole is too dark as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .content import PictureTable
from .issues import IssueLog
from .rows import ManifestRow

ENOUGH_TO_COMPARE: Final = 10  # pictures of a category below which none is unusual
USUAL_SHARE: Final = 0.8  # of a category that must agree before others are unusual
FAR: Final = 6.0  # robust standard deviations: 2e-9 of a normal distribution
MAD_TO_SIGMA: Final = 1.4826

CONSTANT_DEVIATION: Final = 1.0  # grey levels; a lens cap gives 0.3 to 0.8
DARK_BRIGHT: Final = 24  # grey level that 99 % of the pixels stay below
DARK_SHARE: Final = 0.25  # of the category's middle brightness
WHITE_STEP: Final = 0.25  # share of white pixels above the category's middle
BLUR_FACTOR: Final = 3.0  # times less sharp than the category's middle
SIDE_FACTOR: Final = 2.0  # times larger or smaller, or another shape


@dataclass(frozen=True, slots=True)
class _Category:
    """The pictures of one category that were decoded."""

    name: str
    rows: Sequence[ManifestRow]
    table: PictureTable
    index: npt.NDArray[np.int64]  # into rows and table
    log: IssueLog

    def flag(self, code: str, i: int, text: str, **numbers: Any) -> None:
        """Log one picture; `text` says what is found and what the others have."""
        row = self.rows[i]
        advice = "look at it, and replace it if it is a bad photograph"
        self.log.add(
            code,
            f"{self.name}: {row.place}: {row.image} {text}; {advice}",
            category=self.name,
            line=row.line,
            image=row.image,
            **numbers,
        )


def check_pictures(
    rows: Sequence[ManifestRow], table: PictureTable, log: IssueLog
) -> None:
    """Log pictures that are out of line with their category."""
    of_category: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        if table.decoded[i]:
            of_category.setdefault(row.category, []).append(i)
    for name, members in of_category.items():
        category = _Category(name, rows, table, np.asarray(members, np.int64), log)
        _check_format(category)
        _check_sizes(category)
        _check_light(category)


def _check_format(category: _Category) -> None:
    table, index = category.table, category.index
    for code, values, words in (
        ("IMAGE_CHANNELS_UNUSUAL", table.channels, "channels"),
        ("IMAGE_BIT_DEPTH_UNUSUAL", table.bit_depth, "bits per channel"),
    ):
        counts = Counter(values[index].tolist())
        (usual, n_usual), *others = counts.most_common()
        if not others or len(index) < ENOUGH_TO_COMPARE:
            continue
        if n_usual < USUAL_SHARE * len(index):
            continue
        for i in index[values[index] != usual].tolist():
            found = int(values[i])
            category.flag(
                code,
                i,
                f"has {found} {words}, {n_usual} of {len(index)} others have {usual}",
                found=found,
                usual=usual,
            )


def _check_sizes(category: _Category) -> None:
    index = category.index
    sizes = category.table.size[index]
    counts = Counter(map(tuple, sizes.tolist()))
    (usual, n_usual), *others = counts.most_common()
    if not others or len(index) < ENOUGH_TO_COMPARE:
        return
    if n_usual >= USUAL_SHARE * len(index):
        unusual = (sizes != np.asarray(usual)).any(axis=1)
        text = f"{n_usual} of {len(index)} others are {usual[0]}x{usual[1]}"
    else:
        logs = np.log(sizes.astype(np.float64))
        shape, area = logs[:, 1] - logs[:, 0], logs.sum(axis=1)
        unusual = _far(shape, math.log(SIDE_FACTOR))
        unusual |= _far(area, 2 * math.log(SIDE_FACTOR))
        height, width = (int(side) for side in np.median(sizes, axis=0))
        text = f"the middle of its category is {height}x{width}"
        _log_variety(category, sizes, len(counts))
    for i in index[unusual].tolist():
        height, width = (int(side) for side in category.table.size[i])
        category.flag(
            "IMAGE_SIZE_UNUSUAL",
            i,
            f"is {height}x{width} (height x width), {text}",
            size=[height, width],
        )


def _log_variety(category: _Category, sizes: npt.NDArray[Any], n_sizes: int) -> None:
    (low_h, low_w), (high_h, high_w) = sizes.min(axis=0), sizes.max(axis=0)
    shapes = sizes[:, 1] / sizes[:, 0]
    category.log.add(
        "IMAGE_SIZES_VARY",
        f"{category.name}: {n_sizes} different sizes in {len(sizes)} pictures, heights "
        f"{low_h} to {high_h}, widths {low_w} to {high_w}, width/height "
        f"{shapes.min():.2f} to {shapes.max():.2f}; each is stretched to the model's "
        "size, check that this is meant",
        category=category.name,
        n_sizes=n_sizes,
        heights=[int(low_h), int(high_h)],
        widths=[int(low_w), int(high_w)],
    )


def _check_light(category: _Category) -> None:
    table, index = category.table, category.index
    constant = table.deviation[index] < CONSTANT_DEVIATION
    for i in index[constant].tolist():
        mean, deviation = float(table.mean[i]), float(table.deviation[i])
        category.flag(
            "IMAGE_CONSTANT",
            i,
            f"is (nearly) one grey level: mean {mean:.1f}, deviation {deviation:.2f}",
            mean=round(mean, 2),
            deviation=round(deviation, 3),
        )
    index = index[~constant]
    dark = table.bright[index] < DARK_BRIGHT
    if len(index) >= ENOUGH_TO_COMPARE:
        means = table.mean[index]
        dark |= _far(means, 0.0) & (means < DARK_SHARE * float(np.median(means)))
        _check_white_and_blur(category, index[~dark])
    for i in index[dark].tolist():
        level, bright = float(table.mean[i]), int(table.bright[i])
        category.flag(
            "IMAGE_TOO_DARK",
            i,
            f"is dark: mean grey level {level:.1f}, 99 % of the pixels are at most "
            f"{bright} of 255; the middle of its category is "
            f"{np.median(table.mean[category.index]):.1f}",
            mean=round(level, 2),
            bright=bright,
        )


def _check_white_and_blur(category: _Category, index: npt.NDArray[np.int64]) -> None:
    table = category.table
    white = table.white[index]
    middle = float(np.median(white))
    for i in index[_far(white, WHITE_STEP) & (white > middle)].tolist():
        share = float(table.white[i])
        category.flag(
            "IMAGE_SATURATED",
            i,
            f"is overexposed: {share:.0%} of its pixels are at 255, the middle of its "
            f"category is {middle:.0%}",
            white_share=round(share, 4),
            usual=round(middle, 4),
        )
    sharp = np.log(np.maximum(table.sharpness[index].astype(np.float64), 1e-6))
    level = float(np.median(sharp))
    for i in index[_far(sharp, math.log(BLUR_FACTOR)) & (sharp < level)].tolist():
        factor = math.exp(level) / max(float(table.sharpness[i]), 1e-6)
        category.flag(
            "IMAGE_BLURRED",
            i,
            f"is {factor:.1f} times less sharp than the middle of its category",
            sharpness=round(float(table.sharpness[i]), 4),
            usual=round(math.exp(level), 4),
        )


def _far(values: npt.NDArray[Any], step: float) -> npt.NDArray[np.bool_]:
    """Which values are farther from the median than `step` and than FAR sigmas."""
    distance = np.abs(values - np.median(values))
    sigma = MAD_TO_SIGMA * float(np.median(distance))
    far: npt.NDArray[np.bool_] = distance > max(step, FAR * sigma)
    return far
