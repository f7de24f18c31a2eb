"""Charts of a leaderboard as inline SVG: histograms, curves, speed against quality.

Each drawing says in its `aria-label` what can be read from it. Models differ by
colour, dash and marker, so that none of the three is needed alone; the colours are
those of Okabe and Ito, which the colour-blind can tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from .overview_facts import score_text

WIDTH: Final = 360
HISTOGRAM_HEIGHT: Final = 170
CURVE_HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 34
BINS: Final = 36
MAX_POINTS: Final = 200  # of a curve
LOG_FROM: Final = 8  # slowest / fastest, from which times get a logarithmic axis
N_COLOURS: Final = 7  # CSS classes c0..c6 of the page
DASHES: Final = ("", "7 3", "2 3", "9 3 2 3", "4 2")
MARKERS: Final = (
    "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",  # circle
    "M-4-4H4V4H-4Z",  # square
    "M0-5.5 5 4H-5Z",  # triangle
    "M0-6 5.5 0 0 6-5.5 0Z",  # diamond
    "M0 5.5 5-4H-5Z",  # triangle, point down
    "M-1.7-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5V-1.7H-1.7Z",  # plus
)

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Style:
    """How one model looks in every chart of the page."""

    colour: str  # CSS class
    dash: str
    marker: str  # SVG path around (0, 0)

    def line(self) -> Markup:
        """Give the key of its curves."""
        return Markup(
            f'<svg class="keyline {self.colour}" viewBox="0 0 34 12" '
            'aria-hidden="true">'
            f'<path class="curve" d="M0 6H34" stroke-dasharray="{self.dash}"/>'
            f'<path class="mark" d="{self.marker}" transform="translate(17 6)"/></svg>'
        )


def styles(models: Iterable[str]) -> dict[str, Style]:
    """Give each model its look."""
    return {
        model: Style(
            f"c{index % N_COLOURS}",
            DASHES[index % len(DASHES)],
            MARKERS[index % len(MARKERS)],
        )
        for index, model in enumerate(sorted(set(models)))
    }


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one model on one category, by one engine."""

    label: str
    style: Style
    scores: Scores
    anomalous: Truth
    threshold: float

    @property
    def has_both(self) -> bool:
        """Whether there are normals and anomalies to tell apart."""
        return bool(self.anomalous.any() and not self.anomalous.all())

    @property
    def flagged(self) -> Truth:
        """What is called anomalous, in float32 as the runtime compares."""
        return self.scores.astype(np.float32) >= np.float32(self.threshold)


def scored_of(
    rows: Sequence[dict[str, Any]], *, label: str, style: Style, threshold: float
) -> Scored | None:
    """Give the scores of per-image rows; None where there are none."""
    if not rows:
        return None
    scores = np.array([row["score"] for row in rows], dtype=np.float64)
    anomalous = np.array([row["label_true"] == 1 for row in rows])
    return Scored(label, style, scores, anomalous, threshold)


# --- histograms ---------------------------------------------------------------------


def histogram(scored: Scored) -> Markup:
    """Give normals upwards and anomalies downwards over one score axis."""
    low = min(float(scored.scores.min()), scored.threshold)
    high = max(float(scored.scores.max()), scored.threshold)
    span = (high - low) or 1.0
    low, high = low - 0.02 * span, high + 0.02 * span
    edges = np.linspace(low, high, BINS + 1)
    groups = (
        ("normal", "normals", scored.scores[~scored.anomalous], -1),
        ("anomalous", "anomalies", scored.scores[scored.anomalous], 1),
    )
    shares = [np.histogram(s, edges)[0] / max(len(s), 1) for _, _, s, _ in groups]
    tallest = max(float(share.max()) for share in shares) or 1.0

    across = _scale(low, high, 10, WIDTH - 10)
    floor, room = (HISTOGRAM_HEIGHT - 24) / 2 + 4, (HISTOGRAM_HEIGHT - 24) / 2 - 12
    step = (WIDTH - 20) / BINS
    body = []
    for (name, many, scores, way), share in zip(groups, shares, strict=True):
        counts = np.histogram(scores, edges)[0]
        for place in np.flatnonzero(counts):
            tall = max(1.0, room * float(share[place]) / tallest)
            y = floor - tall if way < 0 else floor
            words = (
                f"{int(counts[place])} of {len(scores)} {many} from "
                f"{score_text(float(edges[place]))} to "
                f"{score_text(float(edges[place + 1]))}"
            )
            body.append(
                f'<rect class="{name}" x="{10 + place * step:.1f}" y="{y:.1f}" '
                f'width="{step - 1:.1f}" height="{tall:.1f}"><title>{words}</title>'
                "</rect>"
            )
    at = across(scored.threshold)
    end = ' text-anchor="end"' if at > WIDTH / 2 else ""
    body += [
        f'<path class="axis" d="M4 {floor:.1f}H{WIDTH - 4}"/>',
        f'<path class="limit" d="M{at:.1f} 2V{HISTOGRAM_HEIGHT - 20}"/>',
        f'<text x="{at + (-5 if end else 5):.1f}" y="12"{end}>threshold '
        f"{score_text(scored.threshold)}</text>",
        *_bottom_ticks(low, high, across, HISTOGRAM_HEIGHT - 5),
    ]
    return _drawing(_histogram_words(scored), HISTOGRAM_HEIGHT, body)


def _histogram_words(scored: Scored) -> str:
    flagged = scored.flagged
    n_anomalies = int(scored.anomalous.sum())
    n_normals = len(scored.scores) - n_anomalies
    return (
        f"Scores of {scored.label}: {int((flagged & scored.anomalous).sum())} of "
        f"{n_anomalies} anomalies and {int((flagged & ~scored.anomalous).sum())} of "
        f"{n_normals} normals lie at or above the threshold "
        f"{score_text(scored.threshold)}"
    )


# --- curves -------------------------------------------------------------------------


def roc_chart(models: Sequence[Scored]) -> Markup | None:
    """Give recall against false-alarm rate; None where no model has both classes."""
    from sklearn.metrics import roc_curve

    body: list[str] = []
    for scored in (found for found in models if found.has_both):
        false_alarms, recall, _ = roc_curve(scored.anomalous, scored.scores)
        body.append(_curve(scored, false_alarms, recall, stepped=False))
        alarms = float(scored.flagged[~scored.anomalous].mean())
        found = float(scored.flagged[scored.anomalous].mean())
        words = (
            f"{scored.label} at its threshold: recall {found:.3f}, false alarms "
            f"{alarms:.3f}"
        )
        body.append(_mark(scored.style, _X(alarms), _Y(found), words))
    if not body:
        return None
    chance = f'<path class="chance" d="M{_X(0)} {_Y(0)}L{_X(1)} {_Y(1)}"/>'
    frame = _unit_frame("false-alarm rate", "recall")
    names = _names(models)
    return _drawing(f"ROC curves of {names}", CURVE_HEIGHT, [*frame, chance, *body])


def pr_chart(models: Sequence[Scored]) -> Markup | None:
    """Give precision against recall; None where no model has both classes."""
    from sklearn.metrics import precision_recall_curve

    body: list[str] = []
    shares = []
    for scored in (found for found in models if found.has_both):
        precision, recall, _ = precision_recall_curve(scored.anomalous, scored.scores)
        body.append(_curve(scored, recall, precision, stepped=True))
        shares.append(float(scored.anomalous.mean()))
        flagged = scored.flagged
        if flagged.any():
            right = float(scored.anomalous[flagged].mean())
            found = float(flagged[scored.anomalous].mean())
            words = (
                f"{scored.label} at its threshold: precision {right:.3f}, recall "
                f"{found:.3f}"
            )
            body.append(_mark(scored.style, _X(found), _Y(right), words))
    if not body:
        return None
    # Alarms at random are right as often as there are anomalies.
    level = _Y(shares[0])
    chance = f'<path class="chance" d="M{_X(0)} {level}H{_X(1)}"/>'
    frame = _unit_frame("recall", "precision")
    return _drawing(
        f"Precision-recall curves of {_names(models)}",
        CURVE_HEIGHT,
        [*frame, chance, *body],
    )


def _names(models: Sequence[Scored]) -> str:
    return ", ".join(scored.label for scored in models if scored.has_both)


def _curve(scored: Scored, x: Scores, y: Scores, *, stepped: bool) -> str:
    if len(x) > MAX_POINTS:
        kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).round().astype(int))
        x, y = x[kept], y[kept]
    points = [(_X(float(a)), _Y(float(b))) for a, b in zip(x, y, strict=True)]
    path = f"M{points[0][0]} {points[0][1]}"
    for a, b in points[1:]:
        # Average precision is the area below steps, not below slanted lines.
        path += f"H{a}V{b}" if stepped else f"L{a} {b}"
    return (
        f'<path class="curve {scored.style.colour}" d="{path}" '
        f'stroke-dasharray="{scored.style.dash}"><title>{escape(scored.label)}</title>'
        "</path>"
    )


def _X(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)


def _Y(share: float) -> float:
    return round(CURVE_HEIGHT - BOTTOM - share * (CURVE_HEIGHT - TOP - BOTTOM), 1)


def _unit_frame(across: str, upwards: str) -> list[str]:
    body = []
    for tick in (0, 0.25, 0.5, 0.75, 1):
        body += [
            f'<path class="grid" d="M{_X(tick)} {_Y(0)}V{_Y(1)}M{_X(0)} {_Y(tick)}'
            f'H{_X(1)}"/>',
            f'<text class="tick" x="{_X(tick)}" y="{_Y(0) + 14}">{tick:g}</text>',
            f'<text class="tick side" x="{_X(0) - 5}" y="{_Y(tick) + 4}">{tick:g}'
            "</text>",
        ]
    return [*body, *_axis_names(across, upwards)]


# --- speed against quality ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """One model with one engine."""

    label: str
    style: Style
    hollow: bool  # torch; what ships is filled
    ms: float
    auroc: float
    interval: tuple[float, float] | None


def speed_chart(points: Sequence[Point]) -> Markup | None:
    """Give AUROC with its interval against the median time of a picture."""
    if not points:
        return None
    times = [point.ms for point in points]
    slow, fast = max(times), min(times)
    logarithmic = fast > 0 and slow / fast >= LOG_FROM
    reach = 0.08 * ((math.log(slow / fast) if logarithmic else slow) or 1)
    if logarithmic:
        low, high = math.log(fast) - reach, math.log(slow) + reach
    else:
        low, high = 0.0, slow + reach or 1.0
    bottoms = [point.interval[0] if point.interval else point.auroc for point in points]
    floor = max(0.0, math.floor(20 * (min(bottoms) - 0.005)) / 20)
    across = _scale(low, high, LEFT, WIDTH - RIGHT)
    up = _scale(floor, 1.0, CURVE_HEIGHT - BOTTOM, TOP + 4)

    body = []
    for tick in _ticks(floor, 1.0, 5):
        y = up(tick)
        body += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
            f'<text class="tick side" x="{LEFT - 5}" y="{y + 4:.1f}">{tick:g}</text>',
        ]
    ticks = _log_ticks(low, high) if logarithmic else _ticks(low, high, 5)
    for tick in ticks:
        x = across(math.log(tick) if logarithmic else tick)
        body += [
            f'<path class="grid" d="M{x:.1f} {TOP}V{CURVE_HEIGHT - BOTTOM}"/>',
            f'<text class="tick" x="{x:.1f}" y="{CURVE_HEIGHT - BOTTOM + 14}">{tick:g}'
            "</text>",
        ]
    words = "milliseconds a picture" + (", logarithmic" if logarithmic else "")
    body += _axis_names(words, "image AUROC")
    for point in points:
        x = across(math.log(point.ms) if logarithmic else point.ms)
        body += _placed(point, x, up)
    label = "; ".join(f"{p.label}: {p.ms:.1f} ms, AUROC {p.auroc:.3f}" for p in points)
    return _drawing(f"Speed against quality. {label}", CURVE_HEIGHT, body)


def _placed(point: Point, x: float, up: Any) -> list[str]:
    words = f"{point.label}: {point.ms:.1f} ms, AUROC {point.auroc:.3f}"
    whisker = []
    if point.interval is not None:
        low, high = point.interval
        words += f", 95 % interval {low:.3f} to {high:.3f}"
        whisker = [
            f'<path class="whisker {point.style.colour}" d="M{x:.1f} {up(low):.1f}'
            f"V{up(high):.1f}M{x - 4:.1f} {up(low):.1f}h8M{x - 4:.1f} "
            f'{up(high):.1f}h8"/>'
        ]
    return [*whisker, _mark(point.style, x, up(point.auroc), words, point.hollow)]


# --- parts of all charts ------------------------------------------------------------


def _scale(low: float, high: float, first: float, last: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def _ticks(low: float, high: float, about: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=about, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(v) for v in values if low - 1e-9 <= v <= high + 1e-9]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    values = [m * 10.0**decade for decade in decades for m in (1, 2, 5)]
    return [value for value in values if low <= math.log(value) <= high]


def _bottom_ticks(low: float, high: float, across: Any, y: float) -> list[str]:
    return [
        f'<text class="tick" x="{across(tick):.1f}" y="{y}">{tick:g}</text>'
        for tick in _ticks(low, high, 5)
        if 16 < across(tick) < WIDTH - 16  # nothing is cut at the edge
    ]


def _axis_names(across: str, upwards: str) -> list[str]:
    middle = (TOP + CURVE_HEIGHT - BOTTOM) / 2
    return [
        f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{CURVE_HEIGHT - 4}">'
        f"{across}</text>",
        f'<text class="name" transform="translate(10 {middle}) rotate(-90)">{upwards}'
        "</text>",
    ]


def _mark(style: Style, x: float, y: float, words: str, hollow: bool = False) -> str:
    kind = "mark hollow" if hollow else "mark"
    return (
        f'<path class="{kind} {style.colour}" d="{style.marker}" '
        f'transform="translate({x:.1f} {y:.1f})"><title>{escape(words)}</title></path>'
    )


def _drawing(label: str, height: int, body: Iterable[str]) -> Markup:
    return Markup(
        f'<svg role="img" aria-label="{escape(label, quote=True)}" '
        f'viewBox="0 0 {WIDTH} {height}">{"".join(body)}</svg>'
    )
