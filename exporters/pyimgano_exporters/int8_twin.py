"""A bundle's int8 twin: the same bundle with its graphs quantized, for comparisons.

It lives in a benchmark's workspace only. A bundle that ships needs thresholds and a
parity report of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyimgano_runtime._reader import dump_json
from pyimgano_runtime.atomic import new_folder
from pyimgano_runtime.bundle import Bundle
from pyimgano_runtime.errors import ConfigError, ExportError
from pyimgano_runtime.infer_config import (
    FILE_NAME,
    FileEntry,
    InferConfig,
    select_category,
)
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

from .graph_checks import check_exported
from .quantize import as_the_graph_sees, quantize_graph

Image = npt.NDArray[np.uint8]
ImagesByCategory = Mapping[str, Callable[[], Iterable[Image]]]


def write_int8_twin(
    bundle: Bundle, output: Path, images_by_category: ImagesByCategory
) -> InferConfig:
    """Write a bundle's twin with quantized graphs, complete or absent.

    For a benchmark's workspace, never for devices: thresholds and calibration scores
    are those of the float32 graphs, no answer is proven, and so the twin has no
    goldens, no model card and no measured parity.

    Args:
        bundle: the original; it is only read.
        output: the twin's folder, which must not exist.
        images_by_category: the categories to take; each gives its training normals.

    Raises:
        ConfigError: no category or an unknown one, or the output exists.
        BundleError: a graph of the original was changed.
        ExportError: the bundle is in 8 bits already, a graph cannot be quantized, or
            breaks a rule.
    """
    if not images_by_category:
        raise ConfigError(f"{bundle.root}: no category was asked for; name one")
    if any(m.precision != "fp32" for m in bundle.config.models.values()):
        raise ExportError(
            f"{bundle.root}: is in 8 bits already; name a bundle in float32"
        )
    names = [
        select_category(list(bundle.config.categories), n) for n in images_by_category
    ]
    graphs = _quantized(bundle, names, images_by_category)
    config = _document(bundle, names, graphs)
    payload = config.to_dict()
    InferConfig.from_dict(payload, str(output / FILE_NAME))
    with new_folder(output) as folder:
        for path, data in graphs.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        (folder / FILE_NAME).write_text(dump_json(payload), encoding="utf-8")
    return config


def _quantized(
    bundle: Bundle, names: list[str], images_by_category: ImagesByCategory
) -> dict[str, bytes]:
    """Give path and bytes of each graph that the categories use."""
    graphs = {}
    categories = bundle.config.categories
    for model in _models_of(bundle, names):
        users = [n for n in names if categories[n].graph[0] == model]
        images = chain.from_iterable(
            as_the_graph_sees(images_by_category[name](), categories[name].tiling)
            for name in users
        )
        spec = bundle.config.models[model]
        data = quantize_graph(bundle.read(spec.file), images)
        check_exported(data, replace(spec, precision="int8"), f"{model} in int8")
        graphs[spec.file] = data
    for name in _heads_of(bundle, names):  # they hold little that int8 would speed up
        path = bundle.config.models[name].file
        graphs[path] = bundle.read(path)
    return graphs


def _models_of(bundle: Bundle, names: list[str]) -> list[str]:
    return sorted({bundle.config.categories[name].graph[0] for name in names})


def _heads_of(bundle: Bundle, names: list[str]) -> list[str]:
    graphs = [bundle.config.categories[name].graph for name in names]
    return sorted({model for graph in graphs for model in graph[1:]})


def _document(
    bundle: Bundle, names: list[str], graphs: Mapping[str, bytes]
) -> InferConfig:
    config = bundle.config
    trained = config.training.get("categories", {})
    return replace(
        config,
        bundle=replace(config.bundle, name=f"{config.bundle.name} (int8 twin)"),
        files=tuple(
            FileEntry(path, hashlib.sha256(data).hexdigest(), len(data), "model")
            for path, data in graphs.items()
        ),
        models={
            model: replace(config.models[model], precision="int8")
            for model in _models_of(bundle, names)
        }
        | {model: config.models[model] for model in _heads_of(bundle, names)},
        categories={name: config.categories[name] for name in names},
        parity=replace(
            config.parity,
            reference="not compared",
            candidate=f"onnxruntime {load_onnxruntime().__version__}, int8",
            machine="not compared",
            categories={},
            goldens=(),
        ),
        training={
            **config.training,
            "categories": {n: trained[n] for n in names if n in trained},
            "quantized_from": bundle.sha256,
        },
    )
