"""The drift page's two pictures as inline SVG: histograms, and the time line of PSI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .drift import DriftReading, StatisticReading
from .drift_words import shown

WIDTH: Final = 360  # units; the page scales it to its column
LEFT: Final = 38
LABELS: Final = 5  # at most, below a histogram
SHORT: Final = {"score": "score", "brightness": "bright", "sharpness": "sharp"}


def histogram(name: str, found: StatisticReading) -> str:
    """Give reference and window side by side, in shares of their pictures."""
    height, top, bottom = 150, 14, 124
    then, now = _shares(found.reference.counts), _shares(found.counts)
    most = max(*then, *now)
    step = (WIDTH - LEFT - 6) / len(then)
    parts = [_axes(f"{most:.0%}", top, bottom, WIDTH - 4)]
    for index, (old, new) in enumerate(zip(then, now, strict=True)):
        left = LEFT + index * step
        span = _range_words(found.reference.edges, index)
        for place, (share, kind) in enumerate(((old, "then"), (new, "now"))):
            tall = (bottom - top) * share / most
            x = left + step * (0.12 + 0.38 * place)
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{bottom - tall:.1f}" '
                f'width="{step * 0.38:.1f}" height="{tall:.1f}"><title>{span}: '
                f"{share:.0%} {kind}"
                "</title></rect>"
            )
    parts += _edge_labels(found.reference.edges, step, bottom)
    told = "; ".join(
        f"{_range_words(found.reference.edges, index)}: {old:.0%} then, {new:.0%} now"
        for index, (old, new) in enumerate(zip(then, now, strict=True))
    )
    return _svg(f"{name}, shares of pictures: {told}", height, parts)


def _edge_labels(edges: Sequence[float], step: float, bottom: int) -> list[str]:
    every = -(-len(edges) // LABELS)
    first = (len(edges) - 1) % every // 2
    labels = []
    for index in range(first, len(edges), every):
        x = LEFT + (index + 1) * step
        labels += [
            f'<path class="tick" d="M{x:.1f} {bottom}v5"/>',
            f'<text class="mid" x="{x:.1f}" y="{bottom + 17}">'
            f"{shown(edges[index])}</text>",
        ]
    return labels


def timeline(reading: DriftReading) -> str:
    """Give the stability index of every statistic over the pictures seen."""
    height, top, bottom, right = 190, 14, 160, 52
    points = reading.timeline
    limits = {name: found.psi_limit for name, found in reading.statistics.items()}
    values = [psi for _, by_name in points for psi in by_name.values()]
    most = max(*limits.values(), *values) * 1.1
    first, last = points[0][0], points[-1][0]

    def x_of(pictures: int) -> float:
        reach = WIDTH - LEFT - right
        return LEFT + reach * (pictures - first) / max(1, last - first)

    def y_of(psi: float) -> float:
        return bottom - (bottom - top) * max(0.0, psi) / most

    parts = [_axes(f"{most:.2g}", top, bottom, WIDTH - right)]
    label_places: list[float] = []
    for name, limit in limits.items():
        parts.append(
            f'<path class="limit {name}" d="M{LEFT} {y_of(limit):.1f}'
            f'H{WIDTH - right}"><title>{name}: alarm above {limit:.2f}</title></path>'
        )
        line = " ".join(f"{x_of(at):.1f},{y_of(psi[name]):.1f}" for at, psi in points)
        parts.append(f'<polyline class="line {name}" points="{line}"/>')
        parts.append(
            f'<circle class="{name}" cx="{x_of(last):.1f}" '
            f'cy="{y_of(points[-1][1][name]):.1f}" r="2.5"/>'
        )
        y = _free_place(y_of(points[-1][1][name]), label_places)
        parts.append(
            f'<text class="{name}" x="{WIDTH - right + 6}" y="{y + 4:.1f}">'
            f"{SHORT[name]}</text>"
        )
    for at, anchor in ((first, "start"), (last, "end")):
        parts.append(
            f'<text style="text-anchor:{anchor}" x="{x_of(at):.1f}" '
            f'y="{bottom + 17}">{at:,}</text>'
        )
    middle = (LEFT + WIDTH - right) / 2
    parts.append(f'<text class="mid" x="{middle}" y="{bottom + 17}">pictures</text>')
    told = ", ".join(f"{name} {psi:.2f}" for name, psi in points[-1][1].items())
    return _svg(f"stability index over the pictures, at the end: {told}", height, parts)


def _free_place(wanted: float, taken: list[float]) -> float:
    """Give the lowest free place at or above a wanted one, for a line of text."""
    while any(abs(wanted - other) < 12 for other in taken):
        wanted -= 3
    taken.append(wanted)
    return wanted


def _axes(most: str, top: int, bottom: int, right: int) -> str:
    return (
        f'<path class="axis" d="M{LEFT} {top}V{bottom}H{right}"/>'
        f'<text class="end" x="{LEFT - 5}" y="{top + 8}">{most}</text>'
        f'<text class="end" x="{LEFT - 5}" y="{bottom}">0</text>'
    )


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [count / total for count in counts]


def _range_words(edges: Sequence[float], index: int) -> str:
    if index == 0:
        return f"below {shown(edges[0])}"
    if index == len(edges):
        return f"{shown(edges[-1])} and above"
    return f"{shown(edges[index - 1])} to {shown(edges[index])}"


def _svg(label: str, height: int, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg>"
    )
