"""Which numbers of a leaderboard are called the best, and which are not ready."""

from __future__ import annotations

from typing import Any

from pyimgano.reporting.leaderboard_marks import marks


def row(model: str, **numbers: Any) -> dict[str, Any]:
    place = {"dataset": "manifest", "dataset_name": "d", "category": "c", "seed": 0}
    usual = {
        "image_auroc": 0.9,
        "image_auroc_ci95": [0.85, 0.95],
        "image_ap": 0.9,
        "image_ap_ci95": [0.85, 0.95],
        "recall": 0.5,
        "recall_ci95": [0.4, 0.6],
        "false_alarm_rate": 0.0,
        "false_alarm_rate_ci95": [0.0, 0.1],
        "promised_false_alarm_rate": 0.01,
    }
    return (
        place
        | {"precision": "fp32", "engine": "onnx", "model": model}
        | usual
        | numbers
    )


def compared(a: str, b: str, *, distinguishable: bool) -> dict[str, Any]:
    found = {key: value for key, value in row(a).items() if key != "model"}
    return found | {"model_a": a, "model_b": b, "distinguishable": distinguishable}


def test_the_best_is_told_apart_from_every_other() -> None:
    rows = [row("a", image_auroc=0.95), row("b", image_auroc=0.8)]
    told = marks(rows, [compared("a", "b", distinguishable=True)])
    assert told[0, "image_auroc"] == "best"
    assert (1, "image_auroc") not in told
    level = marks(rows, [compared("a", "b", distinguishable=False)])
    assert level[0, "image_auroc"] == level[1, "image_auroc"] == "level"


def test_more_false_alarms_than_promised_is_bad_and_its_recall_does_not_compete() -> (
    None
):
    loud = row(
        *("loud",),
        recall=1.0,
        false_alarm_rate=0.67,
        false_alarm_rate_ci95=[0.44, 0.84],
    )
    found = marks([loud, row("a"), row("b")], [])
    assert found[0, "false_alarm_rate"] == "bad"
    assert (0, "recall") not in found
    assert found[1, "recall"] == found[2, "recall"] == "level"


def test_one_false_alarm_that_may_be_chance_is_not_bad() -> None:
    found = marks(
        [row("a", false_alarm_rate=0.05, false_alarm_rate_ci95=[0.009, 0.2])], []
    )
    assert found == {}


def test_a_recall_of_nothing_is_bad() -> None:
    found = marks([row("deaf", recall=0.0), row("a"), row("b")], [])
    assert found[0, "recall"] == "bad"


def test_a_threshold_that_promises_nothing_cannot_break_a_promise() -> None:
    alarms = {"false_alarm_rate_ci95": [0.4, 0.8], "promised_false_alarm_rate": None}
    assert marks([row("a", **alarms)], []) == {}
