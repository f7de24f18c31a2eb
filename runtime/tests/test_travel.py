"""A predictor goes to other processes by its bundle's path, never as a session."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from shared_bundle import SCALES, write_shared
from tiny_bundle import category, edit_document, grey, write_bundle

from pyimgano_runtime import (
    BundleError,
    ImageError,
    Prediction,
    Predictor,
    ThresholdsFile,
    open_bundle,
    travel,
)
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.thresholds_file import (
    CalibratedBundle,
    CategoryThresholds,
    model_sha256,
)

SPAWN = get_context("spawn")


@pytest.fixture(autouse=True)
def _nothing_is_open_yet() -> None:
    travel._kept.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def sent(predictor: Predictor) -> Any:
    """Give what another process would get."""
    return pickle.loads(pickle.dumps(predictor))


def noise(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (23, 37, 3), dtype=np.uint8)


def test_a_pickle_holds_the_path_and_the_hash_and_no_model(folder: Path) -> None:
    predictor = Predictor.open(folder)
    data = pickle.dumps(predictor)
    assert str(folder).encode() in data
    assert open_bundle(folder).sha256.encode() in data
    assert len(data) < 1000
    assert b"ir_version" not in data
    assert b"Squeeze" not in data  # an operator of the model


def test_the_predictor_that_arrives_gives_the_same(folder: Path) -> None:
    predictor = Predictor.open(folder)
    there = sent(predictor)
    assert there is not predictor
    assert there.engine is not predictor.engine
    one, other = predictor.predict(noise(1)), there.predict(noise(1))
    assert (one.score, one.p_value, one.label) == (
        *(other.score, other.p_value, other.label),
    )
    assert one.anomaly_map is not None
    assert one.anomaly_map.tobytes() == other.anomaly_map.tobytes()


def test_a_relative_path_travels_as_an_absolute_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    data = pickle.dumps(Predictor.open(folder.name))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pickle.loads(data).predict(grey(7)).score == 7.0


def test_category_threads_and_threshold_travel(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", categories=("nut", "bolt"))
    predictor = Predictor.open(folder, category="bolt", threads=3, threshold=55.0)
    there = sent(predictor)
    assert (there.category, there.threshold) == ("bolt", 55.0)
    assert there.threshold_source == "--threshold"
    assert [key[:2] for key in there.bundle.sessions] == [("tiny", 3)]


def test_a_thresholds_file_travels_with_its_content(folder: Path) -> None:
    bundle = open_bundle(folder)
    own = category(threshold=30.0, scores=(1.0, 2.0))
    thresholds = ThresholdsFile(
        "device.json",
        CalibratedBundle("tiny", "1", bundle.sha256),
        {
            "part": CategoryThresholds(
                model_sha256(bundle, "part"), own.thresholds, own.calibration
            )
        },
    )
    there = sent(Predictor.open(folder, thresholds=thresholds))
    prediction = there.predict(grey(30))
    assert (prediction.label, prediction.p_value) == ("anomaly", 1 / 3)
    assert prediction.threshold_source == "device.json: conformal"


def test_all_that_open_takes_travels(folder: Path) -> None:
    taken = set(inspect.signature(Predictor.open).parameters) - {"bundle"}
    _, (_, _, options) = Predictor.open(folder).__reduce__()
    assert set(options) == taken


def test_a_folder_of_hard_links_stays_allowed(folder: Path, tmp_path: Path) -> None:
    os.link(folder / "models/tiny.onnx", tmp_path / "second")
    bundle = open_bundle(folder, allow_hard_links=True)
    assert sent(Predictor.open(bundle)).predict(grey(8)).score == 8.0


def test_categories_share_their_models_there_too(tmp_path: Path) -> None:
    bundle = open_bundle(write_shared(tmp_path / "b"))
    here = {name: Predictor.open(bundle, category=name) for name in SCALES}
    there = pickle.loads(pickle.dumps(here))
    assert {id(p.bundle) for p in there.values()} == {id(there["nut"].bundle)}
    assert len(there["nut"].bundle.sessions) == 3
    for name, scale in SCALES.items():
        assert there[name].predict(grey(20)).score == 20 * scale


def test_a_process_opens_the_same_predictor_once(folder: Path) -> None:
    predictor = Predictor.open(folder)
    assert sent(predictor) is sent(predictor)
    assert sent(Predictor.open(folder, threshold=1.0)) is not sent(predictor)


def test_a_process_keeps_a_few_only(folder: Path) -> None:
    for threshold in range(travel.KEPT + 3):
        sent(Predictor.open(folder, threshold=float(threshold)))
    assert len(travel._kept) == travel.KEPT


def test_a_subclass_arrives_as_one(folder: Path) -> None:
    assert type(sent(_Own.open(folder))) is _Own


class _Own(Predictor):
    """As a program may extend the class."""


def test_another_document_is_refused_with_what_was_found_and_expected(
    folder: Path,
) -> None:
    data = pickle.dumps(Predictor.open(folder))
    before = open_bundle(folder).sha256
    edit_document(folder, lambda d: d["bundle"].update(version="2"))
    after = open_bundle(folder).sha256
    there = pickle.loads(data)
    with pytest.raises(BundleError) as caught:
        there.predict(grey(1))
    told = str(caught.value)
    assert f"sha256 is {after}, expected {before}" in told
    assert str(folder / "infer_config.json") in told
    assert "open the new one by Predictor.open and start the workers again" in told


@pytest.mark.parametrize(
    "use",
    [
        lambda p: p.predict(grey(1)),
        lambda p: p.predict_batch([grey(1)]),
        lambda p: next(p.stream([grey(1)])),
        lambda p: next(p.stream([Path("a.png")])),
        lambda p: p.read("a.png"),
        lambda p: p.threshold,
        pickle.dumps,
    ],
)
def test_whatever_a_refused_one_is_asked_for_it_says_why(
    folder: Path, use: Any
) -> None:
    data = pickle.dumps(Predictor.open(folder))
    shutil.rmtree(folder)
    there = pickle.loads(data)
    with pytest.raises(BundleError, match="no such folder"):
        use(there)


def test_a_model_that_changed_is_refused(folder: Path) -> None:
    data = pickle.dumps(Predictor.open(folder))
    model = folder / "models/tiny.onnx"
    model.write_bytes(model.read_bytes()[::-1])
    there = pickle.loads(data)
    with pytest.raises(BundleError, match=r"tiny\.onnx"):
        there.predict(grey(1))


def test_a_bundle_that_comes_back_is_opened(folder: Path) -> None:
    data = pickle.dumps(Predictor.open(folder))
    aside = folder.rename(folder.with_name("aside"))
    pickle.loads(data)
    aside.rename(folder)
    assert pickle.loads(data).predict(grey(3)).score == 3.0


class _Engine:
    name = "torch 9"
    has_map = False

    def run(self, images_u8: Any, *, with_map: bool) -> Any:
        return np.zeros(len(images_u8), np.float32), None


def test_a_predictor_around_an_engine_cannot_be_pickled(folder: Path) -> None:
    bundle = open_bundle(folder)
    predictor = Predictor("part", category(), InputRules(), _Engine(), bundle=bundle)
    with pytest.raises(TypeError, match=r"an engine \(torch 9\).*expected one that"):
        pickle.dumps(predictor)


def test_results_and_errors_go_back(folder: Path) -> None:
    predictor = Predictor.open(folder)
    good, bad = pickle.loads(
        pickle.dumps(list(predictor.stream([grey(9), "none.png"])))
    )
    assert isinstance(good.prediction, Prediction)
    assert good.prediction.score == 9.0
    assert type(bad.error) is ImageError
    assert (bad.error.code, bad.error.stage) == ("IMAGE_MISSING", "read")
    assert str(bad.error).startswith("none.png: no such file")


def facts(predictor: Predictor) -> tuple[int, list[Any]]:
    assert predictor.bundle is not None
    return os.getpid(), [key[:2] for key in predictor.bundle.sessions]


def test_a_pool_of_processes_gives_equal_scores_with_threads_of_its_own(
    folder: Path,
) -> None:
    predictor = Predictor.open(folder, threads=1)
    pictures = [noise(seed) for seed in range(6)]
    with SPAWN.Pool(2) as pool:
        there = pool.map(predictor.predict, pictures, chunksize=1)
        (process, sessions), *_ = pool.map(facts, [predictor] * 2, chunksize=1)
    assert [p.score for p in there] == [predictor.predict(i).score for i in pictures]
    assert process != os.getpid()
    assert sessions == [("tiny", 1)]


def test_an_executor_survives_a_bad_picture_and_tells_of_a_changed_bundle(
    folder: Path,
) -> None:
    predictor = Predictor.open(folder, threads=1)
    other = Predictor.open(folder, threads=2)
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        assert pool.submit(predictor.predict, noise(1)).result().score == (
            predictor.predict(noise(1)).score
        )
        with pytest.raises(ImageError, match="found dtype float32") as caught:
            pool.submit(predictor.predict, np.zeros((4, 4, 3), np.float32)).result()
        assert caught.value.code == "IMAGE_DTYPE"
        document = folder / "infer_config.json"
        payload = json.loads(document.read_text(encoding="utf-8"))
        document.write_text(json.dumps(payload, indent=1), encoding="utf-8")
        assert pool.submit(predictor.predict, grey(5)).result().score == 5.0
        travelled = pool.submit(other.predict, grey(5))
        assert travelled.result().score == 5.0  # of the release that is open there
    with (
        ProcessPoolExecutor(1, mp_context=SPAWN) as pool,
        pytest.raises(BundleError, match=r"sha256 is .*, expected"),
    ):
        pool.submit(predictor.predict, grey(5)).result()


@pytest.mark.parametrize("write", [write_bundle, write_shared])
def test_eight_threads_on_one_predictor_get_what_one_gets_to_the_bit(
    tmp_path: Path, write: Any
) -> None:
    predictor = Predictor.open(
        write(tmp_path / "b"), category="nut" if write is write_shared else None
    )
    pictures = [noise(seed) for seed in range(12)]
    expected = [bits(predictor.predict(picture)) for picture in pictures]
    start = Barrier(8)

    def judge_all(first: int) -> bool:
        start.wait(30)
        for turn in range(5 * len(pictures)):
            number = (first + turn) % len(pictures)
            if bits(predictor.predict(pictures[number])) != expected[number]:
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(judge_all, range(8)))


def bits(prediction: Prediction) -> tuple[Any, ...]:
    assert prediction.anomaly_map is not None
    facts = (prediction.score, prediction.p_value, prediction.label)
    return (*facts, prediction.anomaly_map.tobytes())


def test_eight_threads_may_open_one_bundle(tmp_path: Path) -> None:
    bundle = open_bundle(write_shared(tmp_path / "b"))

    def score(number: int) -> float:
        name = list(SCALES)[number % 2]
        return Predictor.open(bundle, category=name).predict(grey(20)).score

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, range(16))) == [20.0, 60.0] * 8
