"""What all charts of pages are made of: inline SVG with axes, marks and a label.

Colours, dashes and text sizes are those of `resources/style/charts.css`; the colours
are those of Okabe and Ito, which the colour-blind can tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from html import escape
from typing import Any, Final

from markupsafe import Markup

WIDTH: Final = 360
CURVE_HEIGHT: Final = 300
LEFT, RIGHT, TOP, BOTTOM = 42, 12, 12, 34


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


def scale(low: float, high: float, first: float, last: float) -> Any:
    span = (high - low) or 1.0
    return lambda value: first + (value - low) / span * (last - first)


def ticks(low: float, high: float, about: int) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=about, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(v) for v in values if low - 1e-9 <= v <= high + 1e-9]


def bottom_ticks(low: float, high: float, across: Any, y: float) -> list[str]:
    return [
        f'<text class="tick" x="{across(tick):.1f}" y="{y}">{tick:g}</text>'
        for tick in ticks(low, high, 5)
        if 16 < across(tick) < WIDTH - 16  # nothing is cut at the edge
    ]


def axis_names(across: str, upwards: str) -> list[str]:
    middle = (TOP + CURVE_HEIGHT - BOTTOM) / 2
    return [
        f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{CURVE_HEIGHT - 4}">'
        f"{across}</text>",
        f'<text class="name" transform="translate(10 {middle}) rotate(-90)">{upwards}'
        "</text>",
    ]


def mark(style: Style, x: float, y: float, words: str, hollow: bool = False) -> str:
    kind = "mark hollow" if hollow else "mark"
    return (
        f'<path class="{kind} {style.colour}" d="{style.marker}" '
        f'transform="translate({x:.1f} {y:.1f})"><title>{escape(words)}</title></path>'
    )


def drawing(label: str, height: int, body: Iterable[str]) -> Markup:
    return Markup(
        f'<svg role="img" aria-label="{escape(label, quote=True)}" '
        f'viewBox="0 0 {WIDTH} {height}">{"".join(body)}</svg>'
    )
