"""What only a leaderboard draws: speed against quality, and the look of each model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from .chart_parts import (
    BOTTOM,
    CURVE_HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Style,
    axis_names,
    drawing,
    mark,
    scale,
    ticks,
)

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
    across = scale(low, high, LEFT, WIDTH - RIGHT)
    up = scale(floor, 1.0, CURVE_HEIGHT - BOTTOM, TOP + 4)

    body = []
    for tick in ticks(floor, 1.0, 5):
        y = up(tick)
        body += [
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>',
            f'<text class="tick side" x="{LEFT - 5}" y="{y + 4:.1f}">{tick:g}</text>',
        ]
    chosen = _log_ticks(low, high) if logarithmic else ticks(low, high, 5)
    for tick in chosen:
        x = across(math.log(tick) if logarithmic else tick)
        body += [
            f'<path class="grid" d="M{x:.1f} {TOP}V{CURVE_HEIGHT - BOTTOM}"/>',
            f'<text class="tick" x="{x:.1f}" y="{CURVE_HEIGHT - BOTTOM + 14}">{tick:g}'
            "</text>",
        ]
    words = "milliseconds a picture" + (", logarithmic" if logarithmic else "")
    body += axis_names(words, "image AUROC")
    for point in points:
        x = across(math.log(point.ms) if logarithmic else point.ms)
        body += _placed(point, x, up)
    label = "; ".join(f"{p.label}: {p.ms:.1f} ms, AUROC {p.auroc:.3f}" for p in points)
    return drawing(f"Speed against quality. {label}", CURVE_HEIGHT, body)


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
    return [*whisker, mark(point.style, x, up(point.auroc), words, point.hollow)]


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(low / math.log(10)), math.ceil(high / math.log(10)) + 1)
    values = [m * 10.0**decade for decade in decades for m in (1, 2, 5)]
    return [value for value in values if low <= math.log(value) <= high]
