"""Samples of pictures: augmented copies are learned from, tiles are joined again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from conftest import CommandResult
from factories import write_dataset
from pyimgano.calibration import out_of_fold_scores
from pyimgano.datasets.augmentation import Augmentation, AugmentationConfig
from pyimgano.datasets.images import read_ahead
from pyimgano.datasets.manifest import read_manifest
from pyimgano.datasets.splits import folds
from pyimgano.detectors import create_detector
from pyimgano.detectors.interface import FitContext
from pyimgano.workbench.artifacts import open_run
from pyimgano.workbench.runner import input_rules
from pyimgano.workbench.training_data import RowTrainingData
from pyimgano_runtime.bundle import open_bundle
from pyimgano_runtime.calibration import TopPixels
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.tiling import Tiling, cut_tiles, merge_maps, merge_scores

Run = Callable[..., CommandResult]
MakeConfig = Callable[..., Path]
U8 = NDArray[np.uint8]


def augmentation(**options: Any) -> Augmentation:
    return Augmentation.of(AugmentationConfig(**options))


def noise(size: tuple[int, int], seed: int = 0) -> U8:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def copies_of(image: U8, made: Augmentation, name: str = "a.png") -> list[U8]:
    return [
        made.copy(image, number, seed=0, name=name)[0]
        for number in range(1, made.n_copies + 1)
    ]


def among(image: U8, others: list[U8]) -> bool:
    return any(np.array_equal(image, other) for other in others)


# --- the copies ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 0),
        ({"flip": "horizontal"}, 1),
        ({"flip": "both"}, 3),
        ({"rotate": "quarter"}, 3),
        ({"rotate": "quarter", "flip": "vertical"}, 7),
        ({"rotate": "quarter", "flip": "both"}, 7),  # a half turn is both mirrorings
        ({"rotate": "any"}, 4),
        ({"shift": 0.02}, 4),
        ({"brightness": 0.1, "copies": 2}, 2),
    ],
)
def test_copies_are_made_only_where_asked(
    options: dict[str, Any], expected: int
) -> None:
    assert augmentation(**options).n_copies == expected


@pytest.mark.parametrize("size", [(8, 8), (7, 7)])
def test_quarter_turns_and_mirrorings_are_exact_and_each_comes_once(
    size: tuple[int, int],
) -> None:
    image = noise(size)
    made = copies_of(image, augmentation(rotate="quarter", flip="horizontal"))
    turned = [np.rot90(image, n) for n in range(4)]
    expected = [*turned[1:], *(np.fliplr(view) for view in turned)]
    assert len(made) == len(expected)
    for view in expected:
        assert among(view, made)


@pytest.mark.parametrize("size", [(6, 9), (9, 6), (1, 5), (40, 17)])
@pytest.mark.parametrize("rotate", ["quarter", "any"])
def test_the_frame_keeps_its_size(size: tuple[int, int], rotate: str) -> None:
    for copy in copies_of(noise(size), augmentation(rotate=rotate, shift=0.1)):
        assert copy.shape == (*size, 3)
        assert copy.dtype == np.uint8


def test_a_shift_moves_whole_pixels_and_repeats_the_border() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, :, 0] = np.arange(30)
    image[:, :, 1] = np.arange(20)[:, None]
    seen = set()
    for copy in copies_of(image, augmentation(shift=0.2, copies=20)):
        dx = int(image[0, 15, 0]) - int(copy[0, 15, 0])
        dy = int(image[10, 0, 1]) - int(copy[10, 0, 1])
        assert abs(dx) <= 6
        assert abs(dy) <= 4
        rows = np.clip(np.arange(20) - dy, 0, 19)
        columns = np.clip(np.arange(30) - dx, 0, 29)
        assert np.array_equal(copy, image[rows][:, columns])
        seen.add((dx, dy))
    assert len(seen) > 10


def test_brightness_scales_grey_levels_within_its_share() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    levels = [int(c[0, 0, 0]) for c in copies_of(image, augmentation(brightness=0.1))]
    assert all(90 <= level <= 110 for level in levels)
    assert len(set(levels)) > 1


def test_a_copy_depends_on_seed_picture_and_number_alone() -> None:
    image = noise((16, 16))
    made = augmentation(shift=0.3, brightness=0.3, rotate="any")
    first = copies_of(image, made)
    assert all(map(np.array_equal, first, copies_of(image, made)))
    assert not among(first[0], first[1:])
    assert not among(first[0], copies_of(image, made, "b.png"))
    assert not among(first[0], [made.copy(image, 1, seed=1, name="a.png")[0]])


def test_a_mask_moves_with_its_picture() -> None:
    mask = np.zeros((24, 24), np.bool_)
    mask[4:9, 6:8] = True
    image = np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255
    made = augmentation(rotate="quarter", shift=0.2)
    for number in range(1, made.n_copies + 1):
        copy, moved = made.copy(image, number, seed=0, name="a", mask=mask)
        assert moved is not None
        assert np.array_equal(copy[..., 0] > 127, moved)


# --- the samples of a training ------------------------------------------------------


@pytest.fixture
def context(tmp_path: Path) -> FitContext:
    return FitContext(
        generator=torch.Generator().manual_seed(0),
        device=torch.device("cpu"),
        workspace=tmp_path,
        progress=lambda step, done, total: None,
    )


def test_each_picture_is_followed_by_its_copies(small_dataset: Path) -> None:
    rows = [r for r in read_manifest(small_dataset) if r.split == "train"][:3]
    made = augmentation(brightness=0.2, copies=2)
    data = RowTrainingData(rows, input_rules(), augmentation=made)
    plain = torch.cat(list(RowTrainingData(rows, input_rules()).normals()))
    samples = torch.cat(list(data.normals()))
    assert data.n_normals == len(samples) == 9
    mapped = data.picture_samples()
    assert mapped.pictures.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(samples[torch.from_numpy(mapped.genuine)], plain)


def test_a_picture_is_scored_as_it_is_by_a_model_without_its_copies(
    small_dataset: Path, context: FitContext
) -> None:
    rows = [r for r in read_manifest(small_dataset) if r.split == "train"][:6]
    made = augmentation(brightness=0.2, shift=0.05, copies=2)
    data = RowTrainingData(rows, input_rules(), augmentation=made)
    detector = create_detector("pixel_stats", {"image_size": [32, 32]}).eval()
    parts = folds([row.group for row in rows], n_folds=3)
    found = out_of_fold_scores(
        detector,
        detector.extract(data, context=context),
        parts,
        [row.group for row in rows],
        context=context,
        samples=data.picture_samples(),
    )
    for fold in parts:
        others = [row for i, row in enumerate(rows) if i not in fold]
        twin = detector.blank().eval()
        twin.fit(
            RowTrainingData(others, input_rules(), augmentation=made), context=context
        )
        for index in fold:
            single = RowTrainingData([rows[index]], input_rules())
            with torch.no_grad():
                score, anomaly_map = twin(next(single.normals()))
            assert found.image[index] == pytest.approx(float(score[0]), rel=1e-5)
            assert found.map_max is not None
            assert found.map_max[index] == pytest.approx(
                float(anomaly_map.max()), rel=1e-5
            )


def test_the_run_and_its_bundle_say_what_was_done(
    small_dataset: Path, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    config = make_config(
        small_dataset, augmentation={"rotate": "quarter", "brightness": 0.05}
    )
    output = tmp_path / "run"
    command = ["train", "--config", config, "--output", output, "--export-bundle"]
    done = run_cli(*command)
    assert done.code == 0, done.stderr
    learned = open_run(output).report["categories"]["bracket"]["learned_from"]
    words = (
        "20 normals and 4 copies of each (rotate quarter, brightness 0.05): 100 samples"
    )
    assert learned == {
        "normals": 20,
        "copies": 4,
        "samples": 100,
        "tuning": 0,
        "defects": 0,
        "augmentation": {
            "rotate": "quarter",
            "flip": "none",
            "shift": 0.0,
            "brightness": 0.05,
            "copies": 4,
        },
        "in_words": words,
    }
    assert f"bracket: learned from {words}" in " ".join(done.stdout.split())
    bundle = open_bundle(output / "bundle")
    assert bundle.config.training["categories"]["bracket"]["learned_from"] == learned
    assert words in (output / "bundle/MODEL_CARD.md").read_text("utf-8")


@pytest.mark.parametrize("name", ["padim", "patchcore"])
def test_every_detector_learns_from_the_copies(
    name: str, tmp_path: Path, make_config: MakeConfig, run_cli: Run
) -> None:
    manifest = write_dataset(
        tmp_path / "data", n_train=4, n_test_normal=2, n_test_defect=2, size=(48, 64)
    )
    output = tmp_path / "run"
    config = make_config(manifest, name, augmentation={"flip": "both"})
    done = run_cli("train", "--config", config, "--output", output)
    assert done.code == 0, done.stderr
    report = open_run(output).report["categories"]["bracket"]
    assert report["learned_from"]["samples"] == 16
    assert report["counts"]["calibration"] == 4  # pictures, not copies


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"copies": 3}, "nothing is varied, so copies would be the pictures again"),
        ({"copies": 0, "shift": 0.1}, "have no effect; remove them, or copies"),
        ({"rotate": "half"}, '"half"'),
        ({"flop": "both"}, "unknown key"),
    ],
)
def test_settings_without_an_effect_are_refused(
    block: dict[str, Any],
    message: str,
    small_dataset: Path,
    make_config: MakeConfig,
    run_cli: Run,
) -> None:
    done = run_cli("train", "--config", make_config(small_dataset, augmentation=block))
    assert done.code == 2
    assert "augmentation" in done.stderr
    assert message in done.stderr


# --- tiles --------------------------------------------------------------------------

TILES = Tiling(size=(32, 40), overlap=0.25)


def test_pictures_of_several_sizes_are_cut_and_each_tile_knows_its_picture(
    tmp_path: Path, context: FitContext
) -> None:
    rows = []
    for number, size in enumerate([(64, 80), (32, 40), (50, 90)]):
        manifest = write_dataset(
            tmp_path / str(number),
            n_train=2,
            n_test_normal=0,
            n_test_defect=0,
            size=size,
            seed=number,
        )
        rows += read_manifest(manifest)
    made = augmentation(flip="horizontal")
    data = RowTrainingData(rows, input_rules(), augmentation=made, tiling=TILES)
    samples = torch.cat(list(data.normals()))
    mapped = data.picture_samples()
    assert samples.shape[1:] == (32, 40, 3)
    assert len(samples) == data.n_normals == len(mapped.pictures)
    for index, image in enumerate(read_ahead(rows, input_rules())):
        own = mapped.pictures == index
        tiles = cut_tiles(image, TILES)
        assert np.array_equal(samples[torch.from_numpy(own & mapped.genuine)], tiles)
        mirrored = cut_tiles(np.fliplr(image), TILES)
        copies = samples[torch.from_numpy(own & ~mapped.genuine)]
        assert np.array_equal(copies, mirrored)


def test_a_held_out_picture_is_scored_from_its_tiles(
    small_dataset: Path, context: FitContext
) -> None:
    rows = [r for r in read_manifest(small_dataset) if r.split == "train"][:4]
    tiling = Tiling(size=(40, 40), score="mean", blend="mean")
    data = RowTrainingData(rows, input_rules(), tiling=tiling)
    detector = create_detector("pixel_stats", {"image_size": [32, 32]}).eval()
    groups = [row.group for row in rows]
    parts = folds(groups)
    found = out_of_fold_scores(
        *(detector, detector.extract(data, context=context), parts, groups),
        context=context,
        samples=data.picture_samples(),
    )
    for fold in parts:
        twin = detector.blank().eval()
        others = [row for i, row in enumerate(rows) if i not in fold]
        twin.fit(RowTrainingData(others, input_rules(), tiling=tiling), context=context)
        for index in fold:
            (image,) = read_ahead([rows[index]], input_rules())
            with torch.no_grad():
                scores, maps = twin(torch.from_numpy(cut_tiles(image, tiling)))
            score = merge_scores(scores.numpy(), tiling)
            anomaly_map = merge_maps(maps.numpy(), image.shape[:2], tiling)
            assert found.image[index] == pytest.approx(float(score), rel=1e-5)
            assert found.map_max is not None
            assert found.map_max[index] == pytest.approx(
                float(anomaly_map.max()), rel=1e-5
            )


def test_tiles_of_a_defect_are_those_that_show_it(tmp_path: Path) -> None:
    manifest = write_dataset(
        tmp_path, n_train=1, n_test_normal=0, n_test_defect=3, size=(64, 80)
    )
    defects = [row for row in read_manifest(manifest) if row.label == 1]
    data = RowTrainingData((), input_rules(), defect_rows=defects, tiling=TILES)
    tiles = list(data.defects())
    assert tiles
    for tile, mask in tiles:
        assert tile.shape == (32, 40, 3)
        assert mask is not None
        assert mask.shape == (32, 40)
        assert bool(mask.any())
    unmasked = [replace(row, mask=None) for row in defects]
    without = RowTrainingData((), input_rules(), defect_rows=unmasked, tiling=TILES)
    assert not list(without.defects())


def test_a_pooled_quantile_of_maps_of_several_sizes_is_refused() -> None:
    pixels = TopPixels(0.9, 2)
    pixels.add(np.zeros((4, 4), np.float32))
    with pytest.raises(ConfigError, match='set it to "image_max"'):
        pixels.add(np.zeros((4, 5), np.float32))
