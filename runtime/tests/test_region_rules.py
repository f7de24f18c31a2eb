"""Region rules as flags, in documents, and on a device without OpenCV."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import edit_document, grey, save_picture, write_bundle

from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cli import main
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.map_grid import MapGrid, judged_cells
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.region_flags import RegionFlags, parse_roi, rules_with
from pyimgano_runtime.region_rules import RegionRules, Roi
from pyimgano_runtime.region_words import region_sentence


def with_regions(folder: Path, rules: dict[str, Any], *, pixel: bool = True) -> Path:
    """Give a tiny bundle whose only category has these rules."""
    bundle = write_bundle(folder)

    def edit(document: dict[str, Any]) -> None:
        (category,) = document["categories"].values()
        category["regions"] = rules
        thresholds = category["thresholds"]
        if pixel:
            thresholds["pixel"] = 50.0
            provenance = thresholds["provenance"]
            provenance["pixel"] = provenance["image"]
        document["schema_version"] = "1.3"
        if rules.get("policy", "image_threshold") != "image_threshold":
            document["requires"] = ["regions"]

    edit_document(bundle, edit)
    return bundle


def test_flags_replace_single_rules() -> None:
    problems: list[str] = []
    changes = ("min_area=50", "policy=both", "max_aspect=null", "polygons=true")
    rules = rules_with(RegionRules(max_aspect=3.0), changes, problems)
    assert not problems
    assert rules == RegionRules(min_area=50.0, policy="both", polygons=True)


def test_wrong_rules_are_told_together() -> None:
    problems: list[str] = []
    rules_with(
        RegionRules(),
        ("min_area", "open_cells=1.5", "polcy=both", "border=2"),
        problems,
    )
    text = "\n".join(problems)
    for words in (
        'found "min_area", expected NAME=VALUE',
        "open_cells",
        "polcy",
        "0.49",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("text", "roi"),
    [
        ("0,0.25,0.5,1", Roi(rectangle=(0, 0.25, 0.5, 1))),
        ("0,0 1,0 0.5,1", Roi(polygon=((0, 0), (1, 0), (0.5, 1)))),
        ("none", None),
    ],
)
def test_a_roi_is_four_numbers_or_corners(text: str, roi: Roi | None) -> None:
    problems: list[str] = []
    assert parse_roi(text, problems) == roi
    assert not problems


@pytest.mark.parametrize(
    "text",
    ["", "1,1,0,0", "0,0,1", "0,0 1,1", "0,0 1,0 a,1", "0,0 1,0 0,2", "nan,0,1,1"],
)
def test_another_shape_is_refused(text: str) -> None:
    problems: list[str] = []
    assert parse_roi(text, problems) is None
    assert len(problems) == 1
    assert "give x0,y0,x1,y1 or corners" in problems[0]


def test_a_border_leaves_the_same_cells_on_each_side() -> None:
    grid = MapGrid.of((10, 20), (100, 100), "stretch")
    cells = judged_cells(grid, None, 0.1)
    assert cells.sum() == 8 * 16
    assert np.array_equal(cells, cells[::-1, ::-1])


def test_a_letterbox_judges_the_picture_alone() -> None:
    grid = MapGrid.of((8, 8), (40, 80), "letterbox")
    cells = judged_cells(grid, None, 0.0)
    assert np.flatnonzero(cells.any(axis=1)).tolist() == [2, 3, 4, 5]
    assert cells.any(axis=0).all()


def test_without_opencv_regions_that_only_explain_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    bundle = with_regions(tmp_path / "b", {"min_area": 2})
    picture = save_picture(tmp_path / "p.png", grey(120))
    assert main(["infer", "--bundle", str(bundle), str(picture)]) == 0
    told = capsys.readouterr()
    row = json.loads(told.out)
    assert (row["label"], row["regions"]) == ("anomaly", None)
    assert "no regions: regions need OpenCV" in told.err
    masks = ["--save-masks", str(tmp_path / "m")]
    assert main(["infer", "--bundle", str(bundle), *masks, str(picture)]) == 2
    assert "pip install opencv-python-headless" in capsys.readouterr().err


def test_without_opencv_regions_that_decide_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    bundle = with_regions(tmp_path / "b", {"policy": "any_region"})
    with pytest.raises(ConfigError, match="the label follows them"):
        Predictor.open(bundle)


def test_regions_without_a_pixel_threshold_are_refused(tmp_path: Path) -> None:
    bundle = with_regions(tmp_path / "b", {}, pixel=False)
    with pytest.raises(BundleError, match="regions are what lies above it"):
        open_bundle(bundle)


def test_a_threshold_that_a_flag_gives_is_enough(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    flags = RegionFlags(rules=("min_area=0",))
    with pytest.raises(ConfigError, match="give one by --pixel-threshold"):
        Predictor.open(bundle, regions=flags)
    pytest.importorskip("cv2")
    flags = RegionFlags(rules=("policy=any_region",), pixel_threshold=50.0)
    predictor = Predictor.open(bundle, regions=flags)
    high, low = predictor.predict(grey(60)), predictor.predict(grey(40))
    assert (high.label, low.label) == ("anomaly", "normal")
    assert high.found is not None
    assert high.found.regions[0].bbox == (0, 0, 9, 8)


def test_flags_that_would_change_nothing_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "b")
    for flags in (RegionFlags(roi="0,0,1,1"), RegionFlags(pixel_threshold=3.0)):
        with pytest.raises(ConfigError, match="looks for no regions"):
            Predictor.open(bundle, regions=flags)


def test_rules_are_said_in_one_sentence(tmp_path: Path) -> None:
    bundle = with_regions(tmp_path / "b", {"policy": "both", "min_area": 5})
    (category,) = open_bundle(bundle).config.categories.values()
    assert region_sentence(category) == (
        "the label is anomaly where the score and a region say so; map values from 50 "
        "on; min_area 5.0"
    )
