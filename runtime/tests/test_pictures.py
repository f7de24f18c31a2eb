"""Overlays and map files; these need OpenCV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
import pytest
from picture_files import noise

from pyimgano_runtime.decode import read_image
from pyimgano_runtime.errors import ConfigError
from pyimgano_runtime.infer_config import (
    Calibration,
    CategoryConfig,
    InputRules,
    MapGeometry,
    Thresholds,
)
from pyimgano_runtime.pictures import (
    CONTOUR_RGB,
    heat_overlay,
    overlay_range,
    require_opencv,
    save_map,
    save_overlay,
)
from pyimgano_runtime.predictor import Prediction, Predictor


def peak() -> npt.NDArray[np.float32]:
    y, x = np.mgrid[:64, :64]
    squared = (y - 20) ** 2 + (x - 40) ** 2
    return np.asarray(np.exp(-squared / 50), dtype=np.float32)


def test_a_map_file_holds_the_map_and_appears_complete(tmp_path: Path) -> None:
    save_map(tmp_path / "map.npy", peak())
    assert np.array_equal(np.load(tmp_path / "map.npy"), peak())
    assert [path.name for path in tmp_path.iterdir()] == ["map.npy"]


def test_without_opencv_the_package_to_install_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match="pip install opencv-python-headless"):
        require_opencv()


def test_the_range_starts_at_normal_scores_and_marks_the_threshold() -> None:
    low, high = overlay_range(2.0, [0.5, 1.0, 1.5])
    assert low == 1.0
    assert high == 4.0


@pytest.mark.parametrize("threshold", [-3.0, 0.0, 5.0])
@pytest.mark.parametrize("scores", [[], [9.0, 10.0]])
def test_the_range_is_never_empty(threshold: float, scores: list[float]) -> None:
    low, high = overlay_range(threshold, scores)
    assert low < threshold < high


def test_values_below_the_range_leave_the_picture_as_it_is() -> None:
    pytest.importorskip("cv2")
    image = noise(64, 64)
    overlay = heat_overlay(image, peak(), low=2.0, high=3.0, threshold=None)
    assert np.array_equal(overlay, image)


def test_the_same_value_has_the_same_colour_in_every_picture() -> None:
    pytest.importorskip("cv2")
    image = np.full((64, 64, 3), 100, np.uint8)
    high_peak = peak()
    low_peak = np.minimum(high_peak, np.float32(0.5))
    a = heat_overlay(image, high_peak, low=0.1, high=1.0, threshold=None)
    b = heat_overlay(image, low_peak, low=0.1, high=1.0, threshold=None)
    same = high_peak <= 0.5
    assert np.array_equal(a[same], b[same])
    assert not np.array_equal(a, b)


def test_a_line_surrounds_the_pixels_at_or_above_the_threshold() -> None:
    pytest.importorskip("cv2")
    image = np.full((64, 64, 3), 100, np.uint8)
    overlay = heat_overlay(image, peak(), low=0.0, high=1.0, threshold=0.5)
    line = (overlay == CONTOUR_RGB).all(axis=2)
    assert line.any()
    assert (peak()[line] >= 0.5).all()
    assert not (
        heat_overlay(image, peak(), low=0, high=1, threshold=None) == overlay
    ).all()


def test_what_does_not_fit_is_a_value_error() -> None:
    image = noise(64, 64)
    with pytest.raises(ValueError, match="expected"):
        heat_overlay(image, peak()[:32], low=0, high=1, threshold=None)
    with pytest.raises(ValueError, match="low < high"):
        heat_overlay(image, peak(), low=1, high=1, threshold=None)
    with pytest.raises(ValueError, match="NaN"):
        heat_overlay(image, peak() * np.float32("nan"), low=0, high=1, threshold=None)


class _NoEngine:
    """Stands where a Predictor wants an engine; overlays never run it."""

    name = "none"
    has_map = True

    def run(self, images_u8: object, *, with_map: bool) -> NoReturn:
        raise AssertionError("an overlay must not score anything")


def predictor(pixel_threshold: float | None) -> Predictor:
    settings = CategoryConfig(
        graph=("model",),
        thresholds=Thresholds(0.9, pixel_threshold, ">=", provenance={}),
        calibration=Calibration((0.1, 0.2), n_images=2),
        map_geometry=MapGeometry("stretch", (64, 64)),
    )
    return Predictor("part", settings, InputRules(), _NoEngine(), threshold=0.9)


def prediction(map_f32: npt.NDArray[np.float32] | None) -> Prediction:
    return Prediction(1.0, None, 0.9, "--threshold", "anomaly", map_f32, ms={})


def lines_of(path: Path) -> npt.NDArray[np.bool_]:
    overlay = read_image(path, InputRules())
    return np.asarray((overlay == CONTOUR_RGB).all(axis=2))


def test_an_overlay_file_has_the_size_of_its_picture(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    image = np.full((128, 256, 3), 100, np.uint8)
    save_overlay(tmp_path / "a.png", image, prediction(peak()), predictor(0.5))
    assert lines_of(tmp_path / "a.png").shape == (128, 256)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_an_overlay_is_drawn_with_the_pixel_threshold_where_there_is_one(
    tmp_path: Path,
) -> None:
    pytest.importorskip("cv2")
    image = np.full((64, 64, 3), 100, np.uint8)
    save_overlay(tmp_path / "pixel.png", image, prediction(peak()), predictor(0.5))
    save_overlay(tmp_path / "image.png", image, prediction(peak()), predictor(None))
    assert (
        lines_of(tmp_path / "pixel.png").sum() > lines_of(tmp_path / "image.png").sum()
    )


def test_an_overlay_of_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    image = np.full((64, 64, 3), 100, np.uint8)
    with pytest.raises(ConfigError, match=r"\.png or \.jpg"):
        save_overlay(tmp_path / "a.xyz", image, prediction(peak()), predictor(0.5))
    with pytest.raises(ValueError, match="without a map"):
        save_overlay(tmp_path / "a.png", image, prediction(None), predictor(0.5))
    assert not list(tmp_path.iterdir())
