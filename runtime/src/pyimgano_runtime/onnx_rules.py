"""The operator rule: what a bundle's ONNX graph may contain, read without onnx.

A small walker over the protobuf wire format (field numbers from onnx.proto3) collects
operators, domains, opset, tensors and inputs, outputs. The exporter calls the same
function before it writes, so that what leaves is what every device accepts.
"""

from __future__ import annotations

import math
import struct
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
MAX_FILLED: Final = 16 * 1024 * 1024  # numbers that one ConstantOfShape may make
MAX_AXES: Final = 16  # of a tensor: int64 tensors up to this size may be shapes
_INT64: Final = 7  # TensorProto.DataType


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
    has_session_config: bool = False  # onnxruntime may take options from the file
    constants: dict[str, list[int]] = field(default_factory=dict)  # small int64 tensors
    filled_shapes: list[str] = field(default_factory=list)  # of ConstantOfShape


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
        findings.append("keeps tensors outside of the file or as sparse ones")
    if facts.has_session_config:
        findings.append("carries settings for the session (ort_config)")
    for name in facts.filled_shapes:
        shape = facts.constants.get(name)
        if shape is None:
            findings.append("has a ConstantOfShape whose shape is computed")
        elif math.prod(shape) > MAX_FILLED:
            findings.append(
                f"has a ConstantOfShape of {shape}, expected at most {MAX_FILLED:,} "
                "numbers"
            )
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
        if key >= 1 << 32:
            # onnxruntime's parser takes the lower 32 bits: a field that it sees and
            # that we would pass by.
            raise ValueError("a field number is out of range")
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
            if number == 14 and b"ort_config" in bytes(value):
                facts.has_session_config = True
        elif number == 20:  # training_info
            facts.has_subgraphs = True
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
    text = ""
    for number, _, value in _fields(view):
        text = _text(value) if number == 1 else text  # the last one counts
    return text


def _walk_node(view: memoryview, facts: GraphFacts) -> None:
    facts.n_nodes += 1
    if facts.n_nodes > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} nodes")
    inputs, outputs, operators = [], [], set()
    for number, _, value in _fields(view):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 4:  # op_type
            operators.add(_text(value))
        elif number == 7:  # domain
            facts.domains.add(_text(value))
        elif number == 5:  # attribute
            _walk_attribute(value, facts, outputs)
        elif number in (6, 9):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
    facts.operators |= operators
    if "ConstantOfShape" in operators:
        facts.filled_shapes += inputs[:1]


def _walk_attribute(view: memoryview, facts: GraphFacts, outputs: list[str]) -> None:
    integers: list[int] = []  # a Constant's value_ints
    for number, integer, value in _fields(view):
        if number in (6, 11):  # g, graphs
            facts.has_subgraphs = True
        elif number in (22, 23):  # sparse_tensor, sparse_tensors
            facts.has_external_data = True
        elif number in (5, 10):  # t, tensors
            _walk_tensor(value, facts, outputs)
        elif number == 8:  # ints
            integers += _integers(integer, value)
    if integers and outputs:
        facts.constants[outputs[0]] = integers


def _walk_tensor(
    view: memoryview, facts: GraphFacts, outputs: list[str] | None = None
) -> str:
    """Note one tensor under its own name, or as the output of a Constant."""
    name, dtype = "", 0
    integers: list[int] = []
    for number, integer, value in _fields(view):
        if number == 2:
            dtype = integer
        elif number == 7:  # int64_data
            integers += _integers(integer, value)
        elif number == 8:
            name = _text(value)
        elif number == 9 and len(value) <= 8 * MAX_AXES:  # raw_data
            whole = len(value) // 8
            integers += struct.unpack(f"<{whole}q", value[: 8 * whole])
        elif number == 13 or (number == 14 and integer != 0):
            facts.has_external_data = True
        elif number == 12 and len(value):  # doc_string
            facts.has_metadata = True
    if dtype == _INT64 and len(integers) <= MAX_AXES:
        facts.constants[outputs[0] if outputs else name] = integers
    return name


def _integers(integer: int, packed: memoryview) -> list[int]:
    """Give the first numbers of a repeated int64 field, packed or not."""
    if not packed:
        return [integer]
    numbers: list[int] = []
    position = 0
    while position < len(packed) and len(numbers) <= MAX_AXES:
        number, position = _varint(packed, position)
        numbers.append(number)
    return numbers
