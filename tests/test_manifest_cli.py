"""`pyimgano manifest`: create, validate, stats and split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from conftest import CommandResult
from factories import read_rows, texture_image, write_dataset, write_manifest
from pyimgano.datasets.manifest import read_manifest

Run = Callable[..., CommandResult]


def draw(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = texture_image(np.random.default_rng(seed), size=(32, 32))
        assert cv2.imwrite(str(path), picture)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Give good and bad pictures, two of each part, and a mask."""
    good = [f"good/part{n}_{shot}.png" for n in range(4) for shot in (1, 2)]
    root = draw(tmp_path / "photos", *good, "bad/part9_1.png", "masks/bad/part9_1.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[4:9, 4:9] = 255
    cv2.imwrite(str(root / "masks/bad/part9_1.png"), mask)
    return root


# --- create ---------------------------------------------------------------------------


def test_good_and_bad_folders_become_a_manifest(run_cli: Run, photos: Path) -> None:
    done = run_cli("manifest", "create", "--from", photos)
    assert done.code == 0
    rows = read_rows(photos / "manifest.jsonl")
    assert len(rows) == 9
    assert rows[0] == {
        "image_path": "bad/part9_1.png",
        "category": "photos",
        "split": None,
        "label": 1,
        "mask_path": "masks/bad/part9_1.png",
        "group_id": None,
        "meta": {"defect": "bad"},
    }
    assert "9 rows, layout custom" in done.stderr


def test_the_same_folder_gives_the_same_bytes(run_cli: Run, photos: Path) -> None:
    run_cli("manifest", "create", "--from", photos)
    first = (photos / "manifest.jsonl").read_bytes()
    run_cli("manifest", "create", "--from", photos, "--force")
    assert (photos / "manifest.jsonl").read_bytes() == first


def test_paths_are_relative_to_the_manifest(
    run_cli: Run, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "list.jsonl"
    run_cli("manifest", "create", "--from", photos, "--output", output)
    rows = read_manifest(output)
    assert rows[0].image == "photos/bad/part9_1.png"
    assert rows[0].mask_path is not None


def test_a_manifest_elsewhere_names_the_root_that_it_needs(
    run_cli: Run, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    output = tmp_path / "lists/list.jsonl"
    done = run_cli("manifest", "create", "--from", photos, "--output", output)
    assert f"paths are relative to {photos}: set dataset.root (--root)" in done.stderr
    assert len(read_manifest(output, root=photos)) == 9


@pytest.mark.parametrize("name", ["mvtec", "visa"])
def test_a_published_layout_is_recognised(
    run_cli: Run, tmp_path: Path, name: str
) -> None:
    if name == "mvtec":
        root = draw(
            tmp_path,
            *("nut/train/good/0.png", "nut/train/good/1.png", "nut/test/good/2.png"),
            *("nut/test/dent/3.png", "nut/ground_truth/dent/3_mask.png"),
        )
    else:
        root = draw(
            tmp_path,
            *("nut/Data/Images/Normal/0.JPG", "nut/Data/Images/Normal/1.JPG"),
            *("nut/Data/Images/Anomaly/0.JPG", "nut/Data/Masks/Anomaly/0.png"),
        )
    done = run_cli("manifest", "create", "--from", root)
    assert done.code == 0
    assert f"layout {name}" in done.stderr
    rows = read_manifest(root / "manifest.jsonl")
    assert {row.category for row in rows} == {"nut"}
    (anomaly,) = [row for row in rows if row.label == 1]
    assert anomaly.mask_path is not None
    assert anomaly.mask_above == (0 if name == "visa" else 127)


def test_only_the_named_categories_and_a_name_of_ones_own(
    run_cli: Run, tmp_path: Path
) -> None:
    root = draw(tmp_path, "a/good/0.png", "a/good/1.png", "b/good/0.png")
    arguments = ("--from", root, "--category", "a", "--rename", "left bolt")
    assert run_cli("manifest", "create", *arguments).code == 0
    assert {row.category for row in read_manifest(root / "manifest.jsonl")} == {
        "left bolt"
    }


def test_a_rename_of_several_categories_is_refused(
    run_cli: Run, tmp_path: Path
) -> None:
    root = draw(tmp_path, "a/good/0.png", "b/good/0.png")
    done = run_cli("manifest", "create", "--from", root, "--rename", "x")
    assert done.code == 2
    assert "--rename: there are 2 categories" in done.stderr
    assert not (root / "manifest.jsonl").exists()


def test_groups_are_guessed_only_when_asked(run_cli: Run, photos: Path) -> None:
    done = run_cli("manifest", "create", "--from", photos, "--guess-groups")
    assert "5 groups in 9 pictures" in done.stderr
    rows = read_manifest(photos / "manifest.jsonl")
    assert {row.group_id for row in rows} == {f"part{n}" for n in (0, 1, 2, 3, 9)}


def test_plain_numbers_are_no_groups(run_cli: Run, tmp_path: Path) -> None:
    root = draw(tmp_path, "good/000.png", "good/001.png", "bad/002.png")
    done = run_cli("manifest", "create", "--from", root, "--guess-groups")
    assert "0 groups in 3 pictures (largest: none); 3 without one" in done.stderr


def test_a_pattern_names_the_part(run_cli: Run, photos: Path) -> None:
    arguments = ("--from", photos, "--group-pattern", r"part(\d+)")
    assert run_cli("manifest", "create", *arguments).code == 0
    rows = read_manifest(photos / "manifest.jsonl")
    assert {row.group_id for row in rows} == {"0", "1", "2", "3", "9"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--group-pattern", "part["], "is no regular expression"),
        (["--group-pattern", "part"], "has no group"),
        (["--group-pattern", "(p)", "--guess-groups"], "give one of them"),
        (["--rename", ""], "expected 1 to 100 printable characters"),
        (["--rename", "a\nb"], "expected 1 to 100 printable characters"),
        (["--layout", "mvtek"], 'did you mean "mvtec"'),
        (["--category", "nuts"], 'no category "nuts"'),
    ],
)
def test_wrong_options_leave_nothing(
    run_cli: Run, photos: Path, arguments: list[str], expected: str
) -> None:
    done = run_cli("manifest", "create", "--from", photos, *arguments)
    assert done.code == 2
    assert expected in done.stderr
    assert not (photos / "manifest.jsonl").exists()


def test_a_folder_without_pictures_says_what_is_expected(
    run_cli: Run, tmp_path: Path
) -> None:
    done = run_cli("manifest", "create", "--from", tmp_path)
    assert done.code == 2
    assert "<root>/good/*.png" in done.stderr
    gone = run_cli("manifest", "create", "--from", tmp_path / "gone")
    assert gone.code == 2
    assert "gone is no folder; name that of the pictures" in gone.stderr


def test_pictures_in_folders_of_folders_are_read(run_cli: Run, tmp_path: Path) -> None:
    root = draw(
        tmp_path / "parts",
        *("good/monday/0.png", "good/tuesday/0.png", "bad/scratch/0.png"),
        *("bad/dent/0.png", "bad_masks/dent/0.png"),
    )
    assert run_cli("manifest", "create", "--from", root).code == 0
    rows = read_manifest(root / "manifest.jsonl")
    assert [(row.image, row.label, row.mask) for row in rows] == [
        ("bad/dent/0.png", 1, "bad_masks/dent/0.png"),
        ("bad/scratch/0.png", 1, None),
        ("good/monday/0.png", 0, None),
        ("good/tuesday/0.png", 0, None),
    ]


@pytest.mark.parametrize(
    "masks",
    ["Masks", "Ground_Truth/bad", "labels", "bad-masks", "GT/bad", "bad labels"],
)
def test_masks_are_found_under_their_usual_names(
    run_cli: Run, tmp_path: Path, masks: str
) -> None:
    root = draw(
        *(tmp_path / "parts", "good/0.png", "good/1.png"),
        *("bad/2.png", f"{masks}/2.png"),
    )
    done = run_cli("manifest", "create", "--from", root)
    assert "parts: 2 good; defects: bad 1; 1 masks" in done.stderr
    (bad,) = [row for row in read_manifest(root / "manifest.jsonl") if row.label]
    assert bad.mask == f"{masks}/2.png"


def test_groups_given_by_hand_are_kept(run_cli: Run, photos: Path) -> None:
    run_cli("manifest", "create", "--from", photos)
    manifest = photos / "manifest.jsonl"
    rows = read_rows(manifest)
    rows[3]["group_id"] = "lot-7"
    write_manifest(manifest, rows)
    done = run_cli("manifest", "create", "--from", photos, "--force")
    assert "kept 1 group ids" in done.stderr
    assert read_rows(manifest) == rows


def test_pictures_that_are_not_read_are_said(run_cli: Run, tmp_path: Path) -> None:
    root = draw(tmp_path, "good/0.png", "good/1.png", "bad/2.png")
    (root / "bad/3.HEIC").touch()
    done = run_cli("manifest", "create", "--from", root)
    assert "1 .heic files are not read" in done.stderr
    mvtec = draw(
        *(tmp_path / "ad", "nut/train/good/0.png", "nut/train/good/1.png"),
        *("nut/test/good/lot2/2.png", "nut/test/dent/3.png"),
        "nut/ground_truth/dent/3_mask.png",
    )
    done = run_cli("manifest", "create", "--from", mvtec)
    assert "1 pictures in a sub-folder are not read" in done.stderr
    phone = draw(tmp_path / "phone", "bad/1.png")
    (phone / "good").mkdir()
    (phone / "good/1.HEIC").touch()
    done = run_cli("manifest", "create", "--from", phone)
    assert done.code == 2
    assert "1 files of formats that are not read" in done.stderr


def test_force_never_replaces_a_picture(run_cli: Run, photos: Path) -> None:
    picture = photos / "good/part0_1.png"
    before = picture.read_bytes()
    arguments = ("--from", photos, "--output", picture, "--force")
    done = run_cli("manifest", "create", *arguments)
    assert done.code == 2
    assert picture.read_bytes() == before


def test_an_existing_manifest_is_kept_but_a_template_is_filled(
    run_cli: Run, photos: Path
) -> None:
    run_cli("init", photos)
    assert run_cli("manifest", "create", "--from", photos).code == 0
    done = run_cli("manifest", "create", "--from", photos)
    assert done.code == 2
    assert "already exists" in done.stderr
    assert run_cli("manifest", "create", "--from", photos, "--force").code == 0


def test_the_first_steps_of_a_newcomer_lead_to_a_run(
    run_cli: Run, photos: Path, tmp_path: Path
) -> None:
    assert run_cli("init", photos).code == 0
    assert run_cli("manifest", "create", "--from", photos, "--guess-groups").code == 0
    config = photos / "config.json"
    payload = json.loads(config.read_text("utf-8"))
    payload["model"] = {"name": "pixel_stats", "options": {"image_size": [32, 32]}}
    config.write_text(json.dumps(payload), encoding="utf-8")
    assert run_cli("preflight", "--config", config).code == 0
    run = tmp_path / "run"
    assert run_cli("train", "--config", config, "--output", run).code == 0


# --- validate and stats ---------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_dataset(
        tmp_path / "data",
        n_train=20,
        n_test_normal=0,
        n_test_defect=2,
        size=(32, 32),
        with_splits=False,
    )


def test_validate_ends_with_a_verdict(run_cli: Run, manifest: Path) -> None:
    done = run_cli("manifest", "validate", manifest)
    assert done.code == 0
    assert done.stdout.splitlines()[-1].endswith("no picture was opened")


def test_validate_refuses_errors(run_cli: Run, manifest: Path) -> None:
    rows = read_rows(manifest)
    rows[0]["label"] = 7
    write_manifest(manifest, rows)
    done = run_cli("manifest", "validate", manifest)
    assert done.code == 2
    assert "error MANIFEST_INVALID_RECORD (1)" in done.stdout
    report = json.loads(run_cli("manifest", "validate", manifest, "--json").stdout)
    assert report["issues"][0]["context"]["line"] == 1


def test_stats_count(run_cli: Run, manifest: Path) -> None:
    done = run_cli("manifest", "stats", manifest)
    assert done.code == 0
    assert "bracket" in done.stdout
    summary = json.loads(run_cli("manifest", "stats", manifest, "--json").stdout)
    assert summary["counts"]["explicit"]["auto"] == 22


def test_stats_say_that_something_is_not_counted(run_cli: Run, manifest: Path) -> None:
    rows = read_rows(manifest)
    rows[0]["label"] = 7
    write_manifest(manifest, rows)
    done = run_cli("manifest", "stats", manifest)
    assert done.code == 2
    assert "1 errors, what they concern is not counted" in done.stderr


# --- split ----------------------------------------------------------------------------


def split(run_cli: Run, manifest: Path, name: str, *options: Any) -> list[Any]:
    output = manifest.parent / name
    done = run_cli("manifest", "split", manifest, "--output", output, *options)
    assert done.code == 0, done.stderr
    return read_rows(output)


def test_split_writes_what_training_would_assign(run_cli: Run, manifest: Path) -> None:
    rows = split(run_cli, manifest, "split.jsonl", "--seed", 3)
    counts = {s: sum(r["split"] == s for r in rows) for s in ("train", "val", "test")}
    assert counts == {"train": 16, "val": 0, "test": 6}
    arguments = ("--manifest-path", manifest, "--split-seed", 3, "--json")
    report = json.loads(run_cli("preflight", *arguments).stdout)
    assert report["summary"]["counts"]["assigned"] == counts


def test_split_is_the_same_for_the_same_seed(run_cli: Run, manifest: Path) -> None:
    first = split(run_cli, manifest, "1.jsonl", "--seed", 3)
    assert split(run_cli, manifest, "2.jsonl", "--seed", 3) == first
    assert split(run_cli, manifest, "3.jsonl", "--seed", 4) != first


def test_split_holds_normals_back_for_calibration(run_cli: Run, manifest: Path) -> None:
    rows = split(run_cli, manifest, "split.jsonl", "--val-normal-fraction", 0.25)
    assert sum(row["split"] == "val" for row in rows) == 5
    assert all(row["label"] == 0 for row in rows if row["split"] == "val")


def test_split_keeps_comments_order_keys_and_what_is_explicit(
    run_cli: Run, manifest: Path
) -> None:
    rows = read_rows(manifest)
    rest = {key: value for key, value in rows[0].items() if key != "split"}
    rows[0] = {"split": "val", **rest}
    text = "# first\n\n" + "".join(json.dumps(row) + "\n" for row in rows)
    manifest.write_text(text, encoding="utf-8")
    output = manifest.parent / "split.jsonl"
    assert run_cli("manifest", "split", manifest, "--output", output).code == 0
    lines = output.read_text("utf-8").splitlines()
    assert lines[:2] == ["# first", ""]
    written = [json.loads(line) for line in lines[2:]]
    assert written[0] == rows[0]
    assert [list(row) for row in written] == [list(row) for row in rows]
    before = [row | {"split": 0} for row in rows]
    assert [row | {"split": 0} for row in written] == before


def test_split_never_divides_a_group(run_cli: Run, manifest: Path) -> None:
    rows = read_rows(manifest)
    for number, row in enumerate(rows[:20]):
        row["group_id"] = f"g{number // 4}"
    write_manifest(manifest, rows)
    written = split(
        *(run_cli, manifest, "split.jsonl"),
        *("--test-normal-fraction", 0.4, "--val-normal-fraction", 0.2),
    )
    splits: dict[str, set[str]] = {}
    for row in written[:20]:
        splits.setdefault(row["group_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {name for found in splits.values() for name in found} == {
        *("train", "val", "test"),
    }


def test_split_refuses_another_folder_and_too_large_shares(
    run_cli: Run, manifest: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "split.jsonl"
    done = run_cli("manifest", "split", manifest, "--output", elsewhere)
    assert done.code == 2
    assert "write it into" in done.stderr
    assert not elsewhere.exists()
    output = manifest.parent / "split.jsonl"
    fractions = ("--test-normal-fraction", 0.6, "--val-normal-fraction", 0.5)
    many = run_cli("manifest", "split", manifest, "--output", output, *fractions)
    assert many.code == 2
    assert "their sum is 1.1, expected less than 1" in many.stderr


def test_split_refuses_conflicts_and_writes_nothing(
    run_cli: Run, manifest: Path
) -> None:
    rows = read_rows(manifest)
    rows[0] |= {"group_id": "g", "split": "train"}
    rows[1] |= {"group_id": "g", "split": "test"}
    write_manifest(manifest, rows)
    output = manifest.parent / "split.jsonl"
    done = run_cli("manifest", "split", manifest, "--output", output)
    assert done.code == 2
    assert 'group "g" stands in test and train' in done.stderr
    assert not output.exists()
