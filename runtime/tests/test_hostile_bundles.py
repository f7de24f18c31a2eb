"""Every hostile bundle is refused in one sentence, with the stated code, in no time."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from hostile_bundles import HOSTILE, Hostile, run

DOC = Path(__file__).parents[2] / "docs" / "security.md"
# Making the bundle included, on a machine that has other work; what it guards against
# takes minutes, or all memory.
LIMIT_S = 20.0
ids = [case.name for case in HOSTILE]


def judge(case: Hostile, place: Path, *, alone: bool = False) -> None:
    start = time.perf_counter()
    code, text = run(case, place, alone=alone)
    seconds = time.perf_counter() - start
    assert case.sentence in text
    assert code == case.code
    assert "Traceback" not in text
    assert seconds < LIMIT_S


@pytest.mark.parametrize("case", HOSTILE, ids=ids)
def test_a_hostile_bundle_is_refused_in_words(case: Hostile, tmp_path: Path) -> None:
    judge(case, tmp_path)


def test_a_png_bomb_is_refused_without_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    judge(HOSTILE[ids.index("PNG bomb as a golden")], tmp_path)


def test_an_allowed_png_bomb_is_refused_without_opencv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError('cv2', name='cv2')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    judge(HOSTILE[ids.index("PNG bomb that the bundle allows")], tmp_path)


@pytest.mark.parametrize(
    "name", ["FIFO in a file's place", "10 MB of nested JSON", "map of objects"]
)
def test_a_process_of_its_own_ends_in_words(name: str, tmp_path: Path) -> None:
    judge(HOSTILE[ids.index(name)], tmp_path, alone=True)


def test_the_document_lists_exactly_these_cases_and_what_they_print() -> None:
    _, _, part = DOC.read_text("utf-8").partition("\n## Hostile bundles\n")
    lines = [line for line in part.splitlines() if " | " in line]
    rows = [line.strip("|").rsplit(" | ", 1) for line in lines]
    listed = {}
    for rest, code in rows:
        name, _, text = rest.partition(" | ")
        listed[name.strip()] = (text.replace("\\|", "|"), code.strip())
    assert [name for name in listed if name != "case"] == ids
    for case in HOSTILE:
        text, code = listed[case.name]
        assert case.sentence in text, case.name
        assert code == str(case.code), case.name
