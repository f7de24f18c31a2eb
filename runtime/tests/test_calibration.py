"""The rules that training and devices share; the conformal one in depth: tests/."""

from __future__ import annotations

import numpy as np
import pytest

from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.calibration import (
    MAP_TOLERANCE_OF_RANGE,
    HeldOutScores,
    Origin,
    PooledPixels,
    Rule,
    calibrate,
    fixed_thresholds,
    quantile_rank,
    threshold_above,
)
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.fingerprint import fingerprint
from pyimgano_runtime.infer_config import Calibration, Thresholds

ORIGIN = Origin("f" * 64, "a test", "2026-01-01T00:00:00Z")
HUNDRED = [float(n) for n in range(1, 101)]


def calibrated(
    scores: list[float],
    rule: Rule,
    *,
    map_max: list[float] | None = None,
    pixels: PooledPixels | None = None,
) -> tuple[Thresholds, Calibration]:
    held_out = HeldOutScores(
        image=np.asarray(scores, dtype=np.float32),
        map_max=None if map_max is None else np.asarray(map_max, dtype=np.float32),
        groups=tuple(f"part-{n // 2}" for n in range(len(scores))),
        source="val",
        pixels=pixels,
    )
    return calibrate(held_out, rule=rule, origin=ORIGIN)


@pytest.mark.parametrize(
    ("n", "quantile", "rank"),
    [(100, 0.99, 99), (100, 0.07, 7), (10, 0.95, 10), (1, 0.5, 1), (3, 0.5, 2)],
)
def test_the_rank_of_a_quantile_is_of_the_number_as_written(
    n: int, quantile: float, rank: int
) -> None:
    assert quantile_rank(n, quantile) == rank


def test_the_rank_of_a_quantile_of_very_many_pixels_is_exact() -> None:
    assert quantile_rank(10**9, 0.999) == 999_000_000
    assert quantile_rank(10**9 + 1, 0.999) == 999_000_001


@pytest.mark.parametrize("number", [1e39, -1e39, 1e300, float("nan"), float("inf")])
def test_a_fixed_threshold_is_one_that_float32_can_hold(number: float) -> None:
    who = {"set_by": "a test", "set_at": "2026-01-01T00:00:00Z"}
    with pytest.raises(ConfigError, match=r"calibration\.threshold: found"):
        fixed_thresholds(number, None, **who)
    with pytest.raises(ConfigError, match=r"calibration\.pixel_threshold: found"):
        fixed_thresholds(1.0, number, **who)


@pytest.mark.parametrize("quantile", [0.0, 1.0, -0.1, float("nan")])
def test_a_quantile_outside_of_zero_and_one_is_refused(quantile: float) -> None:
    with pytest.raises(ConfigError, match=r"calibration\.quantile: found"):
        quantile_rank(10, quantile)


def test_of_no_normals_there_is_no_quantile() -> None:
    with pytest.raises(ConfigError, match="no held-out normals"):
        quantile_rank(0, 0.5)


def test_a_quantile_stands_above_its_order_statistic_and_promises_nothing() -> None:
    thresholds, calibration = calibrated(HUNDRED, Rule("quantile", 0.95))
    assert thresholds.image == threshold_above(95.0)
    image = thresholds.provenance["image"]
    assert (image.method, image.source) == ("quantile", "val")
    assert image.requested_false_alarm_rate is image.used_false_alarm_rate is None
    assert image.parameters == {
        "quantile": 0.95,
        "rank": 95,
        "of": 100,
        "statistic": "image score",
    }
    assert image.bounds is not None
    assert (image.bounds.images_above, image.bounds.groups_above) == (5, 3)
    assert calibration.image_scores == tuple(HUNDRED)


def test_contamination_is_the_other_share_and_is_named() -> None:
    thresholds, _ = calibrated(HUNDRED, Rule("contamination", 0.07))
    image = thresholds.provenance["image"]
    assert thresholds.image == threshold_above(93.0)
    assert image.method == "contamination"
    assert image.parameters["contamination"] == 0.07
    assert image.parameters["quantile"] == 0.93
    assert image.used_false_alarm_rate is None


def test_the_bounds_count_the_normals_that_reach_the_threshold() -> None:
    thresholds, _ = calibrated(HUNDRED, Rule("conformal", 0.1))
    image = thresholds.provenance["image"]
    assert image.parameters["rank"] == 91
    groups = [f"part-{n // 2}" for n in range(100)]
    scores = np.asarray(HUNDRED, dtype=np.float32)
    assert image.bounds == count_bounds(scores, groups, thresholds.image)
    assert image.bounds.images_above == 9


def test_the_largest_map_values_follow_the_same_rule() -> None:
    thresholds, _ = calibrated(
        HUNDRED, Rule("quantile", 0.9), map_max=[x * 10 for x in HUNDRED]
    )
    assert thresholds.pixel == threshold_above(900.0, MAP_TOLERANCE_OF_RANGE)
    pixel = thresholds.provenance["pixel"]
    assert pixel.parameters["statistic"] == "largest map value per image"
    assert pixel.bounds is not None
    assert pixel.bounds.images_above == 10


def test_a_quantile_of_pixels_takes_the_place_of_the_largest_values() -> None:
    pixels = PooledPixels(0.999, value=42.0, n_pixels=6400, largest=100.0)
    thresholds, _ = calibrated(
        HUNDRED, Rule("conformal", 0.1), map_max=HUNDRED, pixels=pixels
    )
    assert thresholds.pixel == threshold_above(42.0, MAP_TOLERANCE_OF_RANGE)
    pixel = thresholds.provenance["pixel"]
    assert pixel.method == "quantile"
    assert pixel.parameters == {
        "statistic": "pixels of normal maps",
        "quantile": 0.999,
        "pixels": 6400,
    }
    assert pixel.used_false_alarm_rate is None
    assert pixel.score_summary == {"quantile": 42.0, "max": 100.0}
    assert pixel.bounds is not None
    assert pixel.bounds.images_above == 58  # normals with any pixel above
    assert thresholds.provenance["image"].method == "conformal"


def test_a_fingerprint_hangs_on_names_and_bytes_not_on_their_order() -> None:
    one = fingerprint({"a": "1", "b": "2"})
    assert one == fingerprint({"b": "2", "a": "1"})
    assert len({one, fingerprint({"a": "2", "b": "1"}), fingerprint({"a": "1"})}) == 3


def test_a_name_that_is_no_text_has_a_fingerprint() -> None:
    assert len(fingerprint({"\udcff.png": "1"})) == 64
