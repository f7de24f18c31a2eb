"""Judges the facts of decoded pictures: what is out of line with the rest.

A category is judged against itself: a limit holds where a picture is far from the
middle of its category (median and MAD) *and* by a step that a person sees. Some
limits are absolute, for a category that is dark as a whole is too dark as well.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .content import PictureTable
from .issues import ISSUE_CODES, IssueLog
from .rows import ManifestRow

ENOUGH_TO_COMPARE: Final = 10  # pictures of a category below which none is unusual
USUAL_SHARE: Final = 0.8  # of a category; where fewer agree, none of it is unusual
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

    def flag(
        self,
        code: str,
        indices: Sequence[int],
        text: Callable[[int], str],
        *,
        all_of_them: str,
        **numbers: npt.NDArray[Any],
    ) -> None:
        """Log pictures, or the category once where a fifth of it and more is concerned.

        Args:
            text: what is found in one picture, and what the others have.
            all_of_them: the same of many pictures.
            numbers: facts of every row, for the context.
        """
        if len(indices) > (1 - USUAL_SHARE) * len(self.index):
            self.log.add(
                code,
                f"{self.name}: {len(indices)} of {len(self.index)} pictures "
                f"{all_of_them}; check that this is meant",
                severity="info",
                category=self.name,
                n_images=len(indices),
                images=[self._facts(i) for i in indices[:20]],
            )
            return
        for i in indices:
            facts = {name: values[i].tolist() for name, values in numbers.items()}
            self.log.add(
                code,
                f"{self.name}: {self.rows[i].title} {text(i)}; "
                f"{ISSUE_CODES[code].advice}",
                **self._facts(i),
                **facts,
            )

    def _facts(self, i: int) -> dict[str, Any]:
        row = self.rows[i]
        return {"category": self.name, "line": row.line, "image": row.image}


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
    for code, values, one, many in (
        ("IMAGE_CHANNELS_UNUSUAL", table.channels, "channel", "channels"),
        (
            "IMAGE_BIT_DEPTH_UNUSUAL",
            table.bit_depth,
            "bit per channel",
            "bits per channel",
        ),
    ):
        counts = Counter(values[index].tolist())
        (usual, n_usual), *others = counts.most_common()
        if not others or len(index) < ENOUGH_TO_COMPARE:
            continue

        def text(
            i: int,
            values: npt.NDArray[np.uint8] = values,
            words: tuple[str, str] = (one, many),
            rest: str = f"{n_usual} of {len(index)} pictures have {usual}",
        ) -> str:
            found = int(values[i])
            return f"has {found} {words[found != 1]}, {rest}"

        category.flag(
            code,
            index[values[index] != usual].tolist(),
            text,
            all_of_them=f"have not {usual} {many} as the others",
            found=values,
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
        rest = f"{n_usual} of {len(index)} pictures are {usual[0]}x{usual[1]}"
    else:
        logs = np.log(sizes.astype(np.float64))
        shape, area = logs[:, 1] - logs[:, 0], logs.sum(axis=1)
        unusual = _far(shape, math.log(SIDE_FACTOR))
        unusual |= _far(area, 2 * math.log(SIDE_FACTOR))
        height, width = (int(side) for side in np.median(sizes, axis=0))
        rest = f"the middle of its category is {height}x{width}"
        _log_variety(category, sizes, len(counts))
        if unusual.mean() > 1 - USUAL_SHARE:
            return  # of several shapes, which the issue above has said
    height_width = category.table.size
    category.flag(
        "IMAGE_SIZE_UNUSUAL",
        index[unusual].tolist(),
        lambda i: (
            f"is {height_width[i, 0]}x{height_width[i, 1]} (height x width), {rest}"
        ),
        all_of_them="have another size than the others",
        size=height_width,
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
    category.flag(
        "IMAGE_CONSTANT",
        index[constant].tolist(),
        lambda i: (
            f"is (nearly) one grey level: mean {table.mean[i]:.1f}, deviation "
            f"{table.deviation[i]:.2f}"
        ),
        all_of_them="are (nearly) one grey level",
        mean=table.mean,
        deviation=table.deviation,
    )
    index = index[~constant]
    dark = table.bright[index] < DARK_BRIGHT
    if len(index) >= ENOUGH_TO_COMPARE:
        means = table.mean[index]
        dark |= _far(means, 0.0) & (means < DARK_SHARE * float(np.median(means)))
        _check_white_and_blur(category, index[~dark])
    middle = float(np.median(table.mean[category.index]))
    category.flag(
        "IMAGE_TOO_DARK",
        index[dark].tolist(),
        lambda i: (
            f"is dark: mean grey level {table.mean[i]:.1f}, 99 % of the pixels are at "
            f"most {table.bright[i]} of 255; the middle of its category is {middle:.1f}"
        ),
        all_of_them=f"are dark; the middle mean grey level is {middle:.1f} of 255",
        mean=table.mean,
        bright=table.bright,
    )


def _check_white_and_blur(category: _Category, index: npt.NDArray[np.int64]) -> None:
    if not len(index):
        return
    table = category.table
    white = table.white[index]
    middle = float(np.median(white))
    category.flag(
        "IMAGE_SATURATED",
        index[_far(white, WHITE_STEP) & (white > middle)].tolist(),
        lambda i: (
            f"is overexposed: {table.white[i]:.0%} of its pixels are at 255, the "
            f"middle of its category is {middle:.0%}"
        ),
        all_of_them="have far more pixels at 255 than the others",
        white_share=table.white,
    )
    sharp = np.log(np.maximum(table.sharpness[index].astype(np.float64), 1e-6))
    level = float(np.median(sharp))
    usual = math.exp(level)
    category.flag(
        "IMAGE_BLURRED",
        index[_far(sharp, math.log(BLUR_FACTOR)) & (sharp < level)].tolist(),
        lambda i: (
            f"is {usual / max(float(table.sharpness[i]), 1e-6):.1f} times less sharp "
            "than the middle of its category"
        ),
        all_of_them="are far less sharp than the others",
        sharpness=table.sharpness,
    )


def _far(values: npt.NDArray[Any], step: float) -> npt.NDArray[np.bool_]:
    """Which values are farther from the median than `step` and than FAR sigmas."""
    distance = np.abs(values - np.median(values))
    sigma = MAD_TO_SIGMA * float(np.median(distance))
    far: npt.NDArray[np.bool_] = distance > max(step, FAR * sigma)
    return far
