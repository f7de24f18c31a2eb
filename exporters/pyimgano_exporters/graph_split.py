"""Cuts graphs of several detectors into the part they share and a head for each.

What is equal is told by content, not by name or by trust: a tensor's digest covers the
operator that makes it, its attributes and the digests of all that goes in, weights
included. Both halves hold the very nodes of the whole graph, so nothing is computed in
another way than before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

FEATURES: Final = "features"
# They move numbers and compute none. No cut behind one: before it, a tensor has its
# plain form, one picture an entry of the first axis.
LAYOUT: Final = frozenset(("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"))


@dataclass(frozen=True, slots=True)
class SplitGraphs:
    """The shared part, and one head for each of the graphs, in their order."""

    backbone: onnx.ModelProto
    heads: tuple[onnx.ModelProto, ...]


def split_graphs(models: Sequence[onnx.ModelProto], image: str) -> SplitGraphs | None:
    """Give the cut of graphs with equal beginnings; None where there is none.

    The tensors at the cut are float32 and called "features", or "features_1" and so on
    where there are several; a head takes those that it needs.

    Args:
        models: whole graphs with one input, made by the same exporter.
        image: name of that input.
    """
    graphs = [_Graph.of(model, image) for model in models]
    shared = set.intersection(*(set(graph.tensors) for graph in graphs))
    endings = [graph.ending(shared) for graph in graphs]
    cut = {digest for ending in endings for digest in ending.cut}
    if not cut or any(ending.needs_size or not ending.cut for ending in endings):
        return None
    first = graphs[0]
    digests = [digest for digest in first.tensors if digest in cut]  # in its order
    if not all(first.is_float(first.tensors[digest]) for digest in digests):
        return None
    names = dict(zip(digests, _names(len(digests)), strict=True))
    heads = [
        graph.head(ending, names) for graph, ending in zip(graphs, endings, strict=True)
    ]
    return SplitGraphs(first.backbone(names), tuple(heads))


def weight_bytes(model: onnx.ModelProto) -> int:
    """Give the bytes of a graph's constants."""
    return sum(tensor.ByteSize() for tensor in model.graph.initializer)


def _names(count: int) -> list[str]:
    if count == 1:
        return [FEATURES]
    return [f"{FEATURES}_{number + 1}" for number in range(count)]


@dataclass(slots=True)
class _Ending:
    """What a graph's outputs need behind the shared part."""

    nodes: set[int] = field(default_factory=set)  # places in the graph's list
    cut: set[str] = field(default_factory=set)  # digests of the tensors it begins with
    needs_size: bool = False  # of the picture, which features do not tell


@dataclass(slots=True)
class _Graph:
    """A graph whose tensors are known by content."""

    model: onnx.ModelProto
    image: str
    maker: dict[str, int]  # tensor -> place of the node that makes it
    digest: dict[str, str]  # tensor -> what it holds
    tensors: dict[str, str]  # digest -> tensor, of those computed from pixels, in order

    @classmethod
    def of(cls, model: onnx.ModelProto, image: str) -> _Graph:
        """Walk a graph in its order, which is that of computation."""
        graph = cls(model, image, {}, {image: "image", "": "nothing"}, {})
        for tensor in model.graph.initializer:
            graph.digest[tensor.name] = _digest_of_constant(tensor)
        from_pixels = {image}
        for place, node in enumerate(model.graph.node):
            digest = _digest_of_node(node, [graph.digest[name] for name in node.input])
            counts = node.op_type != "Shape" and not from_pixels.isdisjoint(node.input)
            for number, name in enumerate(node.output):
                graph.maker[name] = place
                graph.digest[name] = f"{digest}.{number}"
                if counts:
                    from_pixels.add(name)
                    graph.tensors.setdefault(graph.digest[name], name)
        return graph

    def ending(self, shared: AbstractSet[str]) -> _Ending:
        """Walk from the outputs back to the first tensors that others have too."""
        ending = _Ending()
        waiting = [value.name for value in self.model.graph.output]
        while waiting:
            name = waiting.pop()
            place = self.maker.get(name)
            if place is None:
                ending.needs_size |= name == self.image
                continue
            node = self.model.graph.node[place]
            if self.digest[name] in shared and node.op_type not in LAYOUT:
                ending.cut.add(self.digest[name])
            elif place not in ending.nodes:
                ending.nodes.add(place)
                if not self._counts_pictures(node, shared):
                    waiting += node.input
        return ending

    def _counts_pictures(self, node: onnx.NodeProto, shared: AbstractSet[str]) -> bool:
        """Whether a node gives the batch size, which the features tell as well."""
        if node.op_type != "Shape":
            return False
        sides = {attribute.name: attribute.i for attribute in node.attribute}
        source = node.input[0]
        begins = source == self.image or self.digest[source] in shared
        return begins and (sides.get("start", 0), sides.get("end")) == (0, 1)

    def backbone(self, names: Mapping[str, str]) -> onnx.ModelProto:
        """Give the graph from the picture to the named tensors."""
        renamed = {self.tensors[digest]: name for digest, name in names.items()}
        places: set[int] = set()
        waiting = list(renamed)
        while waiting:
            place = self.maker.get(waiting.pop())
            if place is not None and place not in places:
                places.add(place)
                waiting += self.model.graph.node[place].input
        outputs = [_float_tensor(name) for name in names.values()]
        return self._part(
            places, renamed, self.model.graph.input, outputs, graph_name="backbone"
        )

    def head(self, ending: _Ending, names: Mapping[str, str]) -> onnx.ModelProto:
        """Give the graph from the named tensors to the outputs."""
        own = {d: name for d, name in names.items() if d in ending.cut}
        renamed = {self.tensors[digest]: name for digest, name in own.items()}
        features = next(iter(own.values()))
        # What is left of the shared part is a batch size: the features tell it.
        for place in ending.nodes:
            node = self.model.graph.node[place]
            if node.op_type == "Shape" and self._is_before(node.input[0], ending, own):
                renamed[node.input[0]] = features
        inputs = [_float_tensor(name) for name in own.values()]
        return self._part(
            ending.nodes, renamed, inputs, self.model.graph.output, graph_name="head"
        )

    def _is_before(self, name: str, ending: _Ending, own: Mapping[str, str]) -> bool:
        made_here = self.maker.get(name) in ending.nodes
        return not made_here and self.digest[name] not in own

    def _part(
        self,
        places: AbstractSet[int],
        renamed: Mapping[str, str],
        inputs: Iterable[onnx.ValueInfoProto],
        outputs: Iterable[onnx.ValueInfoProto],
        *,
        graph_name: str,
    ) -> onnx.ModelProto:
        """Give a model of some nodes, under other names for some tensors."""
        part = onnx.ModelProto()
        part.CopyFrom(self.model)
        graph = part.graph
        graph.name = graph_name
        for listed in (graph.node, graph.initializer, graph.input, graph.output):
            del listed[:]
        for place in sorted(places):
            node = graph.node.add()
            node.CopyFrom(self.model.graph.node[place])
            node.name = f"n{len(graph.node) - 1}"
            for side in (node.input, node.output):
                for number, name in enumerate(side):
                    side[number] = renamed.get(name, name)
        used = {name for node in graph.node for name in node.input}
        graph.initializer.extend(
            tensor for tensor in self.model.graph.initializer if tensor.name in used
        )
        graph.input.extend(inputs)
        graph.output.extend(outputs)
        return part

    def is_float(self, name: str) -> bool:
        """Whether shape inference says that a tensor is float32."""
        inferred = onnx.shape_inference.infer_shapes(self.model).graph.value_info
        types = {value.name: value.type.tensor_type.elem_type for value in inferred}
        return types.get(name) == onnx.TensorProto.FLOAT


def _float_tensor(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def _digest_of_constant(tensor: onnx.TensorProto) -> str:
    values = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor))
    facts = f"{tensor.data_type} {list(tensor.dims)} ".encode()
    return hashlib.sha256(facts + values.tobytes()).hexdigest()


def _digest_of_node(node: onnx.NodeProto, inputs: Sequence[str]) -> str:
    attributes = sorted(
        attribute.SerializeToString(deterministic=True) for attribute in node.attribute
    )
    # Lengths part what stands side by side: no two nodes give one text.
    parts = [node.domain.encode(), node.op_type.encode()]
    parts += [part.encode() for part in inputs] + attributes
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d " % len(part) + part)
    return digest.hexdigest()
