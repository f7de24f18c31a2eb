"""Normals for early stopping: a tenth, apart from those that learn and calibrate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import CommandResult
from factories import write_dataset
from learning_detector import HOME, Learning
from pyimgano.datasets.rows import ManifestRow
from pyimgano.datasets.spared_normals import held_out_part, tuning_part
from pyimgano.detectors import DETECTORS
from pyimgano.workbench.artifacts import open_run

Run = Callable[..., CommandResult]
MakeConfig = Callable[..., Path]


def rows(count: int, *, per_group: int = 1) -> list[ManifestRow]:
    """Give train normals, so many of one part each."""
    return [
        ManifestRow(
            f"{index}.png",
            Path("data"),
            "bracket",
            "train",
            0,
            group_id=f"part {index // per_group}" if per_group > 1 else None,
        )
        for index in range(count)
    ]


def names(part: Sequence[ManifestRow]) -> set[str]:
    return {row.image for row in part}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, 0), (9, 0), (10, 1), (14, 1), (16, 2), (80, 8), (256, 26)],
)
def test_about_a_tenth_tunes_and_none_of_few(count: int, expected: int) -> None:
    normals = rows(count)
    tuning, rest = tuning_part(normals, seed=0)
    assert len(tuning) == expected
    assert names(tuning) | names(rest) == names(normals)
    assert not names(tuning) & names(rest)


def test_the_same_seed_takes_the_same_and_another_takes_others() -> None:
    normals = rows(200)
    first = names(tuning_part(normals, seed=0)[0])
    assert names(tuning_part(normals, seed=0)[0]) == first
    assert names(tuning_part(normals, seed=1)[0]) != first


@pytest.mark.parametrize("per_group", [2, 5, 10])
def test_pictures_of_a_part_are_never_divided(per_group: int) -> None:
    normals = rows(100, per_group=per_group)
    for part, rest in (tuning_part(normals, seed=0), held_out_part(normals, seed=0)):
        assert part
        assert not {row.group for row in part} & {row.group for row in rest}
    assert len(tuning_part(normals, seed=0)[0]) == 10
    assert len(held_out_part(normals, seed=0)[0]) == 20


def test_parts_of_many_pictures_spare_none_to_tune() -> None:
    tuning, rest = tuning_part(rows(20, per_group=10), seed=0)
    assert not tuning
    assert len(rest) == 20


def test_one_large_part_does_not_calibrate_alone() -> None:
    normals = [*rows(60, per_group=60), *rows(100)[60:]]  # one part of 60, 40 of one
    held_out, rest = held_out_part(normals, seed=0)
    assert len(held_out) == 10  # nearest to 20 of the group-safe parts 60, 10, 10, ...
    assert len(rest) == 90


# --- through a training -------------------------------------------------------------


@pytest.fixture
def learning(monkeypatch: pytest.MonkeyPatch) -> type[Learning]:
    """Give the test detector, registered for one test."""
    monkeypatch.setitem(DETECTORS, "learning", HOME)
    monkeypatch.setattr(Learning, "given", [])
    return Learning


def trained(
    folder: Path, make_config: MakeConfig, run_cli: Run, **counts: int
) -> dict[str, Any]:
    """Give the report of the category."""
    manifest = write_dataset(
        folder / "data", n_test_normal=2, n_test_defect=2, size=(32, 32), **counts
    )
    config = make_config(manifest, model={"name": "learning"})
    done = run_cli("train", "--config", config, "--output", folder / "run")
    assert done.code == 0, done.stderr
    report: dict[str, Any] = open_run(folder / "run").report["categories"]["bracket"]
    return report


def test_without_val_a_fifth_calibrates_and_a_tenth_of_the_rest_tunes(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run, learning: type[Learning]
) -> None:
    report = trained(tmp_path, make_config, run_cli, n_train=25)
    assert report["counts"]["calibration"] == 5
    assert report["learned_from"]["tuning"] == 2
    assert report["learned_from"]["normals"] == 18
    (given,) = learning.given
    assert len(given["normals"]) == 18
    assert len(given["tuning"]) == 2
    assert not shared(given["normals"], given["tuning"])


def test_with_val_rows_these_calibrate_and_tuning_comes_from_train(
    tmp_path: Path, make_config: MakeConfig, run_cli: Run, learning: type[Learning]
) -> None:
    report = trained(tmp_path, make_config, run_cli, n_train=20, n_val=6)
    assert report["counts"]["calibration"] == 6
    assert report["learned_from"]["tuning"] == 2
    assert report["learned_from"]["normals"] == 18
    assert len(learning.given[0]["tuning"]) == 2


def shared(first: Tensor, second: Tensor) -> bool:
    """Whether a picture (H, W, 3) stands in both."""
    return any(torch.equal(a, b) for a in first for b in second)
