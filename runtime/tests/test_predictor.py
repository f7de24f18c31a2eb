"""What a Predictor says of a picture, on a bundle whose scores are known by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tiny_bundle import (
    FLOAT,
    THRESHOLD,
    attribute,
    category,
    field,
    graph,
    grey,
    model,
    model_spec,
    node,
    write_bundle,
)

from pyimgano_runtime import ConfigError, ImageError, Predictor
from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.engine import OnnxEngine
from pyimgano_runtime.infer_config import InputRules


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "b")


@pytest.fixture
def predictor(folder: Path) -> Predictor:
    return Predictor.open(folder)


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(
        0, 256, (height, width, 3), dtype=np.uint8
    )


def test_a_prediction_says_score_label_threshold_and_where_it_comes_from(
    predictor: Predictor,
) -> None:
    prediction = predictor.predict(grey(40))
    assert (prediction.score, prediction.label) == (40.0, "normal")
    assert prediction.threshold == THRESHOLD
    assert prediction.threshold_source == "bundle: conformal"
    assert prediction.p_value == 1 / 5  # calibration 10, 20, 20, 30
    assert prediction.anomaly_map is not None
    assert prediction.anomaly_map.shape == (4, 6)
    assert prediction.anomaly_map.dtype == np.float32
    assert (prediction.anomaly_map == 40).all()
    assert set(prediction.ms) == {"infer", "post"}


def test_a_score_equal_to_the_threshold_is_an_anomaly(predictor: Predictor) -> None:
    assert predictor.predict(grey(99)).label == "normal"
    assert predictor.predict(grey(100)).label == "anomaly"


def test_scores_are_raw_and_unbounded(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", model_bytes=model(graph(scale=-1e6)))
    assert Predictor.open(folder).predict(grey(200)).score == -2e8


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (4, 6), (17, 31), (101, 3)])
def test_any_size_is_scored(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor.predict(grey(60, *size)).score == 60.0


def test_a_batch_gives_what_each_picture_gives_alone_bit_for_bit(
    predictor: Predictor,
) -> None:
    pictures = [noise(23, 37, seed) for seed in range(5)]
    for one, many in zip(
        [predictor.predict(picture) for picture in pictures],
        predictor.predict_batch(pictures),
        strict=True,
    ):
        assert one.score == many.score
        assert one.p_value == many.p_value
        assert one.anomaly_map is not None
        assert many.anomaly_map is not None
        assert one.anomaly_map.tobytes() == many.anomaly_map.tobytes()


def test_the_score_is_the_same_without_the_map_and_with_other_threads(
    folder: Path, predictor: Predictor
) -> None:
    whole = predictor.predict(noise(23, 37))
    lean = predictor.predict(noise(23, 37), with_map=False)
    assert lean.anomaly_map is None
    threads = Predictor.open(folder, threads=3).predict(noise(23, 37))
    assert whole.score == lean.score == threads.score


def test_an_empty_batch_gives_an_empty_list(predictor: Predictor) -> None:
    assert predictor.predict_batch([]) == []


def test_a_batch_of_several_sizes_is_refused(predictor: Predictor) -> None:
    with pytest.raises(ImageError, match="several sizes") as caught:
        predictor.predict_batch([grey(1, 2, 2), grey(1, 2, 3)])
    assert caught.value.code == "IMAGE_SHAPE"


def test_a_grey_picture_scores_like_its_three_equal_channels(
    predictor: Predictor,
) -> None:
    one_channel = noise(9, 8)[:, :, 0]
    three = np.repeat(one_channel[..., None], 3, axis=2)
    assert predictor.predict(one_channel).score == predictor.predict(three).score


def test_a_view_with_strides_scores_like_its_copy(predictor: Predictor) -> None:
    view = noise(20, 30)[::-2, ::3, ::-1]
    assert predictor.predict(view).score == predictor.predict(view.copy()).score


@pytest.mark.parametrize(
    ("image", "code", "expected"),
    [
        (np.zeros((4, 4, 3), np.float32), "IMAGE_DTYPE", "float32, expected uint8"),
        (np.zeros((4, 4, 3), np.uint16), "IMAGE_DTYPE", "uint16"),
        (np.zeros((4, 4, 4), np.uint8), "IMAGE_SHAPE", "(4, 4, 4)"),
        (np.zeros((3, 4, 4), np.uint8), "IMAGE_SHAPE", "(3, 4, 4)"),
        (np.zeros((1, 4, 4, 3), np.uint8), "IMAGE_SHAPE", "(1, 4, 4, 3)"),
        (np.zeros((0, 4, 3), np.uint8), "IMAGE_TOO_SMALL", "0 x 4"),
        ([[0]], "IMAGE_DTYPE", "a list"),
        (None, "IMAGE_DTYPE", "a NoneType"),
    ],
)
def test_a_wrong_array_is_refused_and_never_converted(
    predictor: Predictor, image: Any, code: str, expected: str
) -> None:
    with pytest.raises(ImageError) as caught:
        predictor.predict(image)
    assert caught.value.code == code
    assert expected in str(caught.value)


def test_the_bundles_input_rules_hold_for_arrays_too(tmp_path: Path) -> None:
    rules = InputRules(expected_size=(8, 9), reference_decoder="builtin")
    predictor = Predictor.open(write_bundle(tmp_path / "b", rules=rules))
    assert predictor.predict(grey(1, 8, 9)).score == 1.0
    with pytest.raises(ImageError, match="expected exactly 8 x 9"):
        predictor.predict(grey(1, 9, 8))


def test_the_one_category_needs_no_name(predictor: Predictor) -> None:
    assert predictor.category == "part"


def test_several_categories_must_be_told_apart_by_name(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b", categories=("nut", "bolt"))
    with pytest.raises(ConfigError, match=r"name one \(--category\): bolt, nut"):
        Predictor.open(folder)
    with pytest.raises(ConfigError, match=r'mean "bolt".*it holds: bolt, nut'):
        Predictor.open(folder, category="blot")
    assert Predictor.open(folder, category="nut").category == "nut"


@pytest.mark.parametrize("name", ["", "PART", "part "])
def test_a_category_is_named_exactly(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="it holds: part"):
        Predictor.open(folder, category=name)


def test_a_threshold_of_the_caller_replaces_the_bundles(folder: Path) -> None:
    prediction = Predictor.open(folder, threshold=40.0).predict(grey(40))
    assert (prediction.label, prediction.threshold) == ("anomaly", 40.0)
    assert prediction.threshold_source == "--threshold"


def test_a_threshold_of_zero_is_a_threshold(folder: Path) -> None:
    assert Predictor.open(folder, threshold=0.0).predict(grey(0)).label == "anomaly"


def test_a_threshold_is_shown_as_the_float32_that_is_compared(folder: Path) -> None:
    threshold = Predictor.open(folder, threshold=0.1).threshold
    assert threshold == float(np.float32(0.1))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_threshold_that_no_score_can_reach_is_refused(
    folder: Path, value: float
) -> None:
    with pytest.raises(ConfigError, match="expected a finite number"):
        Predictor.open(folder, threshold=value)


def test_a_model_without_a_map_gives_none(tmp_path: Path) -> None:
    predictor = Predictor.open(write_bundle(tmp_path / "b", with_map=False))
    assert not predictor.engine.has_map
    assert predictor.predict(grey(7)).anomaly_map is None


class _Broken:
    """An engine that gives what it is told, to see what a Predictor lets through."""

    name = "broken"
    has_map = True

    def __init__(self, score: float, map_value: float) -> None:
        self._score, self._map_value = score, map_value

    def run(self, images_u8: Any, *, with_map: bool) -> tuple[Any, Any]:
        n = len(images_u8)
        scores = np.full(n, self._score, np.float32)
        return scores, np.full((n, 4, 6), self._map_value, np.float32)


@pytest.mark.parametrize(
    ("score", "map_value", "expected"),
    [
        (np.nan, 1.0, "score nan"),
        (np.inf, 1.0, "score inf"),
        (1.0, np.nan, "a map with NaN"),
        (1.0, -np.inf, "a map with NaN or infinity"),
    ],
)
def test_a_result_that_is_not_finite_is_an_error_not_a_label(
    score: float, map_value: float, expected: str
) -> None:
    predictor = Predictor("c", category(), InputRules(), _Broken(score, map_value))
    with pytest.raises(ImageError, match=expected) as caught:
        predictor.predict(grey(1))
    assert (caught.value.code, caught.value.stage) == ("SCORE_NOT_FINITE", "infer")


def test_a_graph_that_fails_on_a_picture_is_that_pictures_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    # Adding five numbers to the rows works for a width of 5 only.
    five = field(1, 5) + field(2, FLOAT) + field(8, "five") + field(9, bytes(20))
    nodes = (
        node("Add", ["chw", "five"], ["sum"])
        + node("ReduceMax", ["sum"], ["top"], attribute("keepdims", 0))
        + node("Add", ["small", "top"], ["both"])
    )
    data = graph(extra_nodes=nodes, extra=field(5, five), last="both")
    engine = OnnxEngine(model(data), model_spec(), "m.onnx")
    predictor = Predictor("c", category(), InputRules(), engine)
    assert predictor.predict(grey(3, 4, 5)).score == 6.0
    with pytest.raises(ImageError, match=r"shape \(1, 4, 6, 3\)") as caught:
        predictor.predict(grey(3, 4, 6))
    assert (caught.value.code, caught.value.stage) == ("INFERENCE_FAILED", "infer")
    assert capfd.readouterr().err == ""


def test_a_graph_that_gives_another_number_of_scores_is_refused() -> None:
    # `Compress` picks along the batch, so that no shape is known beforehand.
    none = field(1, 1) + field(2, 9) + field(8, "none") + field(9, b"\0")
    nodes = node("Compress", ["small", "none"], ["picked"], attribute("axis", 0))
    data = graph(extra_nodes=nodes, extra=field(5, none), last="picked")
    engine = OnnxEngine(model(data), model_spec(), "m.onnx")
    with pytest.raises(ImageError, match=r"shape \(0,\) for 1 pictures"):
        engine.run(grey(3)[None], with_map=False)


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1
