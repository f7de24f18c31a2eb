"""What a command line puts in the place of a bundle's ROI and region rules."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ._reader import FLOAT32_MAX, Fields
from .errors import ConfigError, raise_all
from .quick_dataclass import dataclass
from .region_rules import (
    RegionRules,
    Roi,
    polygon_problem,
    read_region_rules,
    rectangle_problem,
)

if TYPE_CHECKING:
    import argparse

    from .infer_config import CategorySettings, Thresholds

    Settings = TypeVar("Settings", bound=CategorySettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFlags:
    """Flags of a command; what is None or empty leaves the bundle's setting."""

    off: bool = False  # no regions are looked for
    rules: tuple[str, ...] = ()  # "min_area=50": members of `RegionRules`
    roi: str | None = None  # "x0,y0,x1,y1", "x,y x,y x,y ..." or "none"
    pixel_threshold: float | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> RegionFlags | None:
        """Give those of parsed options; None where none was given."""
        flags = cls(
            off=options.no_regions,
            rules=tuple(options.region),
            roi=options.roi,
            pixel_threshold=options.pixel_threshold,
        )
        return None if flags == cls() else flags

    def applied_to(self, settings: Settings, category: str) -> Settings:
        """Give a category's settings with these in their place.

        Raises:
            ConfigError: an unknown rule, a wrong value, or a model without a map; all
                problems at once.
        """
        if settings.map_geometry is None:
            raise ConfigError(
                f"{category}: the model gives no map, so there are no regions; leave "
                "--region, --no-regions, --roi and --pixel-threshold out"
            )
        problems: list[str] = []
        if self.off and self.rules:
            problems.append("--no-regions, --region: give one of them")
        rules = settings.regions
        if rules is None and not self.rules:
            problems.append(
                f"{category}: looks for no regions, so --roi, --pixel-threshold and "
                "--no-regions change nothing; add a rule, such as --region min_area=0"
            )
        if self.rules:
            rules = rules_with(rules or RegionRules(), self.rules, problems)
        roi = settings.roi
        if self.roi is not None:
            roi = parse_roi(self.roi, problems)
        thresholds = settings.thresholds
        if self.pixel_threshold is not None:
            pixel = float32_threshold(self.pixel_threshold, problems)
            thresholds = replace(thresholds, pixel=pixel)
        if rules is not None and not _names(self.rules, "low_threshold"):
            rules = with_moved_low(rules, settings.thresholds, thresholds)
        if rules is not None and not self.off and thresholds.pixel is None:
            problems.append(
                f"{category}: has no pixel threshold; give one by --pixel-threshold"
            )
        if self.off and rules is not None and rules.sets_label:
            problems.append(
                f'--no-regions: the label follows regions (policy "{rules.policy}"); '
                "set --region policy=image_threshold instead"
            )
        raise_all(problems)
        return replace(
            settings,
            regions=None if self.off else rules,
            roi=roi,
            thresholds=thresholds,
        )


def _names(changes: tuple[str, ...], name: str) -> bool:
    return any(change.partition("=")[0].strip() == name for change in changes)


def float32_threshold(value: float, problems: list[str]) -> float:
    """Give a pixel threshold as it is compared; what is wrong goes to `problems`."""
    if not abs(value) <= FLOAT32_MAX:
        problems.append(
            f"--pixel-threshold: found {value}, expected a finite number that float32 "
            "can hold"
        )
        return 0.0
    return _as_float32(value)


def _as_float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def with_moved_low(
    rules: RegionRules, before: Thresholds, now: Thresholds
) -> RegionRules:
    """Give rules whose `low_threshold` keeps its place when the pixel threshold moves.

    Its place is its share of the way from the median of normals to the pixel threshold.
    Where a median is not known, the number stays.
    """
    low = rules.low_threshold
    if low is None or before.pixel == now.pixel:
        return rules
    if before.pixel is None or now.pixel is None:
        return rules
    middles = [
        thresholds.provenance["pixel"].score_summary.get("median")
        for thresholds in (before, now)
    ]
    was, is_now = middles
    if was is None or is_now is None or before.pixel <= was:
        return rules
    share = (low - was) / (before.pixel - was)
    return replace(rules, low_threshold=is_now + share * (now.pixel - is_now))


def rules_with(
    rules: RegionRules, changes: tuple[str, ...], problems: list[str]
) -> RegionRules:
    """Give rules with changes "name=value"; what is wrong is appended to `problems`."""
    payload: dict[str, Any] = asdict(rules)
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals:
            problems.append(f'--region: found "{change}", expected NAME=VALUE')
            continue
        payload[name.strip()] = _value(text.strip())
    return read_region_rules(Fields(payload, "--region", problems))


def _value(text: str) -> Any:
    """Give a number, true, false or null as JSON has it, else the text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float, bool)) or value is None else text


def parse_roi(text: str, problems: list[str]) -> Roi | None:
    """Give the ROI of a flag: four numbers, at least three corners, or "none"."""
    if text.strip() == "none":
        return None
    corners = [_numbers(part) for part in text.split()]
    if len(corners) == 1:
        (numbers,) = corners
        reason = rectangle_problem(numbers)
        if reason is None:
            x0, y0, x1, y1 = numbers
            return Roi(rectangle=(x0, y0, x1, y1))
    else:
        reason = polygon_problem(corners)
        if reason is None:
            return Roi(polygon=tuple((x, y) for x, y in corners))
    problems.append(
        f'--roi: found "{text[:60]}": {reason}; give x0,y0,x1,y1 or corners "x,y x,y '
        'x,y", shares of the picture from 0 to 1'
    )
    return None


def _numbers(text: str) -> list[float]:
    found = []
    for part in text.split(","):
        try:
            found.append(float(part))
        except ValueError:
            found.append(math.nan)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of a command that looks for regions."""
    from .cli_options import finite_number

    parser.add_argument(
        "--region",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="replaces one rule of the bundle's regions, such as min_area=50 or "
        "policy=any_region; may be repeated",
    )
    parser.add_argument(
        "--no-regions", action="store_true", help="look for no defect regions"
    )
    parser.add_argument(
        "--roi",
        metavar="SHAPE",
        help='part of the picture that is judged, in shares of its sides: "x0,y0,x1,y1"'
        ' or corners "x,y x,y x,y"; "none": all of it',
    )
    parser.add_argument(
        "--pixel-threshold",
        type=finite_number,
        metavar="T",
        help="replaces the bundle's pixel threshold",
    )
