"""The sentence about a threshold promises what the method promises, no more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tiny_bundle import category

from pyimgano_runtime.infer_config import RateBounds, ThresholdProvenance
from pyimgano_runtime.threshold_words import describe_threshold

PROVENANCE: ThresholdProvenance = category().thresholds.provenance["image"]
BOUNDS = RateBounds(0.95, 40, 2, (0.006, 0.169), 10, 2, (0.025, 0.556))


def test_a_conformal_threshold_says_what_was_asked_and_what_is_promised() -> None:
    assert describe_threshold(PROVENANCE) == (
        "conformal on 4 held-out normals in 4 groups (val); promises at most 20.00% "
        "false alarms (asked: 1.00%); set by a test, 2026-01-01T00:00:00Z"
    )


@pytest.mark.parametrize("method", ["quantile", "contamination", "best_f1"])
def test_a_method_that_promises_nothing_says_so(method: str) -> None:
    sentence = describe_threshold(
        replace(
            PROVENANCE,
            method=method,
            requested_false_alarm_rate=None,
            used_false_alarm_rate=None,
        )
    )
    assert sentence.startswith(f"{method} on 4 ")
    assert "promises no false-alarm rate" in sentence
    assert "%" not in sentence


@pytest.mark.parametrize(
    ("method", "parameters", "beginning"),
    [
        ("quantile", {"quantile": 0.99}, "quantile 0.99 on 4 held-out"),
        (
            "contamination",
            {"contamination": 0.05, "quantile": 0.95},
            "contamination 0.05 on 4 held-out",
        ),
        ("best_f1", {"f1": 0.91249}, "best_f1 (0.912) on 4 labelled"),
        (
            "quantile",
            {"quantile": 0.999, "statistic": "pixels of normal maps"},
            "quantile 0.999 of all pixels on 4 held-out",
        ),
    ],
)
def test_the_number_of_a_method_is_said(
    method: str, parameters: dict[str, Any], beginning: str
) -> None:
    altered = replace(PROVENANCE, method=method, parameters=parameters)
    assert describe_threshold(altered).startswith(beginning)


def test_a_threshold_set_by_hand_names_no_pictures() -> None:
    sentence = describe_threshold(
        replace(
            PROVENANCE,
            method="fixed",
            n_images=0,
            requested_false_alarm_rate=None,
            used_false_alarm_rate=None,
            set_by="--threshold",
        )
    )
    assert sentence == (
        "fixed; promises no false-alarm rate; set by --threshold, 2026-01-01T00:00:00Z"
    )


def test_what_was_counted_stands_with_its_bounds_by_groups_too() -> None:
    sentence = describe_threshold(replace(PROVENANCE, bounds=BOUNDS))
    assert (
        "2 of 40 normals reach it (95% bounds 0.60% to 16.90%; by groups 2.50% to "
        "55.60%)"
    ) in sentence


def test_warnings_stand_at_the_end() -> None:
    sentence = describe_threshold(replace(PROVENANCE, warnings=("SMALL_N", "OTHER")))
    assert sentence.endswith("; SMALL_N; OTHER")
