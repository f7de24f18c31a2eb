"""How many cores a process may use: its affinity, within every quota above it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pyimgano_runtime.cores import usable_cores

ALL = 64


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(ALL)), raising=False
    )


def cores(tmp_path: Path, own_group: str, files: dict[str, str]) -> int:
    groups = tmp_path / "groups"
    groups.mkdir()
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    own = tmp_path / "own"
    own.write_text(own_group)
    return usable_cores(control_groups=str(groups), own_group=str(own))


def test_without_a_quota_it_is_the_affinity(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "max 100000\n"}) == ALL


def test_without_control_groups_it_is_the_affinity(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "none")
    assert usable_cores(control_groups=nowhere, own_group=nowhere) == ALL


def test_a_container_has_the_quota_of_its_top_group(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "400000 100000\n"}) == 4


@pytest.mark.parametrize(
    ("quota", "expected"), [("250000", 2), ("50000", 1), ("100", 1)]
)
def test_a_share_of_a_core_is_left_out_but_one_stays(
    tmp_path: Path, quota: str, expected: int
) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"}) == expected


def test_the_least_quota_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {
        "a/b/cpu.max": "max 100000",
        "a/cpu.max": "200000 100000",
        "cpu.max": "800000 100000",
    }
    assert cores(tmp_path, "0::/a/b\n", files) == 2


def test_version_1_has_its_quota_in_two_files(tmp_path: Path) -> None:
    own = "12:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",  # the container sees its own on top
        "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    assert cores(tmp_path, own, files) == 3


def test_minus_one_is_no_quota_in_version_1(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, "4:cpu:/\n", files) == ALL


@pytest.mark.parametrize("text", ["", "many", "1 2 3", "100000 0", "\xff\xfe"])
def test_a_file_that_says_nothing_is_no_quota(tmp_path: Path, text: str) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": text}) == ALL
