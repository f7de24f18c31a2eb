"""Has the line changed since training? Scores, brightness, sharpness of late pictures.

    monitor = DriftMonitor.of(predictor.settings)
    monitor.add(prediction.score, picture_statistics(image_u8))
    reading = monitor.reading()                      # of the last 200 pictures

n reference values (of so many different parts) and m of the window are compared:

- `psi`: population stability index, sum of (q - p) ln(q / p) over the reference's bins,
  p and q the shares of reference and window, half a value added to every bin
  (Siddiqi, "Credit Risk Scorecards", 2006, chapter 9). Without drift
  psi / (1/n + 1/m) is about chi-squared with one degree less than bins (Yurdakul,
  "Statistical properties of population stability index", 2018), which gives its limit;
  below 0.25 it is never an alarm.
- `ks`: of scores only, the largest difference of the two empirical distributions
  (two-sample Kolmogorov-Smirnov). Its limit is sqrt(ln(2 / a) / 2) sqrt(1/n + 1/m) for
  the rate a, plus 0.05: a window in which one part in twenty is defective differs by
  as much from one without.
- `shift`: the window's mean less the reference's, in units: the reference's standard
  deviation, but at least four grey levels of brightness, a tenth of the mean sharpness.
  Values beyond three units from the reference's mean count as three, so that defects at
  5 % move it by 0.15 at most. It is an alarm above 0.5 units, if it is also more than
  four of its standard errors, sqrt(1/n + 1/m) units.

With these limits a window without drift raises an alarm in less than 1 % of windows;
docs/drift.md has what was measured, by `benchmarks/drift_false_alarms.py`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from .quick_dataclass import dataclass
from .reference import Distribution, bin_counts, distribution_of

if TYPE_CHECKING:
    from .infer_config import CategorySettings
    from .picture_statistics import PictureStatistics

Values = npt.NDArray[np.float64]

SCORE: Final = "score"
BRIGHTNESS: Final = "brightness"
SHARPNESS: Final = "sharpness"

WINDOW: Final = 200  # pictures
LEAST_WINDOW: Final = 30  # pictures: fewer are not judged
LEAST_REFERENCE: Final = 20  # parts: fewer say too little of their own spread

ALARM_RATE: Final = 0.001  # of one psi or ks test without drift
PSI_LEAST: Final = 0.25
DEFECT_SHARE: Final = 0.05  # of the window, that is no drift
SHIFT_LEAST: Final = 0.5  # units
SHIFT_ERRORS: Final = 4.0  # standard errors
CLIP_UNITS: Final = 3.0
LEAST_BRIGHTNESS_UNIT: Final = 4.0  # grey levels
LEAST_UNIT_OF_MEAN: Final = {SCORE: 1e-6, BRIGHTNESS: 0.0, SHARPNESS: 0.1}
_NORMAL_QUANTILE: Final = 3.0902323061678132  # of 1 - ALARM_RATE

TIMELINE_POINTS: Final = 200  # at most; then every second one goes
POINTS_PER_WINDOW: Final = 10


@dataclass(frozen=True, slots=True)
class StatisticReading:
    """One statistic of the window against its reference."""

    reference: Distribution
    counts: tuple[int, ...]  # of the window, in the reference's bins
    mean: float
    median: float
    shift: float  # of the mean in units, see the module; positive: higher now
    shift_errors: float  # the same in standard errors
    shift_limit: float  # units, either way
    psi: float
    psi_limit: float
    ks: float | None  # of scores only
    ks_limit: float | None
    alarms: tuple[str, ...]  # of "shift", "psi", "ks"


@dataclass(frozen=True, slots=True)
class DriftReading:
    """What the last pictures say."""

    pictures: int  # seen in all
    window: int  # of these, the last ones that were looked at
    statistics: dict[str, StatisticReading]  # of "score", "brightness", "sharpness"
    judged: bool  # false: too few pictures, or too small a reference
    timeline: tuple[tuple[int, dict[str, float]], ...]  # (pictures, psi by statistic)

    @property
    def alarms(self) -> dict[str, tuple[str, ...]]:
        """Which statistics raise an alarm, and by which tests."""
        return {k: s.alarms for k, s in self.statistics.items() if s.alarms}


class DriftMonitor:
    """Keeps the statistics of the last pictures; its memory does not grow."""

    def __init__(
        self,
        references: dict[str, Distribution],
        calibration_scores: Sequence[float] = (),
        *,
        window: int = WINDOW,
    ) -> None:
        """Compare with these.

        Args:
            references: of "score", "brightness", "sharpness", those that are known.
            calibration_scores: ascending, for the distance of scores; may be empty.
            window: how many late pictures are looked at.
        """
        if window < 1:
            raise ValueError(f"window: found {window}, expected at least 1")
        self.references = references
        self._scores = np.asarray(calibration_scores, dtype=np.float64)
        self._values: dict[str, deque[float]] = {
            name: deque(maxlen=window) for name in references
        }
        self._pictures = 0
        self._timeline: list[tuple[int, dict[str, float]]] = []
        self._step = max(1, window // POINTS_PER_WINDOW)
        self._size = window

    @classmethod
    def of(cls, settings: CategorySettings, *, window: int = WINDOW) -> DriftMonitor:
        """Give the monitor of a category.

        Without its block `reference` only scores can be compared, and without
        calibration scores nothing.
        """
        scores = settings.calibration.image_scores
        reference = settings.reference
        known: dict[str, Distribution] = {}
        if reference is not None and reference.scores is not None:
            known[SCORE] = reference.scores
        elif scores:
            n_groups = settings.thresholds.provenance["image"].n_groups
            known[SCORE] = distribution_of(scores, n_groups)
        if reference is not None:
            known[BRIGHTNESS] = reference.brightness
            known[SHARPNESS] = reference.sharpness
        return cls(known, scores, window=window)

    @property
    def looks_at_pictures(self) -> bool:
        """Whether `add` needs statistics of the picture."""
        return BRIGHTNESS in self.references

    def add(self, score: float, picture: PictureStatistics | None) -> None:
        """Take one picture that was scored.

        Args:
            picture: its statistics; None where `looks_at_pictures` is false.
        """
        self._pictures += 1
        if SCORE in self._values:
            self._values[SCORE].append(score)
        if picture is not None and self.looks_at_pictures:
            self._values[BRIGHTNESS].append(picture.brightness)
            self._values[SHARPNESS].append(picture.sharpness)
        # Only full windows: all points then have one limit.
        if self._pictures % self._step == 0 and self._window() == self._size:
            self._mark()

    def reading(self) -> DriftReading:
        """Say how the last pictures compare with the reference."""
        statistics = {
            name: read_statistic(
                *(name, self.references[name], np.asarray(values, dtype=np.float64)),
                reference_scores=self._scores if name == SCORE else None,
            )
            for name, values in self._values.items()
            if values
        }
        window = self._window()
        return DriftReading(
            pictures=self._pictures,
            window=window,
            statistics=statistics,
            judged=any(can_judge(s.reference, window) for s in statistics.values()),
            timeline=tuple(self._timeline),
        )

    def _window(self) -> int:
        return max((len(values) for values in self._values.values()), default=0)

    def _mark(self) -> None:
        """Add a point to the time line; a full one keeps every second of its points."""
        psi = {
            name: stability_index(
                self.references[name].counts,
                bin_counts(list(values), self.references[name].edges),
            )
            for name, values in self._values.items()
        }
        self._timeline.append((self._pictures, psi))
        if len(self._timeline) > TIMELINE_POINTS:
            self._step *= 2
            self._timeline = [p for p in self._timeline if p[0] % self._step == 0]


def can_judge(reference: Distribution, window: int) -> bool:
    """Whether there are enough values of both for an alarm to mean something."""
    return reference.n_groups >= LEAST_REFERENCE and window >= LEAST_WINDOW


def read_statistic(
    name: str,
    reference: Distribution,
    values: Values,
    *,
    reference_scores: Values | None = None,
) -> StatisticReading:
    """Compare a window's values with their reference.

    Args:
        name: "score", "brightness" or "sharpness".
        values: (m,) of the window, m at least 1.
        reference_scores: the reference's own values, ascending, for `ks`.
    """
    n, m = reference.n_groups, len(values)
    error = math.sqrt(1 / n + 1 / m)
    unit = shift_unit(name, reference)
    reach = CLIP_UNITS * unit
    kept = np.clip(values, reference.mean - reach, reference.mean + reach)
    shift = (float(kept.mean()) - reference.mean) / unit
    shift_limit = max(SHIFT_LEAST, SHIFT_ERRORS * error)
    counts = bin_counts(values, reference.edges)
    psi, psi_limit = (
        stability_index(reference.counts, counts),
        stability_limit(len(counts), error),
    )
    ks = ks_limit = None
    if reference_scores is not None and len(reference_scores):
        ks = ks_distance(reference_scores, values)
        ks_limit = ks_critical(error) + DEFECT_SHARE
    found = {
        "shift": abs(shift) > shift_limit,
        "psi": psi > psi_limit,
        "ks": ks is not None and ks_limit is not None and ks > ks_limit,
    }
    judged = can_judge(reference, m)
    return StatisticReading(
        reference=reference,
        counts=tuple(int(count) for count in counts),
        mean=float(values.mean()),
        median=float(np.median(values)),
        shift=shift,
        shift_errors=shift / error,
        shift_limit=shift_limit,
        psi=psi,
        psi_limit=psi_limit,
        ks=ks,
        ks_limit=ks_limit,
        alarms=tuple(test for test, is_above in found.items() if judged and is_above),
    )


def shift_unit(name: str, reference: Distribution) -> float:
    """Give what a shift of the mean is measured in, more than 0."""
    least = LEAST_BRIGHTNESS_UNIT if name == BRIGHTNESS else 1e-30
    return max(reference.sd, least, LEAST_UNIT_OF_MEAN[name] * abs(reference.mean))


def stability_index(
    reference: Sequence[int], window: Sequence[int] | npt.NDArray[np.int64]
) -> float:
    """Give the population stability index of two histograms over the same bins."""
    p, q = (
        (np.asarray(counts, dtype=np.float64) + 0.5)
        / (float(np.sum(counts)) + 0.5 * len(counts))
        for counts in (reference, window)
    )
    return float(((q - p) * np.log(q / p)).sum())


def stability_limit(n_bins: int, error: float) -> float:
    """Give the index above which it is an alarm.

    The quantile of chi-squared by Wilson and Hilferty (PNAS 17, 1931), within 1 %.

    Args:
        error: sqrt(1/n + 1/m).
    """
    degrees = max(1, n_bins - 1)
    share = 2 / (9 * degrees)
    quantile = degrees * (1 - share + _NORMAL_QUANTILE * math.sqrt(share)) ** 3
    return max(PSI_LEAST, quantile * error**2)


def ks_distance(first: Values, second: Values) -> float:
    """Give the largest difference of two empirical distributions, 0 to 1."""
    first, second = np.sort(first), np.sort(second)
    places = np.concatenate([first, second])
    shares = (
        np.searchsorted(values, places, side="right") / len(values)
        for values in (first, second)
    )
    one, other = shares
    return float(np.abs(one - other).max())


def ks_critical(error: float, rate: float = ALARM_RATE) -> float:
    """Give the distance that chance exceeds at this rate, for many values.

    Smirnov's limit: P(D > d) <= 2 exp(-2 (d / error)^2).

    Args:
        error: sqrt(1/n + 1/m).
    """
    return math.sqrt(math.log(2 / rate) / 2) * error
