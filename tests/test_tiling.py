"""Tiles from training to the device: the same cut, the same join, the same answer."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest

from bundle_copies import copy_of, edit_document
from conftest import CommandResult, Exported, config_payload
from factories import write_manifest
from pyimgano.inference.torch_predictor import torch_predictor
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.config import parse_config
from pyimgano.workbench.run_document import run_document
from pyimgano.workbench.trained import load_trained
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.check import check_bundle
from pyimgano_runtime.decode import decode_bytes
from pyimgano_runtime.errors import BundleError, ConfigError
from pyimgano_runtime.geometry import map_to_image
from pyimgano_runtime.predictor import Predictor
from pyimgano_runtime.tile_weights import axis_weights
from pyimgano_runtime.tiling import BLENDS, SCORES, Tiling, cut_tiles, tile_origins

Run = Callable[..., CommandResult]

SIZE = (96, 192)  # of a picture: twice as wide as high
SPOT = (60, 130)  # the middle of the defect: row, column
TILING = {"size": [64, 64], "overlap": 0.25, "blend": "max", "score": "max"}
FADED = TILING | {"blend": "hann", "score": "top_k", "top_k": 2}
GEOMETRIES: dict[str, dict[str, Any]] = {
    "stretch": {"geometry": "stretch"},
    "letterbox": {"geometry": "letterbox"},
    "tiles": {},
}
TILINGS: dict[str, Any] = {"tiles": TILING, "faded": FADED}


def write_wide_pictures(folder: Path) -> Path:
    """Write flat noisy pictures; defects have a bright spot at `SPOT`."""
    random = np.random.default_rng(0)
    spot = np.zeros(SIZE, dtype=np.uint8)
    spot[SPOT[0] - 6 : SPOT[0] + 6, SPOT[1] - 6 : SPOT[1] + 6] = 255
    folder.mkdir()
    cv2.imwrite(str(folder / "mask.png"), spot)
    rows = []
    for number in range(32):
        split, label = ("train", 0) if number < 20 else ("test", int(number >= 26))
        image = random.normal(100, 6, (*SIZE, 3))
        image[spot > 0] += 60 * label
        name = f"{number:02d}.png"
        cv2.imwrite(str(folder / name), np.clip(image, 0, 255).astype(np.uint8))
        row = {"image_path": name, "category": "sheet", "split": split, "label": label}
        rows.append(row | ({"mask_path": "mask.png"} if label else {}))
    return write_manifest(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def sheets(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Give a function that trains and exports a geometry or tiling, once."""
    from pyimgano.cli import main

    home = tmp_path_factory.mktemp("sheets")
    manifest = write_wide_pictures(home / "data")
    made: dict[str, Exported] = {}

    def make(name: str) -> Exported:
        if name not in made:
            folder = home / name
            folder.mkdir()
            payload = config_payload(manifest)
            payload["model"]["options"] |= GEOMETRIES.get(name, {})
            payload["tiling"] = TILINGS.get(name)
            config, run = folder / "config.json", folder / "run"
            config.write_text(json.dumps(payload), encoding="utf-8")
            command = ["train", "--config", str(config), "--output", str(run)]
            assert main([*command, "--export-bundle"]) == 0
            made[name] = Exported(name, manifest, config, run, run / "bundle")
        return made[name]

    return make


@pytest.fixture
def tiled(sheets: Callable[[str], Exported]) -> Exported:
    return sheets("tiles")


@pytest.fixture
def faded(sheets: Callable[[str], Exported]) -> Exported:
    """A run and bundle that fade from tile to tile and score by the two highest."""
    return sheets("faded")


def defects_of(made: Exported) -> list[Path]:
    return sorted(made.manifest.parent.glob("2[6-9].png"))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_defect_is_found_where_it_is(
    sheets: Callable[[str], Exported], name: str
) -> None:
    made = sheets(name)
    predictor = Predictor.open(made.bundle)
    for path in defects_of(made):
        prediction = predictor.predict(predictor.read(path))
        assert prediction.map_mode == name
        assert prediction.label == "anomaly"
        assert prediction.anomaly_map is not None
        over = map_to_image(prediction.anomaly_map, SIZE, mode=prediction.map_mode)
        bright = np.argwhere(over > 0.7 * over.max()).mean(axis=0)
        assert np.abs(bright - (SPOT[0] - 0.5, SPOT[1] - 0.5)).max() < 3


@pytest.mark.parametrize("name", GEOMETRIES)
def test_pixel_metrics_are_measured_on_the_picture(
    sheets: Callable[[str], Exported], name: str
) -> None:
    report = open_run(sheets(name).run).report["categories"]["sheet"]
    assert report["pixel_auroc"] > 0.99
    assert report["image_auroc"] == 1.0


def test_the_document_says_how_pictures_are_cut(tiled: Exported) -> None:
    document = json.loads((tiled.bundle / "infer_config.json").read_text("utf-8"))
    assert (document["schema_version"], document["requires"]) == ("1.3", ["tiling"])
    category = document["categories"]["sheet"]
    assert category["tiling"] == TILING
    assert category["map_geometry"]["mode"] == "tiles"
    card = (tiled.bundle / "MODEL_CARD.md").read_text("utf-8")
    assert "cut into tiles of 64 x 64 pixels that share at least 25% of a side" in card
    ours = run_document(open_run(tiled.run)).to_dict()
    assert ours["categories"]["sheet"]["tiling"] == TILING
    assert ours["requires"] == ["tiling"]


def test_a_bundle_without_tiles_requires_nothing(
    sheets: Callable[[str], Exported],
) -> None:
    assert open_bundle(sheets("stretch").bundle).config.requires == ()
    assert open_bundle(sheets("letterbox").bundle).config.requires == ()


@pytest.mark.parametrize("name", TILINGS)
def test_torch_and_the_bundle_say_the_same(
    sheets: Callable[[str], Exported], name: str
) -> None:
    made = sheets(name)
    bundle = open_bundle(made.bundle)
    settings = bundle.config.categories["sheet"]
    detector = load_trained(open_run(made.run), "sheet")
    torch = torch_predictor(detector, "sheet", settings, bundle.config.input)
    onnx = Predictor.open(bundle)
    for path in defects_of(made):
        image = onnx.read(path)
        a, b = torch.predict(image), onnx.predict(image)
        assert a.score == pytest.approx(b.score, rel=1e-5)
        assert a.anomaly_map is not None
        assert b.anomaly_map is not None
        assert a.anomaly_map.shape == b.anomaly_map.shape
        np.testing.assert_allclose(a.anomaly_map, b.anomaly_map, rtol=1e-4)
    parity = bundle.config.parity.categories["sheet"]
    assert (parity.n_images, parity.label_flips) == (12, 0)
    assert parity.max_rel_score_diff < 1e-5


@pytest.mark.parametrize("name", TILINGS)
def test_rows_of_training_are_those_of_the_device(
    sheets: Callable[[str], Exported], name: str
) -> None:
    made = sheets(name)
    run = open_run(made.run)
    predictor = Predictor.open(made.bundle)
    lines = (run.folder / "categories/sheet/per_image.jsonl").read_text("utf-8")
    for row in map(json.loads, lines.splitlines()):
        image = predictor.read(made.manifest.parent / row["input"])
        assert predictor.predict(image).score == pytest.approx(row["score"], rel=1e-5)


def test_a_document_with_a_fade_or_top_k_asks_for_a_newer_reader(
    faded: Exported,
) -> None:
    document = json.loads((faded.bundle / "infer_config.json").read_text("utf-8"))
    assert (document["schema_version"], document["requires"]) == ("1.3", ["tiling"])
    assert document["categories"]["sheet"]["tiling"] == FADED
    card = (faded.bundle / "MODEL_CARD.md").read_text("utf-8")
    assert "a picture's score is the mean of the highest 2 of its tiles' scores" in card
    ours = run_document(open_run(faded.run)).to_dict()
    assert ours["schema_version"] == "1.3"
    assert ours["categories"]["sheet"]["tiling"] == FADED


def test_the_score_is_the_mean_of_the_highest_tiles(faded: Exported) -> None:
    bundle = open_bundle(faded.bundle)
    tiling = bundle.config.categories["sheet"].tiling
    assert tiling is not None
    predictor = Predictor.open(bundle)
    image = predictor.read(defects_of(faded)[0])
    scores, _ = predictor.engine.run(cut_tiles(image, tiling), with_map=False)
    highest = sorted(map(float, scores))[-2:]
    assert predictor.predict(image).score == pytest.approx(sum(highest) / 2, rel=1e-6)


def test_goldens_of_a_fade_are_replayed(faded: Exported, tmp_path: Path) -> None:
    assert check_bundle(open_bundle(faded.bundle)).ok
    bundle = copy_of(faded.bundle, tmp_path / "b")
    edit_document(bundle, lambda d: d["categories"]["sheet"]["tiling"].update(top_k=1))
    assert not check_bundle(open_bundle(bundle)).ok


def test_thresholds_of_top_k_come_from_top_k(faded: Exported, tiled: Exported) -> None:
    of_two, _ = open_run(faded.run).calibration("sheet")
    of_one, _ = open_run(tiled.run).calibration("sheet")
    assert of_two.image < of_one.image  # a mean of two is below the larger


def test_thresholds_come_from_joined_scores(tiled: Exported) -> None:
    """Of pictures, as the device scores them; a fold's model scores a little higher."""
    thresholds, calibration = open_run(tiled.run).calibration("sheet")
    assert calibration.n_images == 20  # pictures, not tiles
    predictor = Predictor.open(tiled.bundle)
    train = sorted(tiled.manifest.parent.glob("[01]*.png"))
    scores = [predictor.predict(predictor.read(path)).score for path in train]
    assert max(scores) < thresholds.image < max(scores) * 1.5


def test_the_goldens_are_cut_too_and_replayed(tiled: Exported) -> None:
    bundle = open_bundle(tiled.bundle)
    assert check_bundle(bundle).ok
    tiling = bundle.config.categories["sheet"].tiling
    assert tiling is not None
    for golden in bundle.config.parity.goldens:
        image = decode_bytes(
            bundle.read(golden.image), bundle.config.input, name=golden.image
        )
        size = (image.shape[0], image.shape[1])
        assert len(tile_origins(size, tiling)) == 4


def test_a_bundle_with_other_tiles_does_not_pass(
    tiled: Exported, tmp_path: Path
) -> None:
    bundle = copy_of(tiled.bundle, tmp_path / "b")
    edit_document(
        bundle, lambda d: d["categories"]["sheet"]["tiling"].update(score="mean")
    )
    report = check_bundle(open_bundle(bundle))
    assert not report.ok
    edit_document(
        bundle, lambda d: d["categories"]["sheet"]["tiling"].update(size=[48, 64])
    )
    with pytest.raises(BundleError, match="the model gives float32 of shape"):
        check_bundle(open_bundle(bundle))


def test_a_benchmark_cuts_tiles_for_every_engine(
    tiled: Exported, run_cli: Run, tmp_path: Path
) -> None:
    output = tmp_path / "bench"
    done = run_cli(
        *("benchmark", "--manifest-path", tiled.manifest, "--model", "pixel_stats"),
        *("--model-options", '{"image_size": [64, 64]}', "--no-process-costs"),
        *("--tile-size", "64", "64", "--tile-overlap", "0.5", "--output", output),
        *("--tile-blend", "gaussian", "--tile-score", "top_k", "--tile-top-k", "3"),
    )
    assert done.code == 0, done.stderr
    bundle = open_bundle(output / "bundle")
    assert bundle.config.categories["sheet"].tiling == Tiling(
        size=(64, 64), overlap=0.5, blend="gaussian", score="top_k", top_k=3
    )
    report = json.loads((output / "report.json").read_text("utf-8"))
    engines = report["categories"]["sheet"]["engines"]
    assert engines["onnx"]["label_flips"] == 0
    assert engines["onnx"]["pixel_auroc"] == pytest.approx(
        engines["torch"]["pixel_auroc"], abs=1e-4
    )


def test_a_benchmark_offers_every_blend_and_score() -> None:
    from pyimgano.benchmark_cli import benchmark

    choices = {
        option.name: tuple(option.type.choices)
        for option in benchmark.params
        if isinstance(option.type, click.Choice)
    }
    assert choices["tile_blend"] == BLENDS
    assert choices["tile_score"] == SCORES


def test_tile_options_without_tiles_are_refused(run_cli: Run, tmp_path: Path) -> None:
    done = run_cli(
        *("benchmark", "--manifest-path", "m.jsonl", "--output", tmp_path / "b"),
        *("--tile-blend", "hann", "--tile-top-k", "2"),
    )
    assert done.code == 2
    assert "--tile-blend: has no effect without --tile-size" in done.stderr
    assert "--tile-top-k: has no effect without --tile-size" in done.stderr


def test_verify_compares_the_run_with_its_tiles(tiled: Exported, run_cli: Run) -> None:
    done = run_cli("bundle", "verify", tiled.bundle, "--run", tiled.run)
    assert done.code == 0, done.stderr + done.stdout
    assert "differ by at most" in done.stdout + done.stderr


def test_verify_refuses_a_bundle_with_other_tiles_than_its_run(
    tiled: Exported, run_cli: Run, tmp_path: Path
) -> None:
    bundle = copy_of(tiled.bundle, tmp_path / "b")
    edit_document(
        bundle, lambda d: d["categories"]["sheet"]["tiling"].update(overlap=0.5)
    )
    done = run_cli("bundle", "verify", bundle, "--run", tiled.run)
    assert done.code != 0
    assert "(other tiles)" in done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_infer_from_the_run_cuts_tiles(
    tiled: Exported, run_cli: Run, tmp_path: Path, engine: str
) -> None:
    maps = tmp_path / "maps"
    pictures = defects_of(tiled)
    done = run_cli(
        *("infer", "--from-run", tiled.run, "--engine", engine),
        *("--save-maps", maps, "--save-overlays", tmp_path / "overlays", *pictures),
    )
    assert done.code == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    predictor = Predictor.open(tiled.bundle)
    for row, path in zip(rows, pictures, strict=True):
        prediction = predictor.predict(predictor.read(path))
        assert row["score"] == pytest.approx(prediction.score, rel=1e-5)
        saved = np.load(maps / f"data_{path.stem}.npy")
        np.testing.assert_allclose(saved, prediction.anomaly_map, rtol=1e-4)


def test_the_effective_config_says_the_tiling(tiled: Exported, run_cli: Run) -> None:
    done = run_cli("infer", "--from-run", tiled.run, "--print-effective-config")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["adaptation"]["tiling"] == TILING


def test_a_model_that_trains_learns_from_tiles(
    tiled: Exported, run_cli: Run, tmp_path: Path
) -> None:
    payload = config_payload(tiled.manifest, "stfpm") | {"tiling": TILING}
    payload["model"]["options"]["steps"] = 5
    config, run = tmp_path / "config.json", tmp_path / "run"
    config.write_text(json.dumps(payload), encoding="utf-8")
    done = run_cli("train", "--config", config, "--output", run)
    assert done.code == 0, done.stderr
    report = open_run(run).report["categories"]["sheet"]
    assert "cut into tiles" in report["learned_from"]["in_words"]


def test_a_detector_without_maps_takes_tiles(
    tiled: Exported, run_cli: Run, tmp_path: Path
) -> None:
    payload = config_payload(tiled.manifest, "knn") | {"tiling": TILING}
    config, run = tmp_path / "config.json", tmp_path / "run"
    config.write_text(json.dumps(payload), encoding="utf-8")
    done = run_cli("train", "--config", config, "--output", run, "--export-bundle")
    assert done.code == 0, done.stderr
    bundle = open_bundle(run / "bundle")
    assert bundle.config.requires == ("tiling",)
    assert bundle.config.categories["sheet"].map_geometry is None
    assert check_bundle(bundle).ok


def test_int8_learns_its_ranges_from_tiles() -> None:
    from pyimgano_exporters.quantize import as_the_graph_sees

    tiling = Tiling(size=(64, 64))
    images = [np.full((96, 192, 3), level, np.uint8) for level in (10, 20)]
    seen = list(as_the_graph_sees(images, tiling))
    assert [image.shape for image in seen] == [(64, 64, 3)] * 2
    assert [int(image[0, 0, 0]) for image in seen] == [10, 20]
    whole = list(as_the_graph_sees(images, None))
    assert [image.shape for image in whole] == [(96, 192, 3)] * 2


# --- in another language -------------------------------------------------------------

WEIGHTS_IN_JAVASCRIPT = """
const shares = {
  hann: (i, m) => Math.sin((Math.PI * (i + 0.5)) / m) ** 2,
  gaussian: (i, m) => Math.exp(-32 * ((i + 0.5) / m - 0.5) ** 2),
};
const share = shares[process.argv[1]];
for (let m = 1; m <= 1024; m++) {
  const weight = (_, i) => Math.max(1, Math.floor(4096 * share(i, m) + 0.5));
  console.log(Array.from({ length: m }, weight).join(" "));
}
"""


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["hann", "gaussian"])
def test_javascript_has_the_same_weights(blend: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run(
        [node, "-e", WEIGHTS_IN_JAVASCRIPT, blend],
        capture_output=True,
        text=True,
        check=True,
    )
    for m, line in enumerate(done.stdout.splitlines(), start=1):
        assert list(map(int, line.split())) == axis_weights(blend, m).tolist()
    assert m == 1024


# --- the config ---------------------------------------------------------------------


def refusal(tiling: Any, **options: Any) -> str:
    model = {"name": "pixel_stats", "options": options}
    payload = {"dataset": {"manifest_path": "m"}, "model": model, "tiling": tiling}
    with pytest.raises(ConfigError) as caught:
        parse_config(payload, "c.json")
    return str(caught.value)


def test_no_tiling_is_the_default() -> None:
    assert parse_config({"dataset": {"manifest_path": "m"}}, "c.json").tiles is None


def test_a_tiling_of_a_size_alone_takes_the_defaults() -> None:
    payload = {"dataset": {"manifest_path": "m"}, "tiling": {"size": [128, 128]}}
    assert parse_config(payload, "c.json").tiles == Tiling(size=(128, 128))


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        ({}, "tiling.size: missing"),
        ({"size": [16, 64]}, "tiling.size: found [16, 64], expected sides of at least"),
        ({"size": [64, 64], "overlap": 0.8}, "tiling.overlap: found 0.8"),
        ({"size": [64, 64], "blend": "sum"}, 'tiling.blend: found "sum"'),
        ({"size": [64, 64], "score": "hann"}, 'tiling.score: found "hann"'),
        ({"size": [64, 64], "score": "top_k"}, "tiling.top_k: missing"),
        ({"size": [64, 64], "top_k": 3}, 'no effect with score "max"'),
        (
            {"size": [64, 64], "score": "top_k", "top_k": 0},
            "tiling.top_k: found 0, expected a whole number of at least 1",
        ),
        (3, "tiling: found 3, expected an object"),
    ],
)
def test_a_tiling_that_cannot_be_is_refused(tiling: Any, message: str) -> None:
    assert message in refusal(tiling)


def test_tiles_that_would_be_letterboxed_are_refused() -> None:
    said = refusal({"size": [64, 128]}, image_size=[64, 64], geometry="letterbox")
    assert "tiling.size: found [64, 128]" in said
    assert "(64 x 64)" in said
    assert 'set its option geometry to "stretch"' in said


def test_tiles_of_the_models_aspect_ratio_may_be_letterboxed() -> None:
    model = {"name": "pixel_stats", "options": {"image_size": [32, 64]}}
    payload = {
        "dataset": {"manifest_path": "m"},
        "model": model,
        "tiling": {"size": [64, 128]},
    }
    assert parse_config(payload, "c.json").tiles == Tiling(size=(64, 128))
