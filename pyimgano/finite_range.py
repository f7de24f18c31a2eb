"""Command-line numbers that are not NaN, within a range or without one."""

from __future__ import annotations

import math
from typing import Any

import click


class FiniteNumber(click.types.FloatParamType):
    """click's float takes "nan" and "inf"."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Give the number, or fail in words."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class FiniteRange(click.FloatRange):
    """click's FloatRange lets NaN pass: it is neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Give the number, or fail with the range in words."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(
                f"{value} is no finite number from {self.min} to {self.max}", param, ctx
            )
        return number
