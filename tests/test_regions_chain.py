"""Regions from the training config to the device: one definition, one label."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bundle_copies import copy_of, edit_document
from conftest import CommandResult, config_payload
from factories import write_manifest
from pyimgano.inference.torch_predictor import torch_predictor
from pyimgano.reporting.tables import print_run
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.config import parse_config
from pyimgano.workbench.trained import load_trained
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.cli import main as runtime
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.region_flags import RegionFlags

Run = Callable[..., CommandResult]

SIZE = (96, 192)
SPOT = (slice(54, 66), slice(124, 136))  # inside of the ROI
EDGE = (slice(0, 10), slice(0, 10))  # outside of it: dirt on the glass
DEFECTS: dict[str, Any] = {
    "policy": "any_region",
    "roi_rectangle": [0.1, 0.2, 1.0, 1.0],
    "smoothing": "median",
    "hysteresis": 0.7,
    "min_area": 200,
}


def write_sheets(folder: Path) -> Path:
    """Write noisy sheets; all have dirt outside of the ROI, as bright as a defect."""
    random = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for number in range(32):
        split, label = ("train", 0) if number < 20 else ("test", int(number >= 26))
        image = random.normal(100, 6, (*SIZE, 3))
        image[EDGE] += random.uniform(0, 80)
        if label:
            image[SPOT] += 60
        name = f"{number:02d}.png"
        cv2.imwrite(str(folder / name), np.clip(image, 0, 255).astype(np.uint8))
        row = {"image_path": name, "category": "sheet", "split": split, "label": label}
        rows.append(row)
    return write_manifest(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Give the run and the pictures of sheets, trained with `defects`."""
    from pyimgano.cli import main

    folder = tmp_path_factory.mktemp("regions")
    manifest = write_sheets(folder / "pictures")
    payload = config_payload(manifest) | {"defects": DEFECTS}
    payload["model"]["options"] |= {"geometry": "stretch"}
    config, run = folder / "config.json", folder / "run"
    config.write_text(json.dumps(payload), encoding="utf-8")
    command = ["train", "--config", str(config), "--output", str(run)]
    assert main([*command, "--export-bundle"]) == 0
    return run, manifest.parent


def test_a_training_says_what_regions_found(
    sheets: tuple[Path, Path], run_cli: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    print_run(open_run(sheets[0]).report, sheets[0])
    words = " ".join(capsys.readouterr().out.split())
    assert "6 of 6 anomalies and 0 of 6 normals have a region; labels by" in words
    page = sheets[0].parent / "page.html"
    assert run_cli("report", sheets[0], "--html", page).code == 0
    text = page.read_text("utf-8")
    assert "in which a defect region is found is called anomalous, whatever" in text
    assert "scores the image threshold or more is called anomalous." not in text


def rows_of(run: Path) -> list[dict[str, Any]]:
    lines = (run / "categories/sheet/per_image.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_training_judges_by_regions_inside_of_the_roi(
    sheets: tuple[Path, Path],
) -> None:
    run, _ = sheets
    for row in rows_of(run):
        expected = "anomaly" if row["label_true"] else "normal"
        assert row["label"] == expected
        for region in row["regions"]:
            x0, y0, x1, y1 = region["bbox"]
            assert (x0, y0) < (130, 60) < (x1, y1)
    report = json.loads((run / "report.json").read_text("utf-8"))
    assert report["categories"]["sheet"]["regions"] == {
        "policy": "any_region",
        **{"normals": 6, "normals_with_region": 0, "normals_labelled_anomaly": 0},
        **{"anomalies": 6, "anomalies_with_region": 6, "anomalies_labelled_anomaly": 6},
    }


def test_the_pixel_threshold_is_set_on_what_is_judged(
    sheets: tuple[Path, Path],
) -> None:
    """Dirt outside of the ROI would have lifted it above every defect."""
    run, pictures = sheets
    thresholds, _ = open_run(run).calibration("sheet")
    parameters = thresholds.provenance["pixel"].parameters
    assert parameters["statistic"] == "largest judged map value per image"
    predictor = Predictor.open(run / "bundle")
    image = predictor.read(pictures / "00.png")
    prediction = predictor.predict(image)
    assert prediction.anomaly_map is not None
    assert thresholds.pixel is not None
    judged = predictor.judged_values(prediction.anomaly_map, SIZE)
    assert judged.max() < thresholds.pixel
    highest = []
    for path in sorted(pictures.glob("[01]*.png")):  # the normals that set it
        whole = predictor.predict(predictor.read(path)).anomaly_map
        assert whole is not None
        highest.append(whole.max())
    assert max(highest) > 1.5 * thresholds.pixel
    rules = predictor.settings.regions
    assert rules is not None
    middle = thresholds.provenance["pixel"].score_summary["median"]
    assert rules.low_threshold == middle + 0.7 * (thresholds.pixel - middle)


def test_torch_and_the_bundle_find_the_same_regions(
    sheets: tuple[Path, Path],
) -> None:
    run, pictures = sheets
    bundle = open_bundle(run / "bundle")
    assert bundle.config.schema_version == "1.3"
    assert bundle.config.requires == ("regions",)
    settings = bundle.config.categories["sheet"]
    detector = load_trained(open_run(run), "sheet")
    torch = torch_predictor(detector, "sheet", settings, bundle.config.input)
    onnx = Predictor.open(bundle)
    for name in ("26.png", "29.png", "21.png"):
        image = onnx.read(pictures / name)
        a, b = torch.predict(image), onnx.predict(image, with_map=False)
        assert b.anomaly_map is None
        assert a.found is not None
        assert b.found is not None
        assert [r.bbox for r in a.found.regions] == [r.bbox for r in b.found.regions]
        assert a.label == b.label


def test_a_device_writes_regions_masks_and_its_rules(
    sheets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pictures = sheets
    command = ["infer", "--bundle", str(run / "bundle"), str(pictures / "26.png")]
    masks, overlays = tmp_path / "masks", tmp_path / "overlays"
    assert (
        runtime(
            [*command, "--save-masks", str(masks), "--save-overlays", str(overlays)]
        )
        == 0
    )
    told = capsys.readouterr()
    (region,) = json.loads(told.out)["regions"]
    (mask,) = (cv2.imread(str(p), cv2.IMREAD_UNCHANGED) for p in masks.iterdir())
    rows, columns = np.nonzero(mask)
    assert mask.shape == SIZE
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert box == region["bbox"]
    assert "regions: one region makes the label anomaly, whatever the" in told.err
    assert len(list(overlays.iterdir())) == 1

    assert runtime([*command, "--region", "min_area=5000"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["regions"], row["label"]) == ([], "normal")
    assert runtime([*command, "--no-regions"]) == 2
    assert "the label follows regions" in capsys.readouterr().err


def test_saved_maps_give_the_same_regions_again(
    sheets: tuple[Path, Path],
    tmp_path: Path,
    run_cli: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, pictures = sheets
    bundle, maps = run / "bundle", tmp_path / "maps"
    arguments = ["--save-maps", str(maps), str(pictures / "26.png")]
    assert runtime(["infer", "--bundle", str(bundle), *arguments]) == 0
    regions = json.loads(capsys.readouterr().out)["regions"]
    command = ("defects", "--map", maps, "--infer-config", bundle, "--json")
    done = run_cli(*command, "--size", "96x192", "--save-masks", tmp_path / "masks")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["regions"] == regions
    assert len(list((tmp_path / "masks").iterdir())) == 1
    table = run_cli("defects", "--map", maps, "--infer-config", bundle)
    assert "1 of 1 maps have regions, 1 in all" in table.stdout
    with_none = run_cli(*command, "--region", "min_area=5000", "--size", "96x192")
    assert json.loads(with_none.stdout)["regions"] == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--map", "MAPS"), "--pixel-threshold: missing"),
        (("--map", "nothing.npy", "--pixel-threshold", "1"), "no such file"),
        (("--map", "MAPS", "--pixel-threshold", "1", "--region", "min_ara=1"), "did"),
        (("--map", "MAPS", "--pixel-threshold", "1", "--roi", "0,0,2,1"), "--roi"),
        (("--map", "BAD", "--pixel-threshold", "1"), "holds NaN or infinity"),
        (("--map", "TEXT", "--pixel-threshold", "1"), "cannot be read as a map"),
        (("--map", "MAPS", "--pixel-threshold", "1", "--size", "5x"), "HEIGHTxWIDTH"),
        (("--map", "MAPS", "--pixel-threshold", "1", "--size", "12345678x9"), "999999"),
        (("--map", "MAPS", "--pixel-threshold", "nan"), "expected a finite number"),
        (("--map", "MAPS", "--pixel-threshold", "1e39"), "that float32 can hold"),
    ],
)
def test_what_cannot_be_a_map_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, run_cli: Run
) -> None:
    (tmp_path / "maps").mkdir()
    np.save(tmp_path / "maps/a.npy", np.zeros((4, 4), np.float32))
    np.save(tmp_path / "bad.npy", np.full((4, 4), np.nan, np.float32))
    (tmp_path / "text.npy").write_text("a map")
    places = {"MAPS": "maps", "BAD": "bad.npy", "TEXT": "text.npy"}
    given = [str(tmp_path / places[a]) if a in places else a for a in arguments]
    done = run_cli("defects", *given)
    assert done.code == 2
    assert words in done.stderr


def test_options_that_are_wrong_together_are_all_told() -> None:
    payload = {
        "dataset": {"manifest_path": "m.jsonl"},
        "model": {"name": "knn"},
        "calibration": {"method": "fixed", "threshold": 1.0},
        "defects": {
            "roi_rectangle": [0.5, 0, 0.1, 1],
            "roi_polygon": [0, 0, 1],
            "smoothing": "median",
            "smoothing_cells": 7,
            "hysteresis": 0.5,
        },
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(payload, "c.json")
    text = str(caught.value)
    for words in (
        "defects.roi_rectangle: found [0.5, 0",
        "defects.roi_polygon: roi_rectangle is there too",
        "defects.roi_polygon: found 3 numbers",
        "defects.smoothing_cells: found 7, expected 3 or 5",
        "defects.hysteresis: needs the scores of normals",
        "defects: knn gives no map",
        "calibration.pixel_threshold: missing",
    ):
        assert words in text


def test_hysteresis_needs_the_median_of_the_largest_values() -> None:
    payload = {
        "dataset": {"manifest_path": "m.jsonl"},
        "calibration": {"pixel_method": "pixel_quantile"},
        "defects": {"hysteresis": 0.5},
    }
    with pytest.raises(ConfigError, match=r"defects\.hysteresis: needs the median"):
        parse_config(payload, "c.json")


def test_a_threshold_that_moves_takes_the_low_one_with_it(
    sheets: tuple[Path, Path],
) -> None:
    bundle = open_bundle(sheets[0] / "bundle")
    settings = bundle.config.categories["sheet"]
    rules, pixel = settings.regions, settings.thresholds.pixel
    assert rules is not None
    assert rules.low_threshold is not None
    assert pixel is not None
    middle = settings.thresholds.provenance["pixel"].score_summary["median"]
    moved = Predictor.open(bundle, regions=RegionFlags(pixel_threshold=2 * pixel))
    found = moved.settings.regions
    assert found is not None
    assert found.low_threshold == pytest.approx(middle + 0.7 * (2 * pixel - middle))
    named = RegionFlags(pixel_threshold=2 * pixel, rules=("low_threshold=0.5",))
    kept = Predictor.open(bundle, regions=named).settings.regions
    assert kept is not None
    assert kept.low_threshold == 0.5


def test_a_picture_without_a_judged_cell_is_an_error_where_regions_decide(
    sheets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pictures = sheets
    command = ["infer", "--bundle", str(run / "bundle"), str(pictures / "26.png")]
    nothing = ["--roi", "0.5,0.5,0.5001,0.5001"]
    assert runtime([*command, *nothing]) == 4
    row = json.loads(capsys.readouterr().out)
    assert (row["ok"], row["error"]["code"]) == (False, "NOTHING_JUDGED")
    assert runtime([*command, *nothing, "--region", "policy=image_threshold"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["label"], row["regions"]) == ("anomaly", None)


def test_rows_by_other_rules_of_regions_are_not_mixed(
    sheets: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pictures = sheets
    rows = ["--output", str(tmp_path / "rows.jsonl"), str(pictures / "26.png")]
    command = ["infer", "--bundle", str(run / "bundle"), *rows, "--resume"]
    first = ["--roi", "0,0,1,1", "--pixel-threshold", "2"]
    for reload in ([], ["--reload"]):
        (tmp_path / "rows.jsonl").unlink(missing_ok=True)
        (tmp_path / ".rows.jsonl.ledger").unlink(missing_ok=True)
        assert runtime([*command, *first, *reload]) == 0
        assert runtime([*command, *first, *reload]) == 0
        for other in (
            ["--roi", "0,0,0.5,1", "--pixel-threshold", "2"],
            ["--roi", "0,0,1,1", "--pixel-threshold", "3"],
            [*first, "--region", "policy=both"],
        ):
            capsys.readouterr()
            assert runtime([*command, *other, *reload]) == 2
            assert "other settings" in capsys.readouterr().err


def test_a_review_band_of_scores_has_no_part_in_labels_by_regions(
    sheets: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run, pictures = sheets
    command = ["infer", "--bundle", str(run / "bundle"), str(pictures / "26.png")]
    assert runtime([*command, "--review-band", "0.1"]) == 2
    assert "the label follows regions alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"requires": []}, '"regions" does not stand in requires'),
        ({"roi": {"rectangle": [0, 0, 1, 1], "polygon": [[0, 0]]}}, "found both"),
        ({"roi": {}}, "found none of rectangle and polygon"),
        ({"regions": {"smoothing": "median", "smoothing_cells": 9}}, "3 or 5"),
        ({"regions": {"policy": "sometimes"}}, "expected one of"),
        ({"regions": {"min_are": 2}}, 'did you mean "min_area"?'),
    ],
)
def test_wrong_blocks_of_a_document_are_refused(
    change: dict[str, Any], words: str, sheets: tuple[Path, Path], tmp_path: Path
) -> None:
    bundle = copy_of(sheets[0] / "bundle", tmp_path / "b")

    def edit(document: dict[str, Any]) -> None:
        target = document if "requires" in change else document["categories"]["sheet"]
        target.update(change)

    edit_document(bundle, edit)
    with pytest.raises(BundleError, match=r"regions|roi") as caught:
        open_bundle(bundle)
    assert words in str(caught.value)
