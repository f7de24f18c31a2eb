"""Drift: the formulas by hand, no alarm on the same data, alarms on other data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tiny_bundle import category

from pyimgano_runtime.drift import (
    BRIGHTNESS,
    LEAST_REFERENCE,
    LEAST_WINDOW,
    SCORE,
    SHARPNESS,
    TIMELINE_POINTS,
    DriftMonitor,
    DriftReading,
    ks_critical,
    ks_distance,
    read_statistic,
    shift_unit,
    stability_index,
    stability_limit,
)
from pyimgano_runtime.drift_words import DRIFT, NOT_JUDGED, STABLE, verdict_of
from pyimgano_runtime.picture_statistics import PictureStatistics
from pyimgano_runtime.reference import distribution_of

N = 300


class Line:
    """Pictures of a line: seeded scores, brightness and sharpness."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def scores(self, n: int) -> np.ndarray:
        return 2 + self.rng.lognormal(0, 0.4, n)

    def brightness(self, n: int) -> np.ndarray:
        return self.rng.normal(120, 5, n)

    def sharpness(self, n: int) -> np.ndarray:
        return self.rng.normal(300, 40, n)


def monitor(*, n: int = N, window: int = 200) -> DriftMonitor:
    line = Line(1)
    scores = np.sort(line.scores(n))
    return DriftMonitor(
        {
            SCORE: distribution_of(scores, n),
            BRIGHTNESS: distribution_of(line.brightness(n), n),
            SHARPNESS: distribution_of(line.sharpness(n), n),
        },
        scores.tolist(),
        window=window,
    )


def seen(
    *,
    brighter: float = 0,
    sharper: float = 1,
    higher: float = 0,
    defects: float = 0,
    pictures: int = 400,
    n: int = N,
    seed: int = 2,
) -> DriftReading:
    line, watched = Line(seed), monitor(n=n)
    scores = line.scores(pictures) + higher
    scores[line.rng.random(pictures) < defects] += 50
    columns = (
        scores,
        line.brightness(pictures) + brighter,
        line.sharpness(pictures) * sharper,
    )
    for score, bright, sharp in zip(*columns, strict=True):
        watched.add(float(score), PictureStatistics(float(bright), float(sharp)))
    return watched.reading()


def test_the_stability_index_of_equal_shares_is_nothing() -> None:
    assert stability_index([10, 30], [10, 30]) == 0
    assert stability_index([1000, 3000], [10, 30]) < 0.001


def test_the_stability_index_is_that_of_the_formula() -> None:
    p, q = (10.5 / 21, 10.5 / 21), (15.5 / 21, 5.5 / 21)
    expected = sum((b - a) * math.log(b / a) for a, b in zip(p, q, strict=True))
    assert stability_index([10, 10], [15, 5]) == pytest.approx(expected)
    assert math.isfinite(stability_index([10, 10], [20, 0]))


def test_the_limit_of_the_index_is_chi_squared_and_never_below_a_quarter() -> None:
    # Of 1 - 0.001, nine degrees: 27.877 in the tables.
    assert stability_limit(10, 0.2) == pytest.approx(27.877 * 0.04, rel=0.01)
    assert stability_limit(10, 0.01) == 0.25


def test_the_distance_of_two_samples_is_that_of_kolmogorov_and_smirnov() -> None:
    first, second = np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])
    assert ks_distance(first, second) == 0.5
    assert ks_distance(second, first) == 0.5
    assert ks_distance(first, first) == 0
    assert ks_distance(first, first + 10) == 1
    assert ks_distance(np.array([1.0, 1, 1]), np.array([1.0])) == 0  # ties


def test_the_critical_distance_is_that_of_the_tables() -> None:
    # 1.358 and 1.628 of Smirnov's table, for 5 % and 1 %.
    assert ks_critical(1, 0.05) == pytest.approx(1.358, abs=0.001)
    assert ks_critical(1, 0.01) == pytest.approx(1.628, abs=0.001)


def test_the_shift_is_counted_in_standard_deviations() -> None:
    reference = distribution_of(np.tile([90.0, 110.0], 50), 100)
    found = read_statistic(SCORE, reference, np.tile([95.0, 115.0], 50))
    assert found.shift == pytest.approx(0.5)
    assert found.shift_errors == pytest.approx(0.5 / math.sqrt(1 / 100 + 1 / 100))


def test_a_value_far_away_counts_as_three_units() -> None:
    reference = distribution_of(np.tile([90.0, 110.0], 50), 100)
    values = np.tile([90.0, 110.0], 50)
    values[0] = 1e9
    found = read_statistic(SCORE, reference, values)
    assert found.shift == pytest.approx((3 + 1) / 100)


def test_a_line_of_steady_light_may_still_move_by_two_grey_levels() -> None:
    steady = distribution_of(120 + np.linspace(-0.1, 0.1, 100), 100)
    assert shift_unit(BRIGHTNESS, steady) == 4
    near = read_statistic(BRIGHTNESS, steady, np.full(100, 121.5))
    far = read_statistic(BRIGHTNESS, steady, np.full(100, 122.5))
    assert "shift" not in near.alarms
    assert "shift" in far.alarms


def test_a_reference_without_spread_has_a_unit() -> None:
    flat = distribution_of([0.0] * 40, 40)
    for name in (SCORE, BRIGHTNESS, SHARPNESS):
        assert shift_unit(name, flat) > 0
        assert read_statistic(name, flat, np.zeros(50)).alarms == ()


@pytest.mark.parametrize("seed", range(2, 10))
def test_no_drift_raises_no_alarm(seed: int) -> None:
    found = seen(seed=seed)
    assert found.judged
    assert found.alarms == {}
    assert verdict_of(found).state == STABLE


@pytest.mark.parametrize("seed", range(2, 10))
def test_one_defect_in_twenty_raises_no_alarm(seed: int) -> None:
    assert seen(seed=seed, defects=0.05).alarms == {}


def test_many_defects_are_drift_of_the_scores() -> None:
    assert set(seen(defects=0.4).alarms) == {SCORE}


@pytest.mark.parametrize(
    ("change", "name", "words", "advice"),
    [
        ({"brighter": 10}, BRIGHTNESS, "brighter than", "lamp"),
        ({"brighter": -10}, BRIGHTNESS, "darker than", "lamp"),
        ({"sharper": 0.8}, SHARPNESS, "less sharp", "lens"),
        ({"sharper": 1.4}, SHARPNESS, "sharper or noisier", "gain"),
        ({"higher": 0.6}, SCORE, "score higher", "calibrate"),
        ({"higher": -0.5}, SCORE, "score lower", "threshold"),
    ],
)
def test_a_change_raises_its_own_alarm_and_says_what_to_do(
    change: dict[str, float], name: str, words: str, advice: str
) -> None:
    found = seen(**change)  # type: ignore[arg-type]
    assert set(found.alarms) == {name}
    verdict = verdict_of(found)
    assert verdict.state == DRIFT
    ((said, do),) = verdict.findings
    assert words in said
    assert advice in do


def test_scores_that_follow_the_light_are_not_blamed_on_the_parts() -> None:
    (_, light), (_, scores) = verdict_of(seen(brighter=20, higher=2)).findings
    assert "lamp" in light
    assert "pictures first" in scores


def test_a_flicker_is_seen_though_the_mean_stays() -> None:
    reference = distribution_of(Line(1).brightness(N), N)
    values = 120 + 15 * np.tile([-1.0, 1.0], 100)
    found = read_statistic(BRIGHTNESS, reference, values)
    assert found.alarms == ("psi",)


def test_few_pictures_are_not_judged() -> None:
    few = seen(brighter=80, pictures=LEAST_WINDOW - 1)
    assert (few.judged, few.alarms) == (False, {})
    assert verdict_of(few).state == NOT_JUDGED
    assert "29 pictures so far" in verdict_of(few).headline
    assert seen(brighter=80, pictures=LEAST_WINDOW).alarms


def test_a_small_reference_is_not_judged() -> None:
    found = seen(brighter=80, n=LEAST_REFERENCE - 1)
    assert (found.judged, found.alarms) == (False, {})
    assert "reference is of 19 parts" in verdict_of(found).headline


def test_nothing_seen_is_not_judged() -> None:
    assert verdict_of(monitor().reading()).headline == "No picture was scored yet."


def test_only_the_window_is_kept_and_the_time_line_stays_short() -> None:
    watched = monitor(window=40)
    for index in range(12_000):
        watched.add(3.0, PictureStatistics(120.0, 300.0))
        if index == 50:
            first = watched.reading()
    found = watched.reading()
    assert (found.pictures, found.window) == (12_000, 40)
    assert sum(found.statistics[SCORE].counts) == 40
    assert 0 < len(first.timeline) < len(found.timeline) <= TIMELINE_POINTS
    assert len(found.timeline) > TIMELINE_POINTS // 3
    assert found.timeline[-1][0] > 11_000
    steps = np.diff([at for at, _ in found.timeline])
    assert len(set(steps.tolist())) == 1


def test_old_pictures_leave_the_window() -> None:
    watched = monitor(window=50)
    line = Line(4)
    for level in (200.0, 120.0):
        for value in line.brightness(50) - 120 + level:
            watched.add(3.0, PictureStatistics(float(value), 300.0))
    assert abs(watched.reading().statistics[BRIGHTNESS].mean - 120) < 5


def test_without_a_reference_the_calibration_scores_are_compared() -> None:
    settings = category(scores=sorted(Line(1).scores(N)))
    watched = DriftMonitor.of(settings)
    assert not watched.looks_at_pictures
    for score in Line(2).scores(100) + 5:
        watched.add(float(score), None)
    found = watched.reading()
    assert set(found.statistics) == {SCORE}
    assert set(found.alarms[SCORE]) == {"shift", "psi", "ks"}


def test_without_scores_and_reference_nothing_is_compared() -> None:
    watched = DriftMonitor.of(category(scores=()))
    watched.add(1.0, None)
    assert watched.reading().statistics == {}


def test_parts_count_not_pictures_of_them() -> None:
    values = Line(1).brightness(N)
    pictures = distribution_of(values, N)
    parts = replace(pictures, n_groups=30)
    one, other = (
        read_statistic(BRIGHTNESS, reference, values[:100])
        for reference in (pictures, parts)
    )
    assert other.psi_limit > one.psi_limit
    assert other.shift_limit > one.shift_limit


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="window: found 0"):
        monitor(window=0)
