"""A command-line number within a range that is not NaN."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """click's FloatRange lets NaN pass: it is neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Give the number, or fail with the range in words."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            bounded = self.min is not None or self.max is not None
            reach = f" from {self.min} to {self.max}" if bounded else ""
            self.fail(f"{value} is no finite number{reach}", param, ctx)
        return number
