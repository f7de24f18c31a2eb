"""What an overview tells: test pictures, verdicts, agreement, and numbers in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pyimgano_runtime.infer_config import CategoryConfig, InputRules

from ..metrics.bootstrap import wilson_interval


@dataclass(frozen=True, slots=True)
class InspectedPart:
    """A test picture, what is really on it, and what the device said."""

    name: str
    image_path: Path
    mask_path: Path | None  # the true defect
    map_path: Path | None  # the device's anomaly map, .npy
    label_true: int  # 0 good, 1 defective
    kind: str  # in words: "good", "scratch", "faint scratch", ...
    score: float
    p_value: float | None
    label: str  # "normal" or "anomaly"
    ms: float  # decoding to verdict

    @property
    def defective(self) -> bool:
        """Whether it really is."""
        return self.label_true == 1

    @property
    def flagged(self) -> bool:
        """Whether the device called it anomalous."""
        return self.label == "anomaly"

    @property
    def verdict(self) -> str:
        """One of "found", "missed", "false alarm", "accepted"."""
        if self.defective:
            return "found" if self.flagged else "missed"
        return "false alarm" if self.flagged else "accepted"

    @property
    def wrong(self) -> bool:
        """Whether the device erred."""
        return self.defective != self.flagged


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the device's scores compare with those measured after training."""

    n_images: int
    max_rel_score_diff: float
    label_flips: int


@dataclass(frozen=True, slots=True)
class Step:
    """Something that was done on the way."""

    title: str
    detail: str
    seconds: float


@dataclass(frozen=True)
class CategoryResult:
    """All test pictures of a category."""

    name: str
    parts: tuple[InspectedPart, ...]
    settings: CategoryConfig  # from the bundle: thresholds and calibration scores
    report: Mapping[str, Any]  # of the training run: AUROC with intervals, counts
    agreement: Agreement

    @cached_property
    def good(self) -> list[InspectedPart]:
        """The good ones."""
        return [part for part in self.parts if not part.defective]

    @cached_property
    def defective(self) -> list[InspectedPart]:
        """The defective ones."""
        return [part for part in self.parts if part.defective]

    @property
    def n_found(self) -> int:
        """Defective ones that were flagged."""
        return sum(part.flagged for part in self.defective)

    @property
    def n_false_alarms(self) -> int:
        """Good ones that were flagged."""
        return sum(part.flagged for part in self.good)

    @property
    def threshold(self) -> float:
        """The image threshold."""
        return self.settings.thresholds.image

    @property
    def promised(self) -> float | None:
        """The false-alarm rate that the threshold promises; None: it does not."""
        return self.settings.thresholds.provenance["image"].used_false_alarm_rate

    @property
    def ms(self) -> float:
        """Median time of a picture on the device, decoding to verdict."""
        return float(np.median([part.ms for part in self.parts]))


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything that the page says."""

    detector: str
    noun: tuple[str, str]  # "part", "parts"
    data: str  # what the pictures are, one sentence
    notice: str | None  # their licence, if it asks for a mention
    machine: str
    steps: tuple[Step, ...]
    goldens: str  # what `check` said on the device
    categories: tuple[CategoryResult, ...]
    rules: InputRules
    try_it: str  # a command to go on with

    @property
    def n_parts(self) -> int:
        """Test pictures in all categories."""
        return sum(len(category.parts) for category in self.categories)

    @property
    def label_flips(self) -> int:
        """Verdicts that differ between training and device."""
        return sum(category.agreement.label_flips for category in self.categories)

    @property
    def max_rel_score_diff(self) -> float:
        """The largest of all categories."""
        return max(c.agreement.max_rel_score_diff for c in self.categories)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        found = sum(category.n_found for category in self.categories)
        defective = sum(len(category.defective) for category in self.categories)
        alarms = sum(category.n_false_alarms for category in self.categories)
        good = sum(len(category.good) for category in self.categories)
        one, many = self.noun
        return (
            f"{found} of {defective} defective {many if defective != 1 else one} "
            f"found, {alarms} false alarm{'' if alarms == 1 else 's'} in {good} good "
            f"{many if good != 1 else one}"
        )


def score_text(score: float) -> str:
    """A score with five digits, trailing zeros kept: `17.750`."""
    return f"{score:#.5g}".rstrip(".")


def percent(share: float, digits: int = 1) -> str:
    """`1.2 %` with a space that does not break; whole numbers without decimals."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.removesuffix('.' + '0' * digits)}\u00a0%"


def share_of(count: int, total: int) -> str:
    """`34 of 40 (85 %; 95 % interval 71 to 93 %)`."""
    if total == 0:
        return "none tested"
    low, high = wilson_interval(count, total)
    return (
        f"{count} of {total} ({percent(count / total)}; 95\u00a0% interval "
        f"{100 * low:.0f} to {percent(high, 0)})"
    )


def difference(relative: float) -> str:
    """A relative difference: `0.00006 %`, `none`."""
    return "none" if relative == 0 else percent(relative, 5)


def promise_words(category: CategoryResult, noun: tuple[str, str]) -> str:
    """Promised and measured false-alarm rate, and whether they agree."""
    n_good, alarms = len(category.good), category.n_false_alarms
    measured = f"Measured on unseen good {noun[1]}: {share_of(alarms, n_good)}"
    if category.promised is None:
        return f"{measured}. This threshold promises no rate."
    promised = f"Promised: about {percent(category.promised)} of good {noun[1]} flagged"
    if n_good == 0:
        return f"{promised}. {measured}."
    low, _ = wilson_interval(alarms, n_good)
    verdict = (
        "which agrees with the promise"
        if low <= category.promised
        else "which is more than promised"
    )
    return f"{promised}. {measured}, {verdict}."
