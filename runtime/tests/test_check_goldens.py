"""`check` proves the model on this machine, and says when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import (
    MAP_SIZE,
    edit_document,
    graph,
    grey,
    map_bytes,
    model,
    relist,
    save_picture,
    write_bundle,
)

from pyimgano_runtime import BundleError, ParityError, open_bundle
from pyimgano_runtime.check import (
    CheckReport,
    check_bundle,
    difference_of_range,
    relative_difference,
)
from pyimgano_runtime.cli import main


def report_of(folder: Path) -> CheckReport:
    return check_bundle(open_bundle(folder))


def test_a_whole_bundle_agrees(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", categories=("nut", "bolt"))
    report = report_of(folder)
    assert report.ok
    assert [r.category for r in report.results] == ["nut", "nut", "bolt", "bolt"]
    assert all(r.agrees and r.decoder == "same" for r in report.results)
    assert [r.score for r in report.results] == [40.0, 200.0] * 2
    assert main(["check", str(folder)]) == 0


@pytest.mark.parametrize(("factor", "code"), [(1 + 2e-5, 5), (1 + 5e-6, 0)])
def test_a_golden_score_off_by_more_than_the_tolerance_disagrees(
    tmp_path: Path, factor: float, code: int
) -> None:
    folder = write_bundle(tmp_path / "b")

    def alter(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][1]["score"] *= factor

    edit_document(folder, alter)
    assert report_of(folder).results[1].agrees is (code == 0)
    assert report_of(folder).results[0].agrees is True
    assert main(["check", str(folder)]) == code


@pytest.mark.parametrize(("steps", "agrees"), [(1, True), (2, False)])
def test_a_golden_map_off_by_more_than_the_tolerance_disagrees(
    tmp_path: Path, steps: int, agrees: bool
) -> None:
    # One float32 step at 200 is 1.5e-5; a flat map counts as one with a range of 0.2.
    folder = write_bundle(tmp_path / "b")
    values = np.full(MAP_SIZE, 200, np.float32)
    values[2, 3] += np.float32(steps) * np.spacing(np.float32(200))
    (folder / "golden" / "001.map.npy").write_bytes(map_bytes(values))
    relist(folder)
    result = report_of(folder).results[1]
    assert result.map_diff_of_range == pytest.approx(steps * 7.6e-5, rel=0.01)
    assert result.agrees is agrees


def test_another_model_disagrees_and_exits_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "b", model_bytes=model(graph(scale=1.001)))
    assert main(["check", str(folder)]) == 5
    out, err = capsys.readouterr()
    assert "DISAGREES" in out
    assert "verdict  0 of 2 goldens agree" in out
    assert "scores differently here than at export" in err


def test_a_label_that_flips_disagrees_even_within_the_tolerance(tmp_path: Path) -> None:
    # 200 here, 199.999 at export: closer than 1e-5, and the threshold lies between.
    folder = write_bundle(tmp_path / "b", threshold=200.0)

    def alter(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][1]["score"] = 199.999

    edit_document(folder, alter)
    result = report_of(folder).results[1]
    assert result.score_rel_diff is not None
    assert result.score_rel_diff < 1e-5
    assert (result.label_same, result.agrees) == (False, False)


def test_other_pixels_are_the_decoders_and_the_verdict_follows_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "b")
    save_picture(folder / "golden" / "000.png", grey(41))
    relist(folder)
    first, second = report_of(folder).results
    assert (first.decoder, first.agrees, first.score) == ("differs", None, 41.0)
    assert (second.decoder, second.agrees) == ("same", True)
    assert main(["check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "this decoder gives other pixels" in out
    assert "1 of 1 goldens agree with the trained model, 1 could not be judged" in out


def test_where_only_other_pixels_came_out_nothing_is_proven(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", golden_levels=(40,))
    save_picture(folder / "golden" / "000.png", grey(41))
    relist(folder)
    assert main(["check", str(folder)]) == 5


def test_without_goldens_nothing_is_proven(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "b", golden_levels=())
    assert not report_of(folder).ok
    assert main(["check", str(folder)]) == 5
    assert "nothing is proven" in capsys.readouterr().err


def test_a_jpeg_golden_is_missing_not_failed_without_opencv(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    folder = write_bundle(tmp_path / "b", with_jpeg=True)
    *others, jpeg = report_of(folder).results
    assert (jpeg.decoder, jpeg.score, jpeg.agrees) == ("missing", None, None)
    assert [r.agrees for r in others] == [True, True]
    assert main(["check", str(folder)]) == 0
    assert "pip install opencv-python-headless" in capsys.readouterr().out


def test_a_jpeg_golden_agrees_with_opencv(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    folder = write_bundle(tmp_path / "b", with_jpeg=True)
    assert [r.agrees for r in report_of(folder).results] == [True] * 3


def test_a_changed_file_is_refused_before_anything_is_scored(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "MODEL_CARD.md").write_text("# tinY\n")
    with pytest.raises(BundleError, match=r"MODEL_CARD.md: sha256 is"):
        report_of(folder)
    assert main(["check", str(folder)]) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no npy",
        map_bytes(np.zeros((4, 6), np.float64)),
        map_bytes(np.zeros((6, 4), np.float32)),
        map_bytes(np.zeros((4, 6), ">f4")),
        map_bytes(np.zeros((4, 6), np.float32)) + b"x",
        map_bytes(np.zeros((4, 6), np.float32))[:-1],
        map_bytes(np.array([{"a": 1}])),  # pickled
    ],
)
def test_a_golden_map_of_another_form_is_a_bundle_refused(
    tmp_path: Path, data: bytes
) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "golden" / "000.map.npy").write_bytes(data)
    relist(folder)
    with pytest.raises(BundleError, match=r"000.map.npy: .*export the bundle again"):
        report_of(folder)


def test_a_golden_that_the_bundles_own_rules_refuse_is_not_a_missing_decoder(
    tmp_path: Path,
) -> None:
    folder = write_bundle(tmp_path / "b")
    edit_document(folder, lambda d: d["input"].update(min_side=500))
    with pytest.raises(BundleError, match=r"refuse its golden golden/000.png"):
        report_of(folder)


def test_a_golden_that_the_model_cannot_score_names_the_golden(tmp_path: Path) -> None:
    data = model(graph(scale=float("nan")))
    folder = write_bundle(tmp_path / "b", model_bytes=data)
    with pytest.raises(ParityError, match=r"golden/000.png: .*score nan"):
        report_of(folder)
    assert main(["check", str(folder)]) == 5


def test_differences_are_relative_to_the_larger_and_to_the_maps_range() -> None:
    assert relative_difference(0.0, 0.0) == 0.0
    assert relative_difference(1.0, 2.0) == relative_difference(2.0, 1.0) == 0.5
    assert relative_difference(-1.0, 1.0) == 2.0
    assert difference_of_range(np.array([1.5, 3.0]), np.array([1.0, 3.0])) == 0.25
    assert difference_of_range(np.array([]), np.array([])) == 0.0
