"""overview.html: a single file, without script, network or fonts of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from pyimgano_runtime._version import __version__

from .heat_scale import HeatScale
from .html_page import render
from .overview_facts import (
    CategoryResult,
    InspectedPart,
    Overview,
    difference,
    percent,
    promise_words,
    score_text,
    share_of,
)
from .overview_gallery import gallery, pictures
from .picture_drawing import data_uri
from .tables import number, with_interval
from .threshold_story import asked_words, origin_words

TEMPLATE: Final = "overview.html.j2"

# The chart's layout in CSS pixels; across, everything is in percent, so that dots and
# letters keep their size on a telephone.
BAND: Final = 70  # a label, and dots below it
LABEL: Final = 24
TOP: Final = 24  # the threshold's label
AXIS: Final = 22
DOT: Final = 6
MARGIN: Final = 3.0  # percent
GOLDEN_RATIO: Final = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Dot:
    """One picture in the chart."""

    x: float  # percent
    y: float  # pixels
    wrong: bool
    title: str


@dataclass(frozen=True, slots=True)
class Band:
    """One row of dots."""

    label: str
    kind: str  # "reference", "good" or "defective"
    top: int
    floor: int
    dots: tuple[Dot, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Scores from left to right, the threshold between them."""

    bands: tuple[Band, ...]
    threshold: float  # percent
    limit: str  # the threshold itself
    height: int
    ticks: tuple[tuple[float, str], ...]  # (percent, label)
    summary: str


def page_html(overview: Overview) -> str:
    """The whole page."""
    facts = {
        "overview": overview,
        "tiles": _tiles(overview),
        "categories": [_category(c, overview) for c in overview.categories],
        "measures": _measures(overview),
        "version": __version__,
    }
    return render(TEMPLATE, facts)


def _category(category: CategoryResult, overview: Overview) -> dict[str, Any]:
    groups = []
    for group in gallery(category):
        shown = [_card(part, category, overview) for part in group.parts]
        groups.append({"group": group, "cards": shown})
    origin, many = category.settings.thresholds.provenance["image"], overview.noun[1]
    has_maps = any(part.map_path for part in category.parts)
    return {
        "name": category.name,
        "chart": chart(category, overview.noun[1]),
        "promise": promise_words(category, overview.noun),
        "origin": origin_words(origin, many) + asked_words(origin, many),
        "groups": groups,
        "has_masks": any(part.mask_path for part in category.parts),
        "scale": HeatScale.of(category.settings).bar() if has_maps else None,
    }


def _card(
    part: InspectedPart, category: CategoryResult, overview: Overview
) -> dict[str, Any]:
    shown = pictures(part, category, overview.rules)
    ring = ", the true defect ringed in yellow" if shown.has_truth else ""
    return {
        "part": part,
        "photo": data_uri(shown.photo),
        "photo_alt": f"{category.name}, {part.kind}{ring}",
        "heat": None if shown.heat is None else data_uri(shown.heat),
        "heat_alt": f"Heat map of the same picture: {part.verdict}",
        "score": score_text(part.score),
        "of_threshold": percent(part.score / category.threshold),
        "p_value": None if part.p_value is None else f"{part.p_value:.2g}",
    }


def _tiles(overview: Overview) -> list[tuple[str, str, str]]:
    """(what, number, explanation) of the figures at the top."""
    categories, many = overview.categories, overview.noun[1]
    n_found = sum(c.n_found for c in categories)
    n_defective = sum(len(c.defective) for c in categories)
    n_alarms = sum(c.n_false_alarms for c in categories)
    n_good = sum(len(c.good) for c in categories)
    promised = [c.promised for c in categories if c.promised is not None]
    same = overview.n_parts - overview.label_flips
    ms = float(np.median([part.ms for c in categories for part in c.parts]))
    return [
        (
            f"Defective {many} found",
            f"{n_found} of {n_defective}",
            f"by {overview.detector}, which was shown good {many} only",
        ),
        (
            "False alarms",
            f"{n_alarms} of {n_good}",
            f"promised: about {percent(max(promised))} of good {many}"
            if promised
            else "the threshold was set by hand",
        ),
        (
            "Same verdict without torch",
            f"{same} of {overview.n_parts}",
            f"largest score difference: {difference(overview.max_rel_score_diff)}",
        ),
        ("Time per picture", f"{ms:.0f} ms", "file to verdict, on this machine's CPU"),
    ]


def _measures(overview: Overview) -> list[tuple[str, str, list[str]]]:
    """(measure, explanation, a cell per category) of the table."""
    categories, many = overview.categories, overview.noun[1]

    def row(measure: str, explanation: str, cells: Sequence[str]) -> Any:
        return measure, explanation, list(cells)

    trained = [str(c.report["counts"]["train_normals"]) for c in categories]
    rows = [
        row("Learned from", f"good {many}, no defective ones", trained),
        row(
            "Tested on",
            "pictures that were not used before",
            [f"{len(c.good)} good, {len(c.defective)} defective" for c in categories],
        ),
        row(
            "Found",
            f"defective {many} at or above the threshold",
            [share_of(c.n_found, len(c.defective)) for c in categories],
        ),
        row(
            "False alarms, promised",
            f"share of good {many}",
            [
                "-" if c.promised is None else f"about {percent(c.promised)}"
                for c in categories
            ],
        ),
        row(
            "False alarms, measured",
            f"good {many} at or above the threshold",
            [share_of(c.n_false_alarms, len(c.good)) for c in categories],
        ),
        row(
            "Image AUROC",
            "chance that a defective one scores above a good one; 1 is perfect",
            [with_interval(dict(c.report), "image_auroc") for c in categories],
        ),
    ]
    if any(c.report.get("pixel_auroc") is not None for c in categories):
        rows.append(
            row(
                "Pixel AUROC",
                "the same for the pixels of the heat map",
                [number(c.report.get("pixel_auroc")) for c in categories],
            )
        )
    rows += [
        row(
            "Score difference",
            "largest, between trained model and copied bundle",
            [difference(c.agreement.max_rel_score_diff) for c in categories],
        ),
        row(
            "Verdicts that differ",
            "between trained model and copied bundle",
            [
                f"{c.agreement.label_flips} of {c.agreement.n_images}"
                for c in categories
            ],
        ),
        row(
            "Time per picture",
            "median, file to verdict with heat map, no torch",
            [f"{c.ms:.0f} ms" for c in categories],
        ),
    ]
    return rows


# --- chart --------------------------------------------------------------------------


def chart(category: CategoryResult, many: str) -> Chart:
    """Where the dots of a category's scores lie."""
    reference = [
        (float(score), False, f"score {score_text(score)}")
        for score in category.settings.calibration.image_scores
    ]
    bands = [
        (
            "reference",
            f"{len(reference)} good {many} that set the threshold",
            reference,
        ),
        ("good", f"{len(category.good)} good {many}, tested", _dots(category.good)),
        (
            "defective",
            f"{len(category.defective)} defective {many}, tested",
            _dots(category.defective),
        ),
    ]
    bands = [band for band in bands if band[2]]
    scores = [score for _, _, dots in bands for score, _, _ in dots]
    low = min(*scores, category.threshold)
    span = max(*scores, category.threshold) - low or 1.0

    def across(score: float) -> float:
        return MARGIN + (100 - 2 * MARGIN) * (score - low) / span

    placed = []
    for place, (kind, label, dots) in enumerate(bands):
        top = TOP + place * BAND
        floor = top + BAND
        placed.append(Band(label, kind, top, floor, _spread(dots, across, floor)))
    return Chart(
        bands=tuple(placed),
        threshold=across(category.threshold),
        limit=score_text(category.threshold),
        height=TOP + BAND * len(placed) + AXIS,
        ticks=tuple((across(tick), f"{tick:g}") for tick in _ticks(low, low + span)),
        summary=(
            f"Scores of {category.name}: {category.n_found} of "
            f"{len(category.defective)} defective and {category.n_false_alarms} of "
            f"{len(category.good)} good {many} lie at or above the threshold "
            f"{score_text(category.threshold)}."
        ),
    )


def _dots(parts: Sequence[InspectedPart]) -> list[tuple[float, bool, str]]:
    return [
        (
            part.score,
            part.wrong,
            f"{part.kind}, {part.verdict}, score {score_text(part.score)}",
        )
        for part in parts
    ]


def _spread(
    dots: Sequence[tuple[float, bool, str]], across: Any, floor: int
) -> tuple[Dot, ...]:
    """Dots at their score; up and down they only make room for each other."""
    room = BAND - LABEL - DOT
    return tuple(
        # Multiples of the golden ratio keep neighbours far apart.
        Dot(across(score), floor - DOT - room * (n * GOLDEN_RATIO % 1), wrong, title)
        for n, (score, wrong, title) in enumerate(sorted(dots))
    )


def _ticks(low: float, high: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=6).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]
