"""leaderboard.csv, .md and comparisons.csv, marks, and the gallery of cases."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from conftest import Exported
from leaderboard_cells import comparison, write_cell
from pyimgano.datasets.manifest import read_manifest
from pyimgano.reporting.case_gallery import write_cases
from pyimgano.reporting.leaderboard import (
    COLUMNS,
    Cell,
    FailedCell,
    leaderboard_rows,
    write_leaderboard,
)
from pyimgano.reporting.leaderboard_marks import marks
from pyimgano.reporting.leaderboard_words import share_text
from pyimgano_runtime.predictor import Predictor

FAILED = FailedCell(
    "stfpm", "manifest", "bolts", "a|b", 1, "DatasetError", "no such picture\nmend it"
)


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return [
        write_cell(tmp_path / model, model=model)
        for model in ("patchcore", "padim", "pixel_stats")
    ]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def written(folder: Path, cells: list[Cell], **options: object) -> Path:
    folder.mkdir()
    failed = options.pop("failed", [])
    write_leaderboard(folder, cells, failed, title="T", command=None, **options)
    return folder


def test_the_csv_has_one_row_per_cell_and_engine(
    tmp_path: Path, cells: list[Cell]
) -> None:
    rows = table(written(tmp_path / "out", cells) / "leaderboard.csv")

    assert [(row["model"], row["engine"]) for row in rows] == [
        *(("patchcore", "torch"), ("patchcore", "onnx")),
        *(("padim", "torch"), ("padim", "onnx")),
        *(("pixel_stats", "torch"), ("pixel_stats", "onnx")),
    ]


def test_the_csv_begins_with_the_names_and_ends_with_the_reasons(
    tmp_path: Path, cells: list[Cell]
) -> None:
    text = (written(tmp_path / "out", cells) / "leaderboard.csv").read_text("utf-8")
    header = text.splitlines()[0].split(",")

    assert header == list(COLUMNS)
    assert header[:9] == [
        *("model", "dataset", "category", "seed", "precision", "engine"),
        *("dataset_name", "image_auroc", "image_auroc_ci95"),
    ]
    assert header[-2:] == ["test_fingerprint", "reasons"]


def test_the_csv_keeps_all_digits_and_leaves_null_empty(
    tmp_path: Path, cells: list[Cell]
) -> None:
    rows = table(written(tmp_path / "out", cells) / "leaderboard.csv")
    torch, onnx = rows[2], rows[3]  # padim
    report = cells[1].facts["engines"]["onnx"]

    assert float(onnx["image_auroc"]) == report["image_auroc"]
    assert json.loads(onnx["recall_ci95"]) == report["recall_ci95"]
    assert onnx["aupro_0.3"] == "0.90625"
    assert onnx["latency_ms.p50"] == "18.25"
    assert onnx["decode_ms.p50"] == "1.5"
    assert onnx["start.open_ms"] == "45.0"
    assert onnx["threshold"] == "10.0"
    assert (onnx["label_flips"], torch["label_flips"]) == ("0", "")
    assert onnx["max_abs_map_diff"] == ""
    assert onnx["reasons"] == "{}"


def test_the_int8_engine_is_onnx_of_precision_int8(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell")
    engines = cell.facts["engines"]
    engines["onnx-int8"] = engines["onnx"] | {"precision": "int8"}

    row = leaderboard_rows([cell])[-1]

    assert (row["engine"], row["precision"]) == ("onnx", "int8")


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_a_name_that_looks_like_a_formula_gets_an_apostrophe(
    tmp_path: Path, start: str
) -> None:
    cell = write_cell(tmp_path / "cell", category=f"{start}cmd()")
    row = table(written(tmp_path / "out", [cell]) / "leaderboard.csv")[0]
    assert row["category"] == f"'{start}cmd()"


def test_failed_cells_are_in_the_markdown_and_in_no_row(
    tmp_path: Path, cells: list[Cell]
) -> None:
    folder = written(tmp_path / "out", cells, failed=[FAILED])

    assert len(table(folder / "leaderboard.csv")) == 6
    markdown = (folder / "leaderboard.md").read_text("utf-8")
    assert (
        "- bolts / a\\|b / stfpm, seed 1: DatasetError: no such picture mend it"
        in markdown
    )


def test_failed_cells_alone_give_all_three_files(tmp_path: Path) -> None:
    folder = written(tmp_path / "out", [], failed=[FAILED], planned=3)

    assert table(folder / "leaderboard.csv") == []
    assert "No cell has finished." in (folder / "leaderboard.md").read_text("utf-8")
    page = (folder / "leaderboard.html").read_text("utf-8")
    assert "0 of 3 cells finished, 1 failed, 2 still to run" in page
    assert "no such picture" in page


def test_every_markdown_row_has_as_many_cells_as_its_header(tmp_path: Path) -> None:
    cell = write_cell(tmp_path / "cell", category="a|b <script>", pixels=False)
    folder = written(tmp_path / "out", [cell])
    lines = (folder / "leaderboard.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")]

    assert len(rows) == 4
    assert {line.replace("\\|", "").count("|") for line in rows} == {17}
    assert "a\\|b &lt;script>" in rows[2]


def test_the_markdown_gives_promised_and_achieved_false_alarms(
    tmp_path: Path, cells: list[Cell]
) -> None:
    folder = written(tmp_path / "out", cells)
    achieved = cells[0].facts["engines"]["onnx"]["false_alarm_rate"]
    markdown = (folder / "leaderboard.md").read_text("utf-8")
    assert f"| 0.020 -> {achieved:.3f} |" in markdown


def test_comparisons_are_written_where_there_are_some(
    tmp_path: Path, cells: list[Cell]
) -> None:
    found = [comparison("patchcore", "padim")]
    folder = written(tmp_path / "with", cells, comparisons=found)

    row = table(folder / "comparisons.csv")[0]
    assert (row["model_a"], row["model_b"]) == ("patchcore", "padim")
    assert (row["image_auroc_difference"], row["distinguishable"]) == (
        "-0.0625",
        "true",
    )
    assert not (written(tmp_path / "without", cells) / "comparisons.csv").exists()


def test_best_takes_a_paired_comparison_with_every_other_model(
    cells: list[Cell],
) -> None:
    rows = leaderboard_rows(cells)
    with_padim = comparison("padim", "patchcore")
    with_both = [with_padim, comparison("patchcore", "pixel_stats")]

    assert marks(rows, with_both)[1, "image_auroc"] == "best"
    assert marks(rows, [with_padim])[1, "image_auroc"] == "level"
    assert marks(rows, with_both)[0, "image_auroc"] == "level"  # torch: not compared


def test_a_model_that_is_not_told_apart_from_the_highest_is_level(
    cells: list[Cell],
) -> None:
    found = [
        comparison("patchcore", "padim", distinguishable=False),
        comparison("patchcore", "pixel_stats"),
    ]
    given = marks(leaderboard_rows(cells), found)

    of_onnx = [n for n, key in given if key == "image_auroc" and n % 2 == 1]
    assert sorted(of_onnx) == [1, 3]
    assert given[1, "image_auroc"] == given[3, "image_auroc"] == "level"


def test_one_model_alone_is_never_marked(cells: list[Cell]) -> None:
    assert marks(leaderboard_rows(cells[:1]), []) == {}


def test_models_of_other_seeds_do_not_compete(cells: list[Cell]) -> None:
    rows = leaderboard_rows([cells[0], replace(cells[1], seed=1)])
    assert marks(rows, []) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1.000"),
        (0.99961, "0.9996"),
        (0.999999, "> 0.9999"),
        (0.5, "0.500"),
        (None, "-"),
    ],
)
def test_what_is_not_quite_one_is_not_shown_as_one(
    value: float | None, text: str
) -> None:
    assert share_text(value) == text


# --- cases --------------------------------------------------------------------------


def test_cases_are_chosen_drawn_and_described(
    tmp_path: Path, exported: Callable[[str], Exported]
) -> None:
    made = exported("pixel_stats")
    rows = [row for row in read_manifest(made.manifest) if row.split == "test"]
    predictor = Predictor.open(made.bundle)
    per_image = []
    for row in rows:
        found = predictor.predict(predictor.read(row.image_path))
        per_image.append(
            {
                "input": row.image,
                "ok": True,
                "score": found.score,
                "threshold": found.threshold,
                "label": found.label,
                "label_true": row.label,
            }
        )

    write_cases(tmp_path / "gallery", rows, per_image, predictor)

    groups = json.loads((tmp_path / "gallery/gallery.json").read_text("utf-8"))
    cases = [case for group in groups["groups"] for case in group["cases"]]
    known = {row["input"]: row for row in per_image}
    assert 2 <= len(cases) <= 8
    names = {"gallery.json"}
    for case in cases:
        assert case["score"] == known[case["input"]]["score"]
        assert case["threshold"] == predictor.threshold
        for name in case["files"].values():
            names.add(name)
            height, width, _ = cv2.imread(str(tmp_path / "gallery" / name)).shape
            assert max(height, width) <= 256
    assert {path.name for path in (tmp_path / "gallery").iterdir()} == names
