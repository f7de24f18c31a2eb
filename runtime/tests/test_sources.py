"""Which files of a folder are judged: the ones that training would have taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyimgano_runtime.sources import PICTURE_SUFFIXES, list_inputs


@pytest.mark.parametrize("suffix", sorted(PICTURE_SUFFIXES))
def test_every_kind_of_picture_is_taken_in_either_case(
    suffix: str, tmp_path: Path
) -> None:
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        (tmp_path / name).touch()
    assert [path.name[0] for path in list_inputs([str(tmp_path)])] == ["a", "b"]


def test_hidden_files_are_left_out_unless_they_are_named(tmp_path: Path) -> None:
    for name in ("a.png", "._a.png", ".b.png"):
        (tmp_path / name).touch()
    assert [path.name for path in list_inputs([str(tmp_path)])] == ["a.png"]
    named = str(tmp_path / ".b.png")
    assert list_inputs([named]) == [Path(named)]
