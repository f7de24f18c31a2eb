"""Which categories share a backbone, proven: the same bits as their whole graphs give.

A device then holds the weights of the backbone once, whatever the number of categories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import onnx

from pyimgano_runtime.engine import ChainEngine, Engine, OnnxEngine, OnnxSession
from pyimgano_runtime.infer_config import ModelSpec, TensorSpec
from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

from .graph_split import FEATURES, split_graphs, weight_bytes
from .onnx_graph import INPUT

SHARING: Final = ("auto", "never")
# Below it a second file costs a device more than the copies.
LEAST_SHARED_BYTES: Final = 1_000_000
# Two batches and four sizes: what differs between them is a free dimension.
PROBES: Final = ((1, 37, 53, 3), (3, 64, 48, 3), (1, 256, 256, 3), (2, 131, 200, 3))


@dataclass(frozen=True, slots=True)
class Model:
    """One ONNX file of a bundle to be."""

    data: bytes
    spec: ModelSpec


@dataclass(frozen=True, slots=True)
class SharedBackbone:
    """The models that take the place of whole graphs, in the order of these."""

    backbone: Model
    heads: tuple[Model, ...]


def share_backbone(wholes: Sequence[Model], file: str) -> SharedBackbone | None:
    """Give one backbone and a head for each whole graph, or None.

    None where the graphs have no weights worth sharing in common, or where onnxruntime
    gives a score or map another last bit when it runs them in two halves: it joins
    operators across the cut.

    Args:
        file: path of the backbone in the bundle.
    """
    if len(wholes) < 2:
        return None
    parts = split_graphs([onnx.load_from_string(w.data) for w in wholes], INPUT)
    if parts is None or weight_bytes(parts.backbone) < LEAST_SHARED_BYTES:
        return None
    outputs = _measured(parts.backbone)
    if outputs is None:
        return None
    spec = replace(wholes[0].spec, file=file, outputs=tuple(outputs.values()))
    backbone = Model(_told(parts.backbone, outputs), spec)
    heads = []
    for head, whole in zip(parts.heads, wholes, strict=True):
        inputs = {value.name: outputs[value.name] for value in head.graph.input}
        own = replace(whole.spec, inputs=tuple(inputs.values()))
        heads.append(Model(_told(head, inputs), own))
    shared = SharedBackbone(backbone, tuple(heads))
    return shared if _same_bits(wholes, shared) else None


def _measured(backbone: onnx.ModelProto) -> dict[str, TensorSpec] | None:
    """Give what the backbone gives; None if it is no batch of equal shapes."""
    names = [value.name for value in backbone.graph.output]
    session = load_onnxruntime().InferenceSession(
        backbone.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: dict[str, set[tuple[int, ...]]] = {name: set() for name in names}
    for shape in PROBES:
        images = np.zeros(shape, np.uint8)
        values = session.run(names, {INPUT: images})
        for name, value in zip(names, values, strict=True):
            if value.ndim < 2 or len(value) != len(images):
                return None
            found[name].add(value.shape[1:])
    if any(len(shapes) > 1 for shapes in found.values()):
        return None
    return {
        name: TensorSpec(name, FEATURES, "float32", ("batch", *shapes.pop()))
        for name, shapes in found.items()
    }


def _told(model: onnx.ModelProto, tensors: Mapping[str, TensorSpec]) -> bytes:
    """Give a model's bytes with the shapes of its features written down."""
    for value in (*model.graph.input, *model.graph.output):
        if value.name in tensors:
            value.CopyFrom(
                onnx.helper.make_tensor_value_info(
                    value.name, onnx.TensorProto.FLOAT, tensors[value.name].shape
                )
            )
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _same_bits(wholes: Sequence[Model], shared: SharedBackbone) -> bool:
    """Whether halves and whole agree in every bit, on noise of several sizes."""
    backbone = OnnxSession(shared.backbone.data, shared.backbone.spec, "backbone")
    random = np.random.default_rng(0)
    for whole, head in zip(wholes, shared.heads, strict=True):
        name = head.spec.file
        chain = ChainEngine([backbone, OnnxSession(head.data, head.spec, name)])
        engine = OnnxEngine(whole.data, whole.spec, name)
        for shape in PROBES:
            images = random.integers(0, 256, shape, dtype=np.uint8)
            if not same_answer(engine, chain, images):
                return False
    return True


def same_answer(a: Engine, b: Engine, images_u8: npt.NDArray[np.uint8]) -> bool:
    """Whether two engines give equal scores and maps, to the bit."""
    (scores, maps), (others, other_maps) = (
        engine.run(images_u8, with_map=True) for engine in (a, b)
    )
    if maps is None or other_maps is None:
        return maps is other_maps and scores.tobytes() == others.tobytes()
    return (scores.tobytes(), maps.tobytes()) == (
        others.tobytes(),
        other_maps.tobytes(),
    )
