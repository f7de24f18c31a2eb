"""The engines that a benchmark sets side by side, each behind the runtime's Predictor.

torch      the run's checkpoint
onnx       the bundle, run by `pyimgano_runtime` as a device would
onnx-int8  the same bundle, its graph quantized to int8 for this comparison
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pyimgano_runtime.bundle import Bundle, open_bundle
from pyimgano_runtime.errors import ConfigError, ExportError
from pyimgano_runtime.predictor import Predictor

from ..datasets.images import read_ahead
from ..datasets.splits import CategorySplit
from ..inference.torch_predictor import torch_predictor
from ..workbench.artifacts import Run
from ..workbench.trained import load_trained
from .engine_process import EngineSource

ENGINES: Final = ("torch", "onnx", "onnx-int8")
REFERENCE: Final = "torch"  # what the others are compared with
INT8_IMAGES: Final = 64  # train normals that set the ranges of activations


@dataclass(frozen=True, slots=True)
class OpenEngine:
    """An engine that is ready to judge pictures."""

    name: str  # one of ENGINES
    precision: str  # "fp32" or "int8"
    predictor: Predictor
    source: EngineSource  # how a process of its own opens it
    files: tuple[Path, ...]  # the model files that it loads

    @property
    def file_mb(self) -> float:
        """Size of its model files in MB."""
        return sum(path.stat().st_size for path in self.files) / 1e6


def parse_engines(text: str) -> tuple[str, ...]:
    """Give the engines of `--compare torch,onnx`.

    Raises:
        ConfigError: an unknown or repeated engine.
    """
    engines = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = [name for name in engines if name not in ENGINES]
    if unknown or not engines or len(set(engines)) != len(engines):
        raise ConfigError(
            f'--compare: found "{text}", expected some of {",".join(ENGINES)}, each '
            "once"
        )
    return tuple(name for name in ENGINES if name in engines)


def open_torch(run: Run, bundle: Bundle, category: str, threads: int) -> OpenEngine:
    """Give the run's checkpoint, judged by the bundle's thresholds."""
    config = bundle.config
    detector = load_trained(run, category)
    predictor = torch_predictor(
        detector, category, config.categories[category], config.input, bundle=bundle
    )
    source = EngineSource("torch", category, threads, bundle.root, run.folder)
    return OpenEngine("torch", "fp32", predictor, source, (run.checkpoint(category),))


def open_onnx(
    bundle: Bundle, category: str, threads: int, *, name: str = "onnx"
) -> OpenEngine:
    """Give the bundle as a device would run it."""
    predictor = Predictor.open(bundle, category=category, threads=threads)
    graph = bundle.config.categories[category].graph
    specs = [bundle.config.models[model] for model in graph]
    source = EngineSource(name, category, threads, bundle.root, None)
    files = tuple(bundle.root / spec.file for spec in specs)
    return OpenEngine(name, specs[0].precision, predictor, source, files)


def int8_twin(bundle: Bundle, split: CategorySplit, folder: Path) -> Bundle:
    """Give one category of a bundle with its graph quantized, in a scratch folder.

    The ranges of activations come from train normals; no test picture is looked at.

    Raises:
        ExportError: the graph holds nothing that int8 would speed up.
    """
    # Imported on use: the quantizer takes a second to load.
    from pyimgano_exporters.int8_twin import write_int8_twin

    normals = split.train_normals()
    if not normals:
        raise ExportError(
            "the data holds no train normals, which set the ranges of int8; name the "
            "data that trained"
        )
    places = np.linspace(0, len(normals) - 1, min(len(normals), INT8_IMAGES))
    chosen = [normals[place] for place in places.round().astype(int)]
    images: Callable[[], Iterable[npt.NDArray[np.uint8]]] = partial(
        read_ahead, chosen, bundle.config.input
    )
    write_int8_twin(bundle, folder, {split.category: images})
    return open_bundle(folder)
