"""overview.png: the same as the page at a glance, for a chat, a slide or a printout."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np

from .overview_facts import (
    CategoryResult,
    Overview,
    difference,
    percent,
    score_text,
    share_of,
)
from .overview_gallery import gallery, pictures

DPI: Final = 100
WIDTH: Final = 16.0  # inches
COLUMNS: Final = 9  # pictures a category: 3 mistakes, 3 found, 3 accepted
HEADER: Final = 1.45  # inches
SIDE: Final = 0.03  # margin left and right, of the width
STRIP: Final = 2.35
GALLERY: Final = 4.35
FOOTER: Final = 0.65

INK: Final = "#191c20"
SOFT: Final = "#545c68"
LINE: Final = "#d7dbe1"
GOOD: Final = "#0072b2"
BAD: Final = "#d55e00"  # with GOOD: told apart in every kind of colour blindness


def figure_png(overview: Overview) -> bytes:
    """The picture as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    n = len(overview.categories)
    heights = [HEADER, *([STRIP, GALLERY] * n), FOOTER]
    figure = Figure(figsize=(WIDTH, sum(heights)), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    parts: Any = figure.subfigures(len(heights), 1, height_ratios=heights)
    _header(parts[0], overview)
    for index, category in enumerate(overview.categories):
        _strip(parts[1 + 2 * index], category, overview.noun[1])
        _gallery(parts[2 + 2 * index], category, overview)
    _footer(parts[-1], overview)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _header(panel: Any, overview: Overview) -> None:
    panel.text(SIDE, 0.64, overview.headline, size=27, weight="bold", color=INK)
    same = overview.n_parts - overview.label_flips
    panel.text(
        SIDE,
        0.38,
        f"{overview.detector}, trained on good {overview.noun[1]} only, exported, and "
        f"run from a copy without torch: same verdict on {same} of "
        f"{overview.n_parts} pictures, largest score difference "
        f"{difference(overview.max_rel_score_diff)}.",
        size=13.5,
        color=SOFT,
    )
    panel.text(SIDE, 0.17, overview.notice or overview.data, size=11, color=SOFT)


def _strip(panel: Any, category: CategoryResult, many: str) -> None:
    axes = panel.add_axes((0.15, 0.2, 0.82, 0.56))
    calibration = list(category.settings.calibration.image_scores)
    lanes = [
        (f"{len(calibration)} good {many} that\nset the threshold", SOFT),
        (f"{len(category.good)} good {many},\ntested", GOOD),
        (f"{len(category.defective)} defective {many},\ntested", BAD),
    ]
    dots = [
        [(score, False) for score in calibration],
        [(part.score, part.wrong) for part in category.good],
        [(part.score, part.wrong) for part in category.defective],
    ]
    rng = np.random.default_rng(0)  # the same jitter for the same data
    for place, ((_, colour), lane) in enumerate(zip(lanes, dots, strict=True)):
        axes.scatter(
            [score for score, _ in lane],
            -place + rng.uniform(-0.26, 0.26, len(lane)),
            s=28,
            marker="D" if colour == BAD else "o",
            facecolors=["white" if wrong else colour for _, wrong in lane],
            edgecolors=[colour if wrong else "white" for _, wrong in lane],
            linewidths=[1.6 if wrong else 0.5 for _, wrong in lane],
        )
    axes.set_yticks([0, -1, -2], [label for label, _ in lanes], size=11, color=INK)
    axes.set_ylim(-2.5, 0.5)
    axes.margins(x=0.02)
    left, right = axes.get_xlim()
    axes.set_xlim(left, right)
    axes.axvspan(category.threshold, right, color=BAD, alpha=0.07, lw=0)
    axes.axvline(category.threshold, color=INK, lw=1.8, ls=(0, (5, 3)))
    on_the_right = category.threshold > (left + right) / 2
    axes.annotate(
        f"threshold {score_text(category.threshold)}: called anomalous from here on",
        (category.threshold, 0.5),
        xytext=(-6 if on_the_right else 6, 5),
        textcoords="offset points",
        ha="right" if on_the_right else "left",
        size=11,
        color=INK,
    )
    axes.set_xlabel("anomaly score", size=11, color=SOFT)
    axes.tick_params(axis="x", labelsize=10, colors=SOFT)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    promised = category.promised
    promise = "" if promised is None else f" (promised: about {percent(promised)})"
    panel.text(SIDE, 0.9, category.name, size=18, weight="bold", color=INK)
    panel.text(
        0.15,
        0.9,
        f"found {share_of(category.n_found, len(category.defective))};  false alarms "
        f"{share_of(category.n_false_alarms, len(category.good))}{promise}",
        size=12,
        color=INK,
    )


def _gallery(panel: Any, category: CategoryResult, overview: Overview) -> None:
    column, width = 0, (1 - 2 * SIDE) / COLUMNS
    side = width - 0.006  # of the panel's width; as a share of its height:
    tall = side * WIDTH / GALLERY
    photo_at = 0.93 - tall
    heat_at = photo_at - 0.015 - tall
    for group in gallery(category, n_mistakes=3, n_found=3):
        x = SIDE + column * width
        panel.text(x, 0.95, group.title, size=12.5, weight="bold", color=INK)
        for part in group.parts[: COLUMNS - column]:
            x = SIDE + column * width
            shown = pictures(part, category, overview.rules)
            _picture(panel, shown.photo, (x, photo_at, side, tall))
            if shown.heat is not None:
                _picture(panel, shown.heat, (x, heat_at, side, tall))
            colour, sign = (BAD, "✗") if part.wrong else (GOOD, "✓")
            words = f"{sign} {part.verdict}"
            y = heat_at - 0.05
            panel.text(x, y, words, size=12, weight="bold", color=colour)
            panel.text(x, y - 0.042, part.kind, size=10, color=INK)
            score = f"score {score_text(part.score)}"
            panel.text(x, y - 0.08, score, size=10, color=SOFT)
            column += 1


def _picture(panel: Any, image: Any, place: tuple[float, float, float, float]) -> None:
    axes = panel.add_axes(place, anchor="NW")
    axes.imshow(image, interpolation="lanczos")
    axes.set_axis_off()


def _footer(panel: Any, overview: Overview) -> None:
    words = [
        "Heat maps: the same colours for all pictures of a category; the cyan line "
        "runs around what is marked as anomalous. Hollow dots: wrong verdicts."
    ]
    if any(part.mask_path for c in overview.categories for part in c.parts):
        words.insert(0, "Yellow ring: where the defect really is.")
    panel.text(SIDE, 0.5, " ".join(words), size=11.5, color=SOFT)
    panel.text(SIDE, 0.15, overview.goldens, size=11.5, color=SOFT)
