"""The leaderboard page: what it says, and that names are text."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leaderboard_cells import THRESHOLD, comparison, write_cell
from pyimgano.reporting.charts import Scored, histogram, pr_chart, roc_chart
from pyimgano.reporting.leaderboard import Cell, FailedCell, write_leaderboard
from pyimgano.reporting.leaderboard_charts import styles
from pyimgano.reporting.leaderboard_sections import robustness_table

HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """Tags and text of a page; the text of scripts and styles is left out."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        self.text += " " if tag in ("td", "p", "li", "small", "dd", "th") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside in ("script", "style") else data

    def count(self, tag: str, **wanted: str) -> int:
        return sum(
            name == tag and all(facts.get(k) == v for k, v in wanted.items())
            for name, facts in self.tags
        )


def html_of(folder: Path, cells: list[Cell], **options: Any) -> str:
    folder.mkdir()
    given = {"title": "Bolts", "command": "pyimgano x", "failed": []} | options
    write_leaderboard(folder, cells, given.pop("failed"), **given)
    return (folder / "leaderboard.html").read_text("utf-8")


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return [
        write_cell(tmp_path / model, model=model)
        for model in ("patchcore", "padim", "pixel_stats")
    ]


def test_the_head_says_what_ran_where_and_how_the_engines_agree(
    tmp_path: Path, cells: list[Cell]
) -> None:
    text = Page(html_of(tmp_path / "out", cells, planned=5)).text

    for words in (
        "3 of 5 cells finished, 0 failed, 2 still to run",
        "0 of 240 labels differ between torch and onnx; largest score difference 3e-06",
        "2026-05-04 03:02:01 UTC",
        "a processor, 2 cores",
        "pyimgano 0.9.0, python 3.11.9, onnxruntime 1.20.0",
        "pyimgano x",
    ):
        assert words in text, words


def test_flips_and_the_largest_difference_are_taken_over_all_cells(
    tmp_path: Path, cells: list[Cell]
) -> None:
    cells[0].facts["engines"]["onnx"]["label_flips"] = 2
    cells[1].facts["engines"]["onnx"]["label_flips"] = 1
    cells[1].facts["engines"]["onnx"]["max_abs_score_diff"] = 0.5
    text = Page(html_of(tmp_path / "out", cells)).text
    assert "3 of 240 labels differ" in text
    assert "largest score difference 0.5" in text


def test_the_page_loads_nothing_from_elsewhere(
    tmp_path: Path, cells: list[Cell]
) -> None:
    html = html_of(tmp_path / "out", cells)

    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    sources = [facts["src"] for tag, facts in Page(html).tags if tag == "img"]
    assert sources
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)


def test_every_drawing_says_in_words_what_it_shows(
    tmp_path: Path, cells: list[Cell]
) -> None:
    page = Page(html_of(tmp_path / "out", cells))
    labels = [
        str(facts["aria-label"])
        for tag, facts in page.tags
        if tag == "svg" and facts.get("role") == "img"
    ]

    assert len(labels) == 3 + 3  # two curves, the scatter, three histograms
    scores = [label for label in labels if label.startswith("Scores of")]
    assert all("of 40 normals" in label for label in scores)
    assert all(facts.get("alt") for tag, facts in page.tags if tag == "img")


def test_rows_carry_what_they_are_sorted_by(tmp_path: Path, cells: list[Cell]) -> None:
    html = html_of(tmp_path / "out", cells)
    auroc = cells[1].facts["engines"]["onnx"]["image_auroc"]
    assert f'data-sort="{auroc}"' in html
    assert Page(html).count("tr", **{"data-dataset": "bolts"}) == 6


def test_only_a_separated_number_is_filled(tmp_path: Path, cells: list[Cell]) -> None:
    compared = [
        comparison("patchcore", "padim"),
        comparison("patchcore", "pixel_stats"),
    ]
    with_them = Page(html_of(tmp_path / "with", cells, comparisons=compared))
    without = Page(html_of(tmp_path / "without", cells))

    assert with_them.count("td", **{"class": "best"}) == 1
    row = "patchcore padim -0.062 -0.094 to -0.031 patchcore 1 / 9 p 0.021"
    assert row in with_them.text
    assert without.count("td", **{"class": "best"}) == 0
    assert without.count("td", **{"class": "level"}) >= 6


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell", category=HOSTILE, dataset_name='"><img src=x>')
    failed = [FailedCell(HOSTILE, "m", HOSTILE, HOSTILE, 0, HOSTILE, HOSTILE)]
    html = html_of(
        tmp_path / "out", [cell], failed=failed, title=HOSTILE, command=HOSTILE
    )
    page = Page(html)

    assert page.count("script") == 1  # the page's own
    assert page.count("img", src="x") == 0
    assert HOSTILE in page.text


def test_a_model_of_a_hostile_name_cannot_leave_its_drawing(tmp_path: Path) -> None:
    name = '"><script>x</script>'
    scored = Scored(
        *(name, styles([name])[name]),
        scores=np.array([1.0, 2.0, 11.0, 12.0]),
        anomalous=np.array([False, False, True, True]),
        threshold=THRESHOLD,
    )
    for drawing in (histogram(scored), roc_chart([scored]), pr_chart([scored])):
        assert drawing is not None
        assert "<script" not in drawing


def test_missing_pixel_metrics_are_dashes_with_their_reason(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell", pixels=False)
    page = Page(html_of(tmp_path / "out", [cell]))

    assert page.count("td", title="no masks") == 2
    assert "patchcore: not measured: pixel_auroc: no masks" in page.text


def test_a_cell_of_one_class_has_no_curves_and_says_why(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell", n_anomalies=0)
    page = Page(html_of(tmp_path / "out", [cell]))

    assert "No curves: they take scored normals and anomalies in the test." in page.text
    assert "image_auroc: one class only" in page.text
    assert page.count("svg", role="img") == 1  # the histogram


def test_a_cell_without_rows_and_pictures_still_has_its_numbers(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell")
    (cell.category_folder / "per_image.jsonl").unlink()
    (cell.category_folder / "gallery/gallery.json").unlink()
    page = Page(html_of(tmp_path / "out", [cell]))

    assert page.count("tr", **{"data-engine": "onnx"}) == 1
    assert page.count("img") == 0
    assert "small copies" not in page.text


def test_a_page_with_pictures_warns_of_them(tmp_path: Path, cells: list[Cell]) -> None:
    text = Page(html_of(tmp_path / "out", cells)).text
    assert "This page holds small copies of pictures of the data sets" in text


def test_a_failed_cell_is_named_with_its_error(
    tmp_path: Path, cells: list[Cell]
) -> None:
    failed = [FailedCell("stfpm", "m", "bolts", "nut", 0, "DatasetError", "no mask")]
    text = Page(html_of(tmp_path / "out", cells, failed=failed)).text
    assert "3 of 4 cells finished, 1 failed" in text
    assert re.search(r"stfpm seed 0 nut bolts DatasetError no mask", text)


def test_robustness_is_a_table_of_the_clean_and_the_changed(tmp_path: Path) -> None:
    clean = {"image_auroc": 0.875, "recall": 0.75, "false_alarm_rate": None}
    blur = {"name": "motion_blur", "level": 1, "strength": 2.5, "unit": "px"}
    report = {"clean": clean, "corruptions": [blur | clean | {"recall": 0.5}]}
    assert robustness_table(report) == {
        "columns": ["AUROC", "Recall", "False alarms"],
        "rows": [
            ("none", ["0.875", "0.750", "-"]),
            ("motion blur, 2.5 px", ["0.875", "0.500", "-"]),
        ],
    }
    cell = write_cell(tmp_path / "cell", robustness=report)
    text = Page(html_of(tmp_path / "out", [cell])).text
    assert "Altered pictures: patchcore" in text
    assert "motion blur, 2.5 px 0.875 0.500 -" in text


def test_a_curve_has_at_most_two_hundred_points() -> None:
    rng = np.random.default_rng(0)
    anomalous = np.arange(5000) % 2 == 1
    scores = rng.normal(0, 1, 5000) + anomalous
    scored = Scored("m", styles(["m"])["m"], scores, anomalous, 1.0)

    path = re.search(r'class="curve c0" d="([^"]+)"', str(roc_chart([scored])))
    assert path is not None
    points = path[1].count("L") + 1
    assert 100 < points <= 200


def test_histogram_bars_count_every_picture_once() -> None:
    rng = np.random.default_rng(0)
    anomalous = np.arange(101) % 3 == 0
    scored = Scored("m", styles(["m"])["m"], rng.normal(0, 1, 101), anomalous, 1.0)
    drawn = str(histogram(scored))

    for many, n in (("normals", 67), ("anomalies", 34)):
        counts = re.findall(rf">(\d+) of {n} {many}", drawn)
        assert sum(map(int, counts)) == n


def test_models_look_different_from_each_other() -> None:
    names = [f"model {n}" for n in range(12)]
    looks = styles(names)
    assert len(set(looks.values())) == 12
