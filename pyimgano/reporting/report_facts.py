"""What a report tells of a run or a bundle, before it becomes a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pyimgano_runtime.infer_config import (
    CategoryParity,
    CategorySettings,
    RateBounds,
)

from .overview_facts import InspectedPart


@dataclass(frozen=True, slots=True)
class Counted:
    """How many test pictures there were, and how they were judged."""

    good: int
    alarms: int  # good ones that were flagged
    defective: int
    found: int  # defective ones that were flagged

    @classmethod
    def of_parts(cls, parts: Sequence[InspectedPart]) -> Counted:
        """Count judged pictures."""
        good = [part for part in parts if not part.defective]
        defective = [part for part in parts if part.defective]
        return cls(
            len(good),
            sum(part.flagged for part in good),
            len(defective),
            sum(part.flagged for part in defective),
        )

    @classmethod
    def of_rates(cls, counts: Mapping[str, Any], metrics: Mapping[str, Any]) -> Counted:
        """Give back the counts that two rates were made of; 0 where not measured."""
        good, defective = (
            _whole(counts.get(key)) for key in ("test_normals", "test_anomalies")
        )
        alarms = number_of(metrics, "false_alarm_rate")
        found = number_of(metrics, "recall")
        return cls(
            good if alarms is not None else 0,
            round(good * (alarms or 0)),
            defective if found is not None else 0,
            round(defective * (found or 0)),
        )

    def __add__(self, other: Counted) -> Counted:
        """Count two sets of pictures together."""
        return Counted(
            self.good + other.good,
            self.alarms + other.alarms,
            self.defective + other.defective,
            self.found + other.found,
        )


@dataclass(frozen=True, slots=True)
class Card:
    """One picture of the gallery, as the page holds it."""

    title: str  # its name
    kind: str  # in words: "good", "scratch"
    verdict: str  # "found", "missed", "false alarm", "accepted", or what it is for
    wrong: bool
    score: float
    p_value: float | None
    photo: str | None  # data URI; None: it could not be read
    heat: str | None  # data URI of the heat map over it
    has_truth: bool  # the true defect is ringed
    note: str | None = None


@dataclass(frozen=True, slots=True)
class CardGroup:
    """Cards that are shown together."""

    title: str
    order: str
    n_all: int
    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """The pictures of a category."""

    groups: tuple[CardGroup, ...] = ()
    note: str | None = None  # why there are none, or what some lack
    photographs: bool = True  # False: drawn pictures, which show no part of anyone

    @property
    def uris(self) -> list[str]:
        """Every picture in it."""
        cards = [card for group in self.groups for card in group.cards]
        return [uri for card in cards for uri in (card.photo, card.heat) if uri]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCategory:
    """One category of a run or a bundle."""

    name: str
    settings: CategorySettings  # thresholds with provenance, calibration scores
    training: Mapping[str, Any]  # detector, hyper_parameters, backbone, counts, ...
    metrics: Mapping[str, Any]  # under the report keys, intervals as <key>_ci95
    counted: Counted
    parts: tuple[InspectedPart, ...] = ()  # empty: their scores are not there
    achieved: RateBounds | None = None  # false alarms of test normals
    masks: Mapping[str, Any] = field(default_factory=dict)  # anomalies with a mask, ...
    parity: CategoryParity | None = None
    in_int8: str = ""  # what 8 bits cost, in a sentence
    gallery: Gallery = field(default_factory=Gallery)
    model_facts: tuple[tuple[str, str], ...] = ()

    @property
    def threshold(self) -> float:
        """The image threshold."""
        return self.settings.thresholds.image

    @property
    def promised(self) -> float | None:
        """The false-alarm rate that the threshold promises; None: it does not."""
        return self.settings.thresholds.provenance["image"].used_false_alarm_rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that the page says."""

    kind: Literal["run", "bundle"]
    name: str
    finished: str  # ISO 8601
    categories: tuple[ReportCategory, ...]
    facts: tuple[tuple[str, str], ...]  # of all: versions, machine, files
    speed: str  # where the times come from, in a sentence
    exported: str  # what parity compares, in a sentence; or that there is none

    @property
    def counted(self) -> Counted:
        """Test pictures of all categories."""
        total = Counted(0, 0, 0, 0)
        for category in self.categories:
            total += category.counted
        return total

    @property
    def uris(self) -> list[str]:
        """Every picture in the page."""
        return [uri for one in self.categories for uri in one.gallery.uris]

    @property
    def n_photographs(self) -> int:
        """Pictures in it that were made of photographs."""
        shown = [c.gallery for c in self.categories if c.gallery.photographs]
        return sum(len(gallery.uris) for gallery in shown)


def number_of(facts: Mapping[str, Any], key: str) -> float | None:
    """Give a finite number of a free document; None for anything else."""
    value = facts.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def interval_of(facts: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """Give the 95 % interval of a number of a free document; None where none is."""
    value = facts.get(f"{key}_ci95")
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = (number_of({key: side}, key) for side in value)
    return None if low is None or high is None else (low, high)


def mapping_of(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Give an object of a free document; an empty one for anything else."""
    value = facts.get(key)
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
