"""The overview page and picture, from small made-up results."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyimgano.reporting.overview import write_overview
from pyimgano.reporting.overview_facts import (
    Agreement,
    CategoryResult,
    InspectedPart,
    Overview,
    Step,
    promise_words,
)
from pyimgano.reporting.overview_gallery import gallery
from pyimgano.reporting.overview_page import chart, page_html
from pyimgano.reporting.threshold_story import asked_words, origin_words
from pyimgano_runtime.infer_config import (
    Calibration,
    CategoryConfig,
    InputRules,
    MapGeometry,
    ThresholdProvenance,
    Thresholds,
)
from pyimgano_runtime.png_writer import encode_png

SIDE = 40
THRESHOLD = 10.0
# (true label, kind, score, p-value): 3 of 4 defects found, 1 false alarm in 4.
PARTS = {
    "✓ accepted good score 4.5000, 45 % of the threshold p-value 0.75,": (
        *(0, "good", 4.5, 0.75),
    ),
    "✓ accepted good score 6.2500, 62.5 % of the threshold p-value 0.5,": (
        *(0, "good", 6.25, 0.5),
    ),
    "✓ accepted good score 9.5000, 95 % of the threshold p-value 0.12,": (
        *(0, "good", 9.5, 0.125),
    ),
    "✗ false alarm good score 10.500, 105 % of the threshold p-value 0.062,": (
        *(0, "good", 10.5, 0.0625),
    ),
    "✗ missed faint scratch score 7.1250, 71.2 % of the threshold p-value 0.38,": (
        *(1, "faint scratch", 7.125, 0.375),
    ),
    "✓ found obvious dent score 31.500, 315 % of the threshold p-value 0.062,": (
        *(1, "obvious dent", 31.5, 0.0625),
    ),
    "✓ found clear scratch score 22.750, 227.5 % of the threshold p-value 0.062,": (
        *(1, "clear scratch", 22.75, 0.0625),
    ),
    "✓ found clear dent score 12.250, 122.5 % of the threshold p-value 0.062,": (
        *(1, "clear dent", 12.25, 0.0625),
    ),
}


class Page(HTMLParser):
    """Tags and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.text += " " if tag in ("br", "td", "p", "li") else ""

    def handle_data(self, data: str) -> None:
        self.text += data


def provenance(**changes: object) -> ThresholdProvenance:
    return replace(
        ThresholdProvenance(
            method="conformal",
            source="kfold_pooled",
            approximate=True,
            parameters={"rank": 15, "of": 15},
            requested_false_alarm_rate=0.01,
            used_false_alarm_rate=0.0625,
            n_images=15,
            n_groups=15,
            fingerprint="",
            score_summary={},
            warnings=(),
            set_by="a test",
            set_at="2026-01-01T00:00:00Z",
        ),
        **changes,
    )


def settings(**changes: object) -> CategoryConfig:
    return CategoryConfig(
        graph=("part",),
        thresholds=Thresholds(THRESHOLD, 8.0, ">=", {"image": provenance(**changes)}),
        calibration=Calibration(tuple(np.linspace(4, 9.9, 15).tolist()), 15),
        map_geometry=MapGeometry("stretch", (8, 8)),
    )


@pytest.fixture
def category(tmp_path: Path) -> CategoryResult:
    rng = np.random.default_rng(0)
    parts = []
    for index, (label, kind, score, p_value) in enumerate(PARTS.values()):
        image_path = tmp_path / f"{index}.png"
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        image_path.write_bytes(encode_png(pixels))
        mask_path = None
        if label:
            mask_path = tmp_path / f"{index}-mask.png"
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[10:20, 10:20] = 255
            mask_path.write_bytes(encode_png(mask))
        map_path = tmp_path / f"{index}.npy"
        np.save(map_path, rng.uniform(4, score, (8, 8)).astype(np.float32))
        parts.append(
            InspectedPart(
                name=f"images/{index}.png",
                image_path=image_path,
                mask_path=mask_path,
                map_path=map_path,
                label_true=label,
                kind=kind,
                score=score,
                p_value=p_value,
                label="anomaly" if score >= THRESHOLD else "normal",
                ms=12.0 + index,
            )
        )
    report = {
        "counts": {"train_normals": 15},
        "image_auroc": 0.9375,
        "image_auroc_ci95": [0.8125, 0.96875],
        "pixel_auroc": 0.71875,
    }
    return CategoryResult(
        "bolt", tuple(parts), settings(), report, Agreement(8, 3e-7, 0)
    )


@pytest.fixture
def overview(category: CategoryResult) -> Overview:
    return Overview(
        detector="patchcore",
        noun=("part", "parts"),
        data="Made-up parts.",
        notice=None,
        machine="a machine with 2 cores",
        steps=(Step("Training", "bolt: 15 good parts", 4.25),),
        goldens="4 of 4 golden pictures agree.",
        categories=(category,),
        rules=InputRules(),
        try_it="pyimgano-runtime infer --bundle bundle photos/",
    )


def test_both_files_are_written_and_the_picture_can_be_decoded(
    tmp_path: Path, overview: Overview
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_overview(folder, overview)

    assert sorted(path.name for path in folder.iterdir()) == [
        "overview.html",
        "overview.png",
    ]
    height, width, _ = cv2.imread(str(folder / "overview.png")).shape
    assert width == 1600
    assert height > 600


def test_the_same_results_give_the_same_bytes(
    tmp_path: Path, overview: Overview
) -> None:
    found = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_overview(tmp_path / name, overview)
        files = sorted((tmp_path / name).iterdir())
        found.append([path.read_bytes() for path in files])
    assert found[0] == found[1]


def test_the_page_loads_nothing_from_elsewhere(overview: Overview) -> None:
    html = page_html(overview)
    page = Page(html)

    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?\s*(https?:|//)", html)
    assert "@import" not in html
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    sources = [facts["src"] for tag, facts in page.tags if tag == "img"]
    assert sources
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)


def test_every_picture_says_in_words_what_it_shows(overview: Overview) -> None:
    page = Page(page_html(overview))

    images = [facts for tag, facts in page.tags if tag == "img"]
    assert len(images) == 2 * 8  # picture and heat map of all eight
    assert all(facts.get("alt") for facts in images)
    drawings = [
        facts for tag, facts in page.tags if tag == "svg" and facts.get("role") == "img"
    ]
    assert [facts["aria-label"] for facts in drawings] == [
        "Scores of bolt: 3 of 4 defective and 1 of 4 good parts lie at or above the "
        "threshold 10.000."
    ]


def test_the_page_shows_the_numbers_that_it_was_given(overview: Overview) -> None:
    text = Page(page_html(overview)).text

    assert overview.headline == (
        "3 of 4 defective parts found, 1 false alarm in 4 good parts"
    )
    for words in (
        overview.headline,
        "3 of 4 (75 %; 95 % interval 30 to 95 %)",
        "1 of 4 (25 %; 95 % interval 5 to 70 %)",
        "about 6.2 %",
        "0.938 [0.812, 0.969]",
        "0.719",
        "largest score difference: 0.00003 %",
        "8 of 8",
        "0 of 8",
        "16 ms",
        "Training bolt: 15 good parts 4.2",
        "4 of 4 golden pictures agree.",
        "a machine with 2 cores",
    ):
        assert words in text, words
    for words in PARTS:
        assert words in text, words


def test_mistakes_come_first_and_the_worst_of_them_first(
    category: CategoryResult,
) -> None:
    titles = {
        group.title: [part.score for part in group.parts] for group in gallery(category)
    }

    assert titles == {
        "Mistakes": [7.125, 10.5],
        "Found": [31.5, 22.75, 12.25],
        "Accepted": [9.5, 6.25, 4.5],
    }


def test_false_alarms_are_shown_however_many_defects_were_missed(
    category: CategoryResult,
) -> None:
    missed = next(part for part in category.parts if part.verdict == "missed")
    more = tuple(replace(missed, score=1.0 + n, name=str(n)) for n in range(9))
    mistakes = gallery(replace(category, parts=category.parts + more), n_mistakes=3)[0]

    assert [part.verdict for part in mistakes.parts] == [
        "missed",
        "missed",
        "false alarm",
    ]
    assert mistakes.n_all == 11


def test_the_clearest_of_each_kind_is_shown_before_a_second_of_one(
    category: CategoryResult,
) -> None:
    found = gallery(category, n_found=2)[1]
    assert [part.kind for part in found.parts] == ["obvious dent", "clear scratch"]


def test_a_dot_lies_beyond_the_threshold_line_exactly_when_flagged(
    category: CategoryResult,
) -> None:
    drawn = chart(category, "parts")
    dots = {band.kind: band.dots for band in drawn.bands}

    assert len(dots["reference"]) == 15
    assert sum(dot.x >= drawn.threshold for dot in dots["good"]) == 1
    assert sum(dot.x >= drawn.threshold for dot in dots["defective"]) == 3
    assert [dot.wrong for dot in dots["good"]] == [False, False, False, True]
    assert all(0 <= dot.x <= 100 for band in drawn.bands for dot in band.dots)
    assert all(
        band.top < dot.y < band.floor for band in drawn.bands for dot in band.dots
    )


def test_more_false_alarms_than_promised_are_called_so(
    category: CategoryResult,
) -> None:
    noun = ("part", "parts")
    assert "agrees with the promise" in promise_words(category, noun)

    alarms = tuple(replace(part, label="anomaly") for part in category.parts)
    assert "more than promised" in promise_words(replace(category, parts=alarms), noun)


def test_the_origin_of_the_threshold_is_told() -> None:
    assert origin_words(provenance(), "parts") == (
        "The threshold lies just above the highest of 15 scores of good training "
        "parts, each judged by a model that had not seen it. The final model has seen "
        "all of them, so the promise is approximate."
    )
    few = provenance(
        source="val",
        approximate=False,
        parameters={"rank": 14, "of": 15},
        warnings=("CALIBRATION_SMALL_N",),
    )
    assert origin_words(few, "parts") + asked_words(few, "parts") == (
        "The threshold lies just above the 2nd highest of 15 scores of good parts "
        "that the model had not seen. Asked for were 1\u00a0%: that takes more good "
        "parts."
    )
    by_hand = provenance(method="fixed", set_by="Ms Kim", used_false_alarm_rate=None)
    assert origin_words(by_hand, "parts") == (
        "The threshold was chosen by hand (method fixed); it follows from no scores."
    )


def test_a_detector_without_maps_gets_a_page_without_heat_maps(
    tmp_path: Path, overview: Overview
) -> None:
    category = overview.categories[0]
    bare = tuple(
        replace(part, map_path=None, mask_path=None) for part in category.parts
    )
    overview = replace(overview, categories=(replace(category, parts=bare),))
    write_overview(tmp_path, overview)

    page = Page((tmp_path / "overview.html").read_text(encoding="utf-8"))
    assert sum(tag == "img" for tag, _ in page.tags) == len(PARTS)
    assert "heat map in the same colours" not in page.text


def test_names_are_text_and_never_markup(overview: Overview) -> None:
    category = replace(overview.categories[0], name="<script>alert(1)</script>")
    page = Page(page_html(replace(overview, categories=(category,))))
    assert "script" not in {tag for tag, _ in page.tags}
