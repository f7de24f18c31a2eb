from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conftest import Exported
from pyimgano.datasets.catalog import DataSource, read_dataset
from pyimgano.datasets.corruptions import CORRUPTIONS, corrupt
from pyimgano.datasets.images import read_training_image
from pyimgano.datasets.rows import ManifestRow
from pyimgano.metrics import image_metrics
from pyimgano.pipelines.robustness import measure_robustness
from pyimgano.reporting.robustness_table import print_robustness
from pyimgano_runtime.errors import DatasetError
from pyimgano_runtime.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(exported: Callable[[str], Exported]) -> Predictor:
    return Predictor.open(exported("pixel_stats").bundle, threads=1)


@pytest.fixture(scope="module")
def test_rows(small_dataset: Path) -> list[ManifestRow]:
    rows = read_dataset(DataSource("manifest", small_dataset, None), categories=())
    return [row for row in rows if row.split == "test"]


def measure(
    predictor: Predictor, rows: list[ManifestRow], max_images: int = 100
) -> dict[str, Any]:
    return measure_robustness(
        predictor, rows, max_images=max_images, seed=0, progress=lambda *_: None
    )


@pytest.fixture(scope="module")
def robustness(predictor: Predictor, test_rows: list[ManifestRow]) -> dict[str, Any]:
    return measure(predictor, test_rows)


def one(robustness: dict[str, Any], name: str, level: int) -> dict[str, Any]:
    (found,) = (
        each
        for each in robustness["corruptions"]
        if (each["name"], each["level"]) == (name, level)
    )
    return dict(found)


def printed(robustness: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120, markup=False)
    print_robustness(console, "bracket", robustness)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_more_light_raises_false_alarms_of_pixel_stats(
    robustness: dict[str, Any],
) -> None:
    brighter = one(robustness, "brighter", 3)
    assert robustness["clean"]["false_alarm_rate"] < brighter["false_alarm_rate"]
    assert brighter["score_shift"] > 0


def test_clean_numbers_are_those_of_the_pictures_as_they_are(
    robustness: dict[str, Any], predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    scores = [predictor.predict(predictor.read(r.image_path)).score for r in test_rows]
    labels = [row.label for row in test_rows]
    expected = image_metrics(scores, labels, threshold=predictor.threshold)
    for key in ("image_auroc", "recall", "false_alarm_rate"):
        assert robustness["clean"][key] == expected.to_json()[key]


def test_a_change_is_measured_on_the_changed_pictures(
    robustness: dict[str, Any], predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    scores, moved = [], []
    for row in test_rows:
        image = read_training_image(row, predictor.rules)
        worse = corrupt(image, "noise", 3, seed_name=row.image)
        scores.append(predictor.predict(worse).score)
        if row.label == 0:
            moved.append(scores[-1] - predictor.predict(image).score)
    labels = [row.label for row in test_rows]
    expected = image_metrics(scores, labels, threshold=predictor.threshold)
    noise = one(robustness, "noise", 3)
    for key in ("image_auroc", "recall", "false_alarm_rate"):
        assert noise[key] == expected.to_json()[key]
    # The threshold rule's float32 against Python's floats.
    assert noise["score_shift"] == pytest.approx(float(np.median(moved)), rel=1e-5)
    low, high = noise["image_auroc_difference_ci95"]
    difference = noise["image_auroc"] - robustness["clean"]["image_auroc"]
    assert low <= difference <= high


def test_every_change_and_level_is_reported_with_its_strength(
    robustness: dict[str, Any],
) -> None:
    found = [(c["name"], c["level"], c["strength"]) for c in robustness["corruptions"]]
    assert found == [
        (name, level, strength)
        for name, corruption in CORRUPTIONS.items()
        for level, strength in enumerate(corruption.strengths, start=1)
    ]
    assert json.loads(json.dumps(robustness, allow_nan=False)) == robustness


def test_worst_is_the_mild_change_with_most_false_alarms(
    robustness: dict[str, Any],
) -> None:
    mild = [each for each in robustness["corruptions"] if each["level"] == 1]
    worst = robustness["worst"]
    assert worst["level"] == 1
    assert worst["false_alarm_rate"] == max(each["false_alarm_rate"] for each in mild)
    assert worst["false_alarm_rate"] == one(robustness, worst["name"], 1)[
        "false_alarm_rate"
    ]  # fmt: skip
    assert robustness["worst_recall"]["recall"] == min(each["recall"] for each in mild)


def test_without_anomalies_false_alarms_are_still_measured(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    found = measure(predictor, [row for row in test_rows if row.label == 0])
    assert found["images"]["anomalies"] == 0
    brighter = one(found, "brighter", 3)
    assert brighter["false_alarm_rate"] > found["clean"]["false_alarm_rate"]
    assert brighter["image_auroc"] is None
    assert brighter["image_auroc_difference_ci95"] is None
    assert brighter["recall"] is None
    assert "found 6 normal and 0 anomalous" in found["reasons"]["image_auroc"]
    assert {"recall", "worst_recall"} <= set(found["reasons"])
    assert "recall not measured" in printed(found)


def test_without_normals_recall_is_still_measured(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    found = measure(predictor, [row for row in test_rows if row.label == 1])
    assert found["clean"]["recall"] is not None
    assert found["worst"] is None
    assert found["worst_recall"] is not None
    assert {"false_alarm_rate", "score_shift", "worst"} <= set(found["reasons"])
    assert "false_alarm_rate not measured" in printed(found)


def test_at_most_max_images_of_each_class_are_taken_from_first_to_last(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    seen: list[tuple[str, int, int]] = []
    found = measure_robustness(
        predictor,
        test_rows,
        max_images=3,
        seed=0,
        progress=lambda *step: seen.append(step),
    )
    assert found["images"] == {
        "normals": 3,
        "anomalies": 3,
        "of_normals": 6,
        "of_anomalies": 6,
    }
    assert seen == [("bracket: robustness", done, 6) for done in range(1, 7)]
    by_class = [[r for r in test_rows if r.label == label] for label in (0, 1)]
    # Places 0, 2.5 and 5, rounded to even.
    spread = [rows[place] for rows in by_class for place in (0, 2, 5)]
    assert measure(predictor, spread)["corruptions"] == found["corruptions"]


def test_the_order_of_the_rows_changes_no_metric(
    robustness: dict[str, Any], predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    turned = measure(predictor, test_rows[::-1])
    for key in ("image_auroc", "recall", "false_alarm_rate"):
        assert [each[key] for each in turned["corruptions"]] == [
            each[key] for each in robustness["corruptions"]
        ]


def test_a_picture_that_cannot_be_read_is_named(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    rows = [*test_rows, replace(test_rows[0], image="gone.png", line=99)]
    with pytest.raises(DatasetError, match=r"manifest line 99: .*gone\.png"):
        measure(predictor, rows)


class BrightIsNaN:
    """An engine that scores by mean grey level and fails above a limit."""

    name = "bright is NaN"
    has_map = False

    def __init__(self, limit: float) -> None:
        self.limit = limit

    def run(
        self, images_u8: Any, *, with_map: bool
    ) -> tuple[np.ndarray[Any, Any], None]:
        means = images_u8.mean(axis=(1, 2, 3))
        return np.where(means > self.limit, np.nan, means).astype(np.float32), None


def test_a_picture_that_cannot_be_scored_is_named_with_its_change(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    row = test_rows[0]
    mean = float(predictor.read(row.image_path).mean())
    failing = Predictor(
        *("bracket", predictor.settings, predictor.rules, BrightIsNaN(mean * 1.02))
    )
    words = rf"{row.image} \(brighter 1\): the graph gave the score nan"
    with pytest.raises(DatasetError, match=words):
        measure(failing, [row])


def test_max_images_below_one_is_a_mistake_of_the_program(
    predictor: Predictor, test_rows: list[ManifestRow]
) -> None:
    with pytest.raises(ValueError, match="max_images: found 0"):
        measure(predictor, test_rows, max_images=0)


def test_the_table_has_a_row_for_each_change_and_names_the_worst_mild_one(
    robustness: dict[str, Any],
) -> None:
    text = printed(robustness)
    for name in CORRUPTIONS:
        assert f"  {name.replace('_', ' ')} " in text
    assert "6 of 6 test normals and 6 of 6 anomalies" in text
    worst = robustness["worst"]
    assert worst["false_alarm_rate_increase"] > 0
    name = worst["name"].replace("_", " ")
    raised = round(worst["false_alarm_rate"] * 6)
    assert f"{name} ({worst['strength']:g} {worst['unit']}) costs most" in text
    assert f"{raised} of 6 good pictures are reported" in text


def test_the_table_says_when_no_mild_change_matters(
    robustness: dict[str, Any],
) -> None:
    clean = robustness["clean"]
    calm = robustness | {
        "worst": robustness["worst"] | {"false_alarm_rate_increase": 0.0},
        "worst_recall": robustness["worst_recall"] | {"recall_decrease": 0.0},
    }
    text = printed(calm)
    alarms, found = (round(clean[k] * 6) for k in ("false_alarm_rate", "recall"))
    assert f"no mild change raises false alarms: at most {alarms} of 6" in text
    assert f"no mild change hides defects: at least {found} of 6" in text


def test_the_table_warns_of_a_difference_that_may_be_chance(
    robustness: dict[str, Any],
) -> None:
    rates = {"false_alarm_rate": 0.5, "false_alarm_rate_increase": 0.5}
    warning = "it may be chance"
    for low, high, expected in ((0.3, 0.9, True), (0.5, 0.9, False)):
        worst = robustness["worst"] | rates | {"false_alarm_rate_ci95": [low, high]}
        clean = robustness["clean"] | {"false_alarm_rate_ci95": [0.0, 0.4]}
        text = printed(
            robustness | {"worst": worst, "clean": clean, "worst_recall": None}
        )
        assert (warning in text) == expected
