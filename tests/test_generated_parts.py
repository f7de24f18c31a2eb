"""The generated parts: repeatable, with masks that are true to the pixel."""

import hashlib
import sys
from itertools import pairwise, product

import cv2
import numpy as np
import pytest

from factories import corrupt_copy, read_rows, texture_image, write_dataset
from pyimgano.datasets.generated_parts import (
    DEFECT_NAMES,
    MASK_GREY_LEVELS,
    MIN_MASK_FRACTION,
    PART_NAMES,
    draw_part,
    write_parts,
)
from pyimgano.datasets.manifest import read_manifest

LARGEST_MASK_FRACTION = 0.10  # a defect is a spot; measured 0.066 (fabric, dent)
SMALL = (96, 96)
SIZES = ((256, 256), (96, 96), (64, 64), (64, 400), (32, 32))
every_part = pytest.mark.parametrize("part", PART_NAMES)
every_defect = pytest.mark.parametrize(
    ("part", "defect"), list(product(PART_NAMES, DEFECT_NAMES))
)


def _rng(seed=0):
    return np.random.default_rng(seed)


def _file_hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(
            path.read_bytes()
        ).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@every_defect
@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_the_mask_holds_exactly_the_pixels_that_the_defect_changed(
    part, defect, severity
):
    good = draw_part(part, _rng(3), size=(128, 128))
    bad = draw_part(part, _rng(3), size=(128, 128), defect=defect, severity=severity)
    difference = np.abs(bad.image_u8.astype(int) - good.image_u8).max(axis=2)

    assert difference[~bad.mask].max() <= MASK_GREY_LEVELS
    assert difference[bad.mask].min() > MASK_GREY_LEVELS


@every_defect
@pytest.mark.parametrize("size", SIZES)
def test_every_defect_is_a_visible_spot_on_every_part(part, defect, size):
    for seed in range(4):
        drawn = draw_part(part, _rng(seed), size=size, defect=defect)
        assert drawn.image_u8.shape == (*size, 3)
        assert drawn.image_u8.dtype == np.uint8
        assert MIN_MASK_FRACTION <= drawn.mask.mean() <= LARGEST_MASK_FRACTION


@every_part
def test_a_good_part_has_an_empty_mask(part):
    drawn = draw_part(part, _rng(), size=(96, 128))
    assert drawn.mask.shape == (96, 128)
    assert not drawn.mask.any()
    assert (drawn.defect, drawn.severity) == (None, 0.0)


@every_part
def test_equal_seeds_draw_equal_pixels_and_other_seeds_do_not(part):
    first = draw_part(part, _rng(1), defect="stain")
    again = draw_part(part, _rng(1), defect="stain")
    other = draw_part(part, _rng(2), defect="stain")

    assert first.image_u8.tobytes() == again.image_u8.tobytes()
    assert first.severity == again.severity
    assert first.image_u8.tobytes() != other.image_u8.tobytes()


def test_a_generator_is_advanced_equally_with_and_without_a_defect():
    plain, flawed = _rng(5), _rng(5)
    draw_part("bracket", plain, size=(64, 64))
    draw_part("bracket", flawed, size=(64, 64), defect="dent")
    assert plain.random() == flawed.random()


@every_part
def test_good_parts_vary_in_light(part):
    means = [draw_part(part, _rng(seed)).image_u8.mean() for seed in range(12)]
    assert 0.005 < np.std(means) / np.mean(means) < 0.10


@pytest.mark.parametrize(
    ("part", "least", "most"),  # of the average grey-level difference between two
    [("bracket", 2, 12), ("connector", 4, 25), ("washer", 10, 40), ("fabric", 10, 40)],
)
def test_pose_varies_as_much_as_the_part_promises(part, least, most):
    pictures = [draw_part(part, _rng(seed)).image_u8.astype(int) for seed in range(6)]
    differences = [np.abs(one - other).mean() for one, other in pairwise(pictures)]
    assert least < np.mean(differences) < most


@every_defect
def test_a_severe_defect_changes_more_than_a_faint_one(part, defect):
    changes = []
    for severity in (0.1, 1.0):
        total = 0
        for seed in range(4):
            good = draw_part(part, _rng(seed), size=SMALL).image_u8.astype(int)
            bad = draw_part(
                part, _rng(seed), size=SMALL, defect=defect, severity=severity
            )
            total += np.abs(bad.image_u8 - good).sum()
        changes.append(total)
    assert changes[1] > 1.5 * changes[0]


@pytest.mark.parametrize(
    ("part", "options", "message"),
    [
        ("brackett", {}, "unknown part 'brackett'; known: bracket, washer"),
        ("bracket", {"defect": "rust"}, "unknown defect 'rust'; known: scratch"),
        ("bracket", {"size": (256, 16)}, "at least 32 pixels"),
        ("bracket", {"severity": 1.5}, "between 0 and 1"),
    ],
)
def test_wrong_arguments_are_refused_in_words(part, options, message):
    with pytest.raises(ValueError, match=message):
        draw_part(part, _rng(), **options)


def test_the_manifest_is_accepted_and_says_what_was_drawn(tmp_path):
    manifest = write_parts(
        tmp_path,
        parts=("bracket", "washer"),
        n_train=3,
        n_test_normal=2,
        n_test_defect=5,
        size=(64, 64),
    )
    rows = read_manifest(manifest)

    assert len(rows) == 2 * (3 + 2 + 5)
    assert {row.category for row in rows} == {"bracket", "washer"}
    assert len({row.group_id for row in rows}) == len(rows)
    bad = [row for row in rows if row.label]
    assert [row.meta["defect"] for row in bad[:5]] == [*DEFECT_NAMES, "scratch"]
    for row in rows:
        assert row.image.startswith(f"images/{row.category}/{row.split}/")
        assert (row.mask_path is None) == (row.label == 0)
        assert row.split == "test" or row.label == 0


def test_a_row_names_the_seed_that_draws_its_image_and_mask_again(tmp_path):
    manifest = write_dataset(tmp_path, n_train=1, n_test_normal=0, n_test_defect=4)
    for row in read_rows(manifest):
        meta = row["meta"]
        seed, defect = meta["generator_seed"], meta["defect"]
        drawn = draw_part("bracket", _rng(seed), size=(96, 96), defect=defect)

        written = cv2.imread(str(tmp_path / row["image_path"]))
        assert np.array_equal(cv2.cvtColor(written, cv2.COLOR_BGR2RGB), drawn.image_u8)
        assert meta["severity"] == round(drawn.severity, 3)
        if defect:
            mask = cv2.imread(str(tmp_path / row["mask_path"]), cv2.IMREAD_UNCHANGED)
            assert np.array_equal(mask, np.where(drawn.mask, 255, 0))


def test_the_same_seed_writes_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_dataset(tmp_path / name, n_train=2, size=(64, 64), seed=seed)
    hashes = {name: _file_hashes(tmp_path / name) for name in "abc"}

    assert hashes["a"] == hashes["b"]
    assert hashes["a"].keys() == hashes["c"].keys()
    images = [name for name in hashes["a"] if name.startswith("images/")]
    assert all(hashes["a"][name] != hashes["c"][name] for name in images)


def test_a_larger_set_contains_the_smaller_one(tmp_path):
    counts = {"n_test_normal": 1, "n_test_defect": 4, "size": (64, 64)}
    write_dataset(tmp_path / "small", n_train=2, **counts)
    write_dataset(tmp_path / "large", n_train=4, **counts | {"n_test_defect": 9})
    small, large = _file_hashes(tmp_path / "small"), _file_hashes(tmp_path / "large")
    for changed in (small, large):
        del changed["manifest.jsonl"]
    assert small.items() < large.items()


def test_progress_counts_every_image(tmp_path):
    seen = []
    write_parts(
        tmp_path,
        n_train=2,
        n_test_normal=1,
        n_test_defect=1,
        size=(32, 32),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_missing_opencv_is_named_with_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="pip install opencv-python-headless"):
        draw_part("bracket", _rng())


def test_the_factory_sets_val_rows_or_no_splits_at_all(tmp_path):
    few = {"n_train": 2, "n_test_normal": 1, "n_test_defect": 1, "size": (32, 32)}
    with_val = read_rows(write_dataset(tmp_path / "val", n_val=1, **few))
    assert [row["split"] for row in with_val] == ["train"] * 2 + ["val"] + ["test"] * 2
    without = read_rows(write_dataset(tmp_path / "none", with_splits=False, **few))
    assert {row["split"] for row in without} == {None}


def test_the_factory_draws_textures_and_breaks_files(tmp_path):
    assert texture_image(_rng(), (40, 50)).shape == (40, 50, 3)
    whole = tmp_path / "whole.png"
    whole.write_bytes(bytes(range(100)))
    assert corrupt_copy(whole).read_bytes() == bytes(range(50))
