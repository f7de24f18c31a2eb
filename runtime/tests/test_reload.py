"""A replaced bundle takes over only when it has passed, and the old one serves on."""

from __future__ import annotations

import json
import pickle
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import graph, grey, model, save_picture, write_bundle

from pyimgano_runtime import BundleError, Predictor, open_bundle
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.cli import main
from pyimgano_runtime.reload import EVERY_S, LONGEST_PAUSE_S, ReloadingPredictor

LOW, HIGH = 100.0, 150.0  # the thresholds of the first bundle and of its successor


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle", threshold=LOW)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def predictor(folder: Path, said: list[str], clock: Clock) -> ReloadingPredictor:
    return ReloadingPredictor(folder, Predictor.open, say=said.append, clock=clock)


def replace(folder: Path, **settings: Any) -> str:
    """Put a new bundle in the place of the folder by renaming; give its sha256."""
    new, old = folder.with_name(".bundle.new"), folder.with_name(".bundle.old")
    write_bundle(new, **settings)
    sha256 = open_bundle(new).sha256
    folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old)
    return sha256


def test_a_good_replacement_takes_over(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    assert predictor.predict(grey(120)).label == "anomaly"
    sha256 = replace(folder, threshold=HIGH)
    predictor.refresh(wait=True)
    assert predictor.predict(grey(120)).label == "normal"
    assert predictor.bundle is not None
    assert (predictor.bundle.sha256, predictor.threshold) == (sha256, HIGH)
    assert len(said) == 1
    assert sha256 in said[0]


def test_a_broken_replacement_is_refused_and_the_old_one_serves_on(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    replace(folder, threshold=HIGH)
    (folder / "models" / "tiny.onnx").write_bytes(b"cut off")
    predictor.refresh(wait=True)
    prediction = predictor.predict(grey(120))
    assert (prediction.score, prediction.threshold) == (120.0, LOW)
    assert len(said) == 1
    assert "is not taken" in said[0]
    assert "tiny.onnx" in said[0]


def test_a_replacement_with_other_scores_is_refused_and_the_old_one_serves_on(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    replace(folder, threshold=HIGH, model_bytes=model(graph(scale=1.01)))
    predictor.refresh(wait=True)
    assert predictor.predict(grey(120)).score == 120.0
    assert "goldens come out with other scores" in said[0]


def test_a_replacement_that_proves_nothing_is_refused(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    replace(folder, threshold=HIGH, golden_levels=())
    predictor.refresh(wait=True)
    assert predictor.threshold == LOW
    assert "no golden judged" in said[0]


@pytest.mark.parametrize("names", [("other",), ("part", "other")])
def test_a_replacement_of_another_part_is_refused(
    predictor: ReloadingPredictor, folder: Path, said: list[str], names: tuple[str, ...]
) -> None:
    replace(folder, categories=names)
    predictor.refresh(wait=True)
    assert "other" in said[0]
    assert predictor.category == "part"


def test_a_replacement_without_maps_is_refused_where_maps_are_saved(
    folder: Path, said: list[str]
) -> None:
    predictor = ReloadingPredictor(
        folder, Predictor.open, say=said.append, needs_map=True
    )
    replace(folder, with_map=False)
    predictor.refresh(wait=True)
    assert "no anomaly map" in said[0]
    assert predictor.engine.has_map


def test_a_refused_bundle_is_said_once_and_tried_again_less_and_less_often(
    predictor: ReloadingPredictor, folder: Path, said: list[str], clock: Clock
) -> None:
    tries = []
    whole = predictor._examined

    def counted() -> Predictor:
        tries.append(clock.now)
        return whole()

    predictor._examined = counted  # type: ignore[method-assign]
    replace(folder, model_bytes=model(graph(scale=1.01)))
    while clock.now < 4 * LONGEST_PAUSE_S:
        clock.now += 1
        predictor.refresh()
        if predictor._candidate is not None:
            predictor.refresh(wait=True)
    assert len(said) == 1
    pauses = [round(b - a) for a, b in pairwise(tries)]
    assert pauses[:3] == [2 * EVERY_S, 4 * EVERY_S, 8 * EVERY_S]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_good_bundle_after_a_refused_one_does_not_wait_for_the_next_attempt(
    predictor: ReloadingPredictor, folder: Path, clock: Clock
) -> None:
    replace(folder, model_bytes=model(graph(scale=1.01)))
    for _ in range(9):
        predictor.refresh(wait=True)
    replace(folder, threshold=HIGH)
    clock.now += EVERY_S
    predictor.refresh()
    assert predictor._candidate is not None
    predictor.refresh(wait=True)
    assert predictor.threshold == HIGH


def test_a_copy_that_is_completed_later_is_taken(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    replace(folder, threshold=HIGH)
    late = (folder / "models" / "tiny.onnx").rename(folder / "late")
    predictor.refresh(wait=True)
    assert "tiny.onnx: the file is missing" in said[0]
    late.rename(folder / "models" / "tiny.onnx")
    predictor.refresh(wait=True)
    assert predictor.threshold == HIGH


def test_a_folder_that_is_away_for_a_moment_changes_nothing(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    away = folder.rename(folder.with_name("away"))
    predictor.refresh(wait=True)
    assert predictor.predict(grey(7)).score == 7.0
    away.rename(folder)
    predictor.refresh(wait=True)
    assert said == []


def test_the_same_bundle_copied_again_is_no_replacement(
    predictor: ReloadingPredictor, folder: Path, said: list[str]
) -> None:
    before = predictor.current
    replace(folder, threshold=LOW)
    predictor.refresh(wait=True)
    assert predictor.current is before
    assert said == []


def test_a_link_that_is_moved_to_another_release_is_a_replacement(
    tmp_path: Path, said: list[str]
) -> None:
    for name, threshold in (("v1", LOW), ("v2", HIGH)):
        write_bundle(tmp_path / name, threshold=threshold)
    link = tmp_path / "current"
    link.symlink_to("v1")
    predictor = ReloadingPredictor(link, Predictor.open, say=said.append)
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(link)
    predictor.refresh(wait=True)
    assert predictor.threshold == HIGH


def test_the_folder_is_looked_at_no_more_often_than_every_few_seconds(
    predictor: ReloadingPredictor, folder: Path, clock: Clock
) -> None:
    replace(folder, threshold=HIGH)
    predictor.predict(grey(7))
    assert predictor._candidate is None
    clock.now += EVERY_S
    predictor.predict(grey(7))
    predictor.refresh(wait=True)
    assert predictor.threshold == HIGH


def test_pictures_are_judged_by_the_old_one_while_the_new_one_is_examined(
    folder: Path, clock: Clock
) -> None:
    import threading

    opened, passed = [], threading.Event()

    def slowly(bundle: Bundle) -> Predictor:
        opened.append(bundle)
        if len(opened) > 1:
            assert passed.wait(timeout=30)
        return Predictor.open(bundle)

    predictor = ReloadingPredictor(folder, slowly, say=lambda _: None, clock=clock)
    replace(folder, threshold=HIGH)
    clock.now += EVERY_S
    assert [predictor.predict(grey(120)).threshold for _ in range(3)] == [LOW] * 3
    passed.set()
    predictor.refresh(wait=True)
    assert predictor.predict(grey(120)).threshold == HIGH


def test_each_row_names_the_bundle_that_judged_it(
    folder: Path, tmp_path: Path, clock: Clock, predictor: ReloadingPredictor
) -> None:
    from pyimgano_runtime.rows import predict_files

    picture = save_picture(tmp_path / "a.png", grey(120))
    thresholds = {open_bundle(folder).sha256: LOW}
    rows = predict_files(predictor, [picture] * 6, with_map=False, decode_workers=2)
    found = []
    for number, (row, _, _) in enumerate(rows):
        found.append(row)
        if number == 2:
            thresholds[replace(folder, threshold=HIGH)] = HIGH
            clock.now += EVERY_S
            predictor.refresh(wait=True)
    assert [row["threshold"] for row in found] == [LOW] * 3 + [HIGH] * 3
    for row in found:
        assert row["threshold"] == thresholds[row["bundle_sha256"]]
        assert row["label"] == ("anomaly" if row["threshold"] == LOW else "normal")


def test_all_that_a_predictor_says_of_itself_is_of_the_one_in_use(
    predictor: ReloadingPredictor, folder: Path
) -> None:
    replace(folder, threshold=HIGH)
    predictor.refresh(wait=True)
    said_by_it = vars(predictor.current)
    assert {"bundle", "threshold", "settings", "rules"} <= {*said_by_it}
    for name, value in said_by_it.items():
        assert getattr(predictor, name) is value


def test_a_predictor_that_was_taken_before_keeps_its_bundle(
    predictor: ReloadingPredictor, folder: Path
) -> None:
    before = predictor.current
    replace(folder, threshold=HIGH)
    predictor.refresh(wait=True)
    assert before.predict(grey(120)).label == "anomaly"
    assert predictor.current is not before


def test_a_first_bundle_that_is_refused_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        ReloadingPredictor(tmp_path / "no", Predictor.open, say=print)


def test_it_stays_in_its_process(predictor: ReloadingPredictor) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(predictor)


def test_infer_takes_no_replacement_where_one_release_is_expected(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = open_bundle(folder).sha256
    command = ["infer", "--bundle", str(folder), "--reload", "--expect-sha256", sha256]
    assert main([*command, str(tmp_path)]) == 2
    assert "give one of them" in capsys.readouterr().err


def test_infer_with_reload_writes_the_rows_that_it_writes_without(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(save_picture(tmp_path / "a.png", grey(120)))
    rows: list[dict[str, Any]] = []
    for flags in ([], ["--reload"]):
        assert main(["infer", "--bundle", str(folder), *flags, picture]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    for row in rows:
        row.pop("ms")
    assert rows[0] == rows[1]
