"""Score histograms, ROC and precision-recall curves as inline SVG.

Each drawing says in its `aria-label` what can be read from it. Models differ by
colour, dash and marker, so that none of the three is needed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from .chart_parts import (
    BOTTOM,
    CURVE_HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Style,
    axis_names,
    bottom_ticks,
    drawing,
    mark,
    scale,
)
from .overview_facts import score_text

HISTOGRAM_HEIGHT: Final = 170
BINS: Final = 36  # about so many
MAX_POINTS: Final = 200  # of a curve

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


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
    edges = _edges(scored)
    low, high = float(edges[0]), float(edges[-1])
    groups = (
        ("normal", "normals", scored.scores[~scored.anomalous], -1),
        ("anomalous", "anomalies", scored.scores[scored.anomalous], 1),
    )
    shares = [np.histogram(s, edges)[0] / max(len(s), 1) for _, _, s, _ in groups]
    tallest = max(float(share.max()) for share in shares) or 1.0

    across = scale(low, high, 10, WIDTH - 10)
    floor, room = (HISTOGRAM_HEIGHT - 24) / 2 + 4, (HISTOGRAM_HEIGHT - 24) / 2 - 12
    if not scored.anomalous.any():  # nothing below: bars may be as tall as the chart
        floor, room = HISTOGRAM_HEIGHT - 20.0, HISTOGRAM_HEIGHT - 40.0
    step = (WIDTH - 20) / (len(edges) - 1)
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
        *bottom_ticks(low, high, across, HISTOGRAM_HEIGHT - 5),
    ]
    return drawing(_histogram_words(scored), HISTOGRAM_HEIGHT, body)


def _edges(scored: Scored) -> Scores:
    """Give the bars' borders; the threshold is one, so no bar lies on both sides."""
    low = min(float(scored.scores.min()), scored.threshold)
    high = max(float(scored.scores.max()), scored.threshold)
    step = 1.04 * ((high - low) or 1.0) / BINS
    below = math.ceil((scored.threshold - low) / step + 0.5)
    above = math.ceil((high - scored.threshold) / step + 0.5)
    places = np.arange(-below, above + 1, dtype=np.float64)
    edges: Scores = scored.threshold + step * places
    return edges


def histogram_rows(scored: Scored) -> list[tuple[str, int, int]]:
    """Give the bars that hold something: (scores from and to, normals, anomalies)."""
    edges = _edges(scored)
    normals = np.histogram(scored.scores[~scored.anomalous], edges)[0]
    anomalies = np.histogram(scored.scores[scored.anomalous], edges)[0]
    return [
        (
            f"{score_text(float(edges[place]))} to "
            f"{score_text(float(edges[place + 1]))}",
            int(normals[place]),
            int(anomalies[place]),
        )
        for place in np.flatnonzero(normals + anomalies)
    ]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What one threshold would have done on the test pictures."""

    threshold: float
    alarms: int  # normals at or above it
    found: int  # anomalies at or above it


def operating_points(
    scored: Scored, rates: Sequence[float] = (0, 0.01, 0.02, 0.05, 0.1, 0.2)
) -> list[OperatingPoint]:
    """Give the lowest thresholds with at most these shares of normals above them.

    They are read off the test pictures, so none of them is a promise. Rates that
    these normals cannot tell apart give one point.
    """
    normals = np.sort(scored.scores[~scored.anomalous])[::-1]
    anomalies = scored.scores[scored.anomalous]
    points: dict[int, OperatingPoint] = {}
    for allowed in (int(rate * len(normals) + 1e-9) for rate in rates):
        if allowed >= len(normals):
            continue
        above = float(np.nextafter(np.float32(normals[allowed]), np.float32(np.inf)))
        alarms = int((normals >= above).sum())
        points[alarms] = OperatingPoint(above, alarms, int((anomalies >= above).sum()))
    return list(points.values())


def _histogram_words(scored: Scored) -> str:
    flagged = scored.flagged
    n_anomalies = int(scored.anomalous.sum())
    n_normals = len(scored.scores) - n_anomalies
    found = f"{int((flagged & scored.anomalous).sum())} of {n_anomalies} anomalies and "
    return (
        f"Scores of {scored.label}: {found if n_anomalies else ''}"
        f"{int((flagged & ~scored.anomalous).sum())} of {n_normals} normals lie at or "
        f"above the threshold {score_text(scored.threshold)}"
    )


# --- curves -------------------------------------------------------------------------


def roc_chart(
    models: Sequence[Scored], *, names: tuple[str, str] = ("false-alarm rate", "recall")
) -> Markup | None:
    """Give recall against false-alarm rate; None where no model has both classes.

    Args:
        names: of the axes, across and upwards.
    """
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
        body.append(mark(scored.style, _X(alarms), _Y(found), words))
    if not body:
        return None
    chance = f'<path class="chance" d="M{_X(0)} {_Y(0)}L{_X(1)} {_Y(1)}"/>'
    label = f"ROC curves of {_names(models)}"
    return drawing(label, CURVE_HEIGHT, [*_unit_frame(*names), chance, *body])


def pr_chart(
    models: Sequence[Scored], *, names: tuple[str, str] = ("recall", "precision")
) -> Markup | None:
    """Give precision against recall; None where no model has both classes.

    Args:
        names: of the axes, across and upwards.
    """
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
            body.append(mark(scored.style, _X(found), _Y(right), words))
    if not body:
        return None
    # Alarms at random are right as often as there are anomalies.
    level = _Y(shares[0])
    chance = f'<path class="chance" d="M{_X(0)} {level}H{_X(1)}"/>'
    label = f"Precision-recall curves of {_names(models)}"
    return drawing(label, CURVE_HEIGHT, [*_unit_frame(*names), chance, *body])


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
    return [*body, *axis_names(across, upwards)]
