"""Runs PyImgAno bundles with numpy and onnxruntime only.

    from pyimgano_runtime import Predictor
    prediction = Predictor.open("bundle").predict(image_u8)
    print(prediction.score, prediction.label)

Names load when they are used: importing this package imports neither numpy nor
onnxruntime (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .bundle import Bundle, open_bundle
    from .errors import (
        BundleError,
        ConfigError,
        DatasetError,
        ExportError,
        ImageError,
        ParityError,
        PyimganoError,
    )
    from .geometry import map_to_image
    from .predictor import Prediction, Predictor
    from .streaming import Streamed
    from .thresholds_file import ThresholdsFile, read_thresholds_file

_HOMES = {
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "BundleError": "errors",
    "ConfigError": "errors",
    "DatasetError": "errors",
    "ExportError": "errors",
    "ImageError": "errors",
    "ParityError": "errors",
    "PyimganoError": "errors",
    "map_to_image": "geometry",
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Streamed": "streaming",
    "ThresholdsFile": "thresholds_file",
    "read_thresholds_file": "thresholds_file",
}

__all__ = [
    "Bundle",
    "BundleError",
    "ConfigError",
    "DatasetError",
    "ExportError",
    "ImageError",
    "ParityError",
    "Prediction",
    "Predictor",
    "PyimganoError",
    "Streamed",
    "ThresholdsFile",
    "__version__",
    "map_to_image",
    "open_bundle",
    "read_thresholds_file",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
