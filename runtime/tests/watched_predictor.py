"""Calls a test back before a predictor reads or judges each picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pyimgano_runtime.predictor import Image, Prediction, Predictor


def watch(
    predictor: Predictor,
    monkeypatch: pytest.MonkeyPatch,
    *,
    on_read: Callable[[Path], object] = lambda path: None,
    on_predict: Callable[[], object] = lambda: None,
) -> None:
    """Call something before each picture is read or judged."""
    read, predict = predictor.read, predictor.predict

    def read_watched(path: Path) -> Image:
        on_read(path)
        return read(path)

    def predict_watched(image_u8: Image, *, with_map: bool = True) -> Prediction:
        on_predict()
        return predict(image_u8, with_map=with_map)

    monkeypatch.setattr(predictor, "read", read_watched)
    monkeypatch.setattr(predictor, "predict", predict_watched)
