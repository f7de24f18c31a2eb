"""The operator rule: what a bundle's ONNX graph may contain, read without onnx.

A small walker over the protobuf wire format (field numbers from onnx.proto3) collects
operators, domains, opset, tensors and inputs, outputs. The exporter calls the same
function before it writes, so that what leaves is what every device accepts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from .errors import BundleError

# Standard operators that a detector never needs and that a hostile file could use:
# control flow never ends or hides graphs, random breaks reproducibility, sequences and
# optionals defeat the typed contract.
REFUSED: Final = frozenset(
    (
        *("If", "Loop", "Scan"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Multinomial", "Bernoulli"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence"),
        *("ConcatFromSequence", "Optional", "OptionalGetElement"),
        "OptionalHasElement",
    )
)
MAX_NODES: Final = 100_000


@dataclass(slots=True)
class GraphFacts:
    """What the walker found in one ONNX file."""

    opset: int = 0
    domains: set[str] = field(default_factory=set)
    operators: set[str] = field(default_factory=set)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    n_nodes: int = 0
    has_external_data: bool = False
    has_functions: bool = False
    has_subgraphs: bool = False
    has_metadata: bool = False  # doc strings or metadata_props: they carry source paths


def check_graph(data: bytes, where: str) -> GraphFacts:
    """Give the facts of an ONNX file that obeys the operator rule.

    Raises:
        BundleError: not ONNX, or an operator, domain or storage form that bundles do
            not use; all findings at once.
    """
    try:
        facts = _walk_model(memoryview(data))
    except (IndexError, ValueError) as cause:
        raise BundleError(f"{where}: is not an ONNX model ({cause})") from cause
    findings = []
    if not facts.opset or not facts.n_nodes:
        findings.append("has no opset or no nodes")
    foreign = facts.domains - {"", "ai.onnx"}
    if foreign:
        findings.append(f"uses the domains {sorted(foreign)}")
    refused = facts.operators & REFUSED
    if refused:
        findings.append(f"uses the operators {sorted(refused)}")
    if facts.has_functions:
        findings.append("defines functions")
    if facts.has_subgraphs:
        findings.append("has graphs inside of nodes")
    if facts.has_external_data:
        findings.append("keeps tensors outside of the file")
    if findings:
        raise BundleError(
            f"{where}: {'; '.join(findings)}; a bundle holds one plain graph of "
            'standard operators: export it by "pyimgano bundle export"'
        )
    return facts


def _fields(view: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Give (field number, varint value, bytes) of one protobuf message."""
    position, end = 0, len(view)
    while position < end:
        key, position = _varint(view, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(view, position)
            yield number, value, view[:0]
        elif wire == 2:
            length, position = _varint(view, position)
            if position + length > end:
                raise ValueError("a field is longer than the file")
            yield number, 0, view[position : position + length]
            position += length
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
            if position + size > end:
                raise ValueError("a field is longer than the file")
            yield number, 0, view[position : position + size]
            position += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a varint is too long")


def _text(view: memoryview) -> str:
    return bytes(view).decode("utf-8", errors="replace")


def _walk_model(view: memoryview) -> GraphFacts:
    facts = GraphFacts()
    for number, _, value in _fields(view):
        if number == 7:  # graph
            _walk_graph(value, facts)
        elif number == 8:  # opset_import
            domain, version = "", 0
            for key, integer, inner in _fields(value):
                domain = _text(inner) if key == 1 else domain
                version = integer if key == 2 else version
            facts.domains.add(domain)
            if domain in ("", "ai.onnx"):
                facts.opset = version
        elif number in (6, 14):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
        elif number == 25:  # functions
            facts.has_functions = True
    return facts


def _walk_graph(view: memoryview, facts: GraphFacts) -> None:
    initializers = set()
    inputs = []
    for number, _, value in _fields(view):
        if number == 1:  # node
            _walk_node(value, facts)
        elif number == 5:  # initializer
            initializers.add(_walk_tensor(value, facts))
        elif number == 15:  # sparse_initializer
            facts.has_external_data = True
        elif number == 11:  # input
            inputs.append(_first_text(value))
        elif number == 12:  # output
            facts.outputs.append(_first_text(value))
        elif number in (10, 16):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
    facts.inputs += [name for name in inputs if name not in initializers]


def _first_text(view: memoryview) -> str:
    for number, _, value in _fields(view):
        if number == 1:
            return _text(value)
    return ""


def _walk_node(view: memoryview, facts: GraphFacts) -> None:
    facts.n_nodes += 1
    if facts.n_nodes > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} nodes")
    for number, _, value in _fields(view):
        if number == 4:  # op_type
            facts.operators.add(_text(value))
        elif number == 7:  # domain
            facts.domains.add(_text(value))
        elif number == 5:  # attribute
            _walk_attribute(value, facts)
        elif number in (6, 9):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0


def _walk_attribute(view: memoryview, facts: GraphFacts) -> None:
    for number, _, value in _fields(view):
        if number in (6, 11):  # g, graphs
            facts.has_subgraphs = True
        elif number in (5, 10):  # t, tensors
            _walk_tensor(value, facts)


def _walk_tensor(view: memoryview, facts: GraphFacts) -> str:
    name = ""
    for number, integer, value in _fields(view):
        if number == 8:
            name = _text(value)
        elif number == 13 or (number == 14 and integer == 1):
            facts.has_external_data = True
        elif number == 12 and len(value):  # doc_string
            facts.has_metadata = True
    return name
