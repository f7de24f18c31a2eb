"""The operator rule: what a bundle's ONNX graph may contain, read without onnx.

A small walker collects operators, domains, opset, tensors and inputs, outputs. The
exporter calls the same function before it writes, so that what leaves is what every
device accepts.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from . import onnx_wire as wire
from .errors import BundleError
from .onnx_nodes import Attribute, node_problem
from .onnx_tensors import SMALL, Numbers, TensorFacts, floats_of, walk_tensor

# Standard operators that a detector never needs and that a hostile file could use:
# control flow never ends or hides graphs, random breaks reproducibility, sequences and
# optionals defeat the typed contract, texts and encoded pictures have decoders inside.
REFUSED: Final = frozenset(
    (
        *("If", "Loop", "Scan"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Multinomial", "Bernoulli"),
        *("SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase"),
        *("SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence"),
        *("ConcatFromSequence", "Optional", "OptionalGetElement"),
        *("OptionalHasElement", "ImageDecoder", "TfIdfVectorizer", "RegexFullMatch"),
        *("StringConcat", "StringNormalizer", "StringSplit"),
    )
)
MAX_NODES: Final = 100_000
MAX_FILLED: Final = 16 * 1024 * 1024  # numbers that one operator may make of a constant
# Operators that make as many numbers as an input says, and which input that is. All but
# the first may also be told by the graph itself: a memory limit guards those.
SIZE_INPUTS: Final = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Tile": (1,),
    "Pad": (1,),
    "Resize": (2, 3),
    "CenterCropPad": (1,),
    "Col2Im": (1,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
}
# A type's messages, and the field of each that holds the next.
_TYPE_LEVELS: Final = (
    (wire.TYPE, 1),
    (wire.TENSOR_TYPE, 2),
    (wire.SHAPE, 1),
    (wire.DIM, 0),
)
_MUST_BE_CONSTANT: Final = frozenset(("ConstantOfShape",))


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
    made: list[str] = field(default_factory=list)  # tensors, by what makes them
    constants: dict[str, Numbers] = field(default_factory=dict)  # the small ones
    sizes: list[tuple[str, str]] = field(default_factory=list)  # operator, tensor
    ranges: list[list[str]] = field(default_factory=list)  # start, limit, delta


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
    # onnxruntime would take the last of two tensors of one name.
    twice = [name for name, count in Counter(facts.made).items() if count > 1]
    if twice:
        findings.append(f"makes the tensors {sorted(twice)[:5]} twice")
    findings += _size_findings(facts)
    if findings:
        raise BundleError(
            f"{where}: {'; '.join(findings)}; a bundle holds one plain graph of "
            'standard operators: export it by "pyimgano bundle export"'
        )
    return facts


def _size_findings(facts: GraphFacts) -> list[str]:
    findings = []
    for operator, name in facts.sizes:
        numbers = facts.constants.get(name)
        if numbers is None:
            if operator in _MUST_BE_CONSTANT:
                findings.append(f"has a {operator} whose shape is computed")
            continue
        if operator == "Pad":  # before and after each axis
            half = len(numbers) // 2
            sides = [a + b for a, b in zip(numbers, numbers[half:], strict=False)]
        else:
            sides = list(numbers)
        # An axis has at least one number, whatever the input's size turns out to be.
        # "not <=": NaN is refused too.
        if not math.prod(max(abs(side), 1) for side in sides) <= MAX_FILLED:
            findings.append(
                f"has the operator {operator} with the size {list(numbers)}, expected "
                f"at most {MAX_FILLED:,} numbers"
            )
    for names in facts.ranges:
        told = [number for name in names for number in facts.constants.get(name, ())]
        if len(told) == 3 and not abs(told[1] - told[0]) <= MAX_FILLED * abs(told[2]):
            findings.append(
                f"has a Range of {told} (start, limit, delta), expected at most "
                f"{MAX_FILLED:,} numbers"
            )
    return findings


def _walk_model(view: memoryview) -> GraphFacts:
    facts = GraphFacts()
    for number, _, value in wire.fields(view, wire.MODEL):
        if number == 7:  # graph
            _walk_graph(value, facts)
        elif number == 8:  # opset_import
            _walk_opset(value, facts)
        elif number in (6, 14):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
            if number == 14 and b"ort_config" in bytes(value):
                facts.has_session_config = True
        elif number == 20:  # training_info
            facts.has_subgraphs = True
        elif number == 25:  # functions
            facts.has_functions = True
    return facts


def _walk_opset(view: memoryview, facts: GraphFacts) -> None:
    domain, version = "", 0
    for number, integer, value in wire.fields(view, wire.OPSET):
        domain = wire.text(value) if number == 1 else domain
        version = integer if number == 2 else version
    facts.domains.add(domain)
    if domain in ("", "ai.onnx"):
        if facts.opset:
            raise ValueError("several opsets")
        facts.opset = version


def _walk_graph(view: memoryview, facts: GraphFacts) -> None:
    for number, _, value in wire.fields(view, wire.GRAPH):
        if number == 1:  # node
            _walk_node(value, facts)
        elif number == 5:  # initializer
            tensor = _note_tensor(value, facts)
            facts.made.append(tensor.name)
            if tensor.numbers is not None:
                facts.constants[tensor.name] = tensor.numbers
        elif number == 15:  # sparse_initializer
            facts.has_external_data = True
        elif number == 11:  # input
            facts.inputs.append(_walk_value_info(value, facts))
        elif number == 12:  # output
            facts.outputs.append(_walk_value_info(value, facts))
        elif number == 13:  # value_info
            _walk_value_info(value, facts)
        elif number in (10, 16):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
    facts.made += facts.inputs


def _walk_value_info(view: memoryview, facts: GraphFacts) -> str:
    name = ""
    for number, _, value in wire.fields(view, wire.VALUE_INFO):
        if number == 1:
            name = wire.text(value)
        elif number == 2:
            _check_type(value)
        elif number in (3, 4):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
    return name


def _check_type(view: memoryview, level: int = 0) -> None:
    """Refuse a type that is not a tensor's, or is damaged."""
    kinds, deeper = _TYPE_LEVELS[level]
    for number, _, value in wire.fields(view, kinds):
        if number == deeper:
            _check_type(value, level + 1)


def _walk_node(view: memoryview, facts: GraphFacts) -> None:
    facts.n_nodes += 1
    if facts.n_nodes > MAX_NODES:
        raise ValueError(f"more than {MAX_NODES} nodes")
    inputs, outputs, attributes, operator = [], [], [], ""
    for number, _, value in wire.fields(view, wire.NODE):
        if number == 1:
            inputs.append(wire.text(value))
        elif number == 2:
            outputs.append(wire.text(value))
        elif number == 4:
            operator = wire.text(value)
        elif number == 7:
            facts.domains.add(wire.text(value))
        elif number == 5:
            attributes.append(_walk_attribute(value, facts))
        elif number == 8 and len(value):  # overload: of a function
            facts.has_functions = True
        elif number in (6, 9):  # doc_string, metadata_props
            facts.has_metadata = facts.has_metadata or len(value) > 0
    names = [attribute.name for attribute in attributes]
    if len(set(names)) < len(names):
        raise ValueError(f"a {operator} has an attribute twice")
    reason = node_problem(operator, {a.name: a for a in attributes}, inputs, outputs)
    if reason is not None:
        raise ValueError(f"{operator}: {reason}")
    facts.operators.add(operator)
    facts.made += outputs
    facts.sizes += [
        (operator, inputs[place])
        for place in SIZE_INPUTS.get(operator, ())
        if place < len(inputs) and inputs[place]
    ]
    if operator == "Range":
        facts.ranges.append(inputs)
    if operator == "Constant":
        if len(attributes) != 1 or len(outputs) != 1:
            raise ValueError("a Constant has no or several values")
        numbers = attributes[0].numbers
        if numbers is not None:
            facts.constants[outputs[0]] = numbers


def _walk_attribute(view: memoryview, facts: GraphFacts) -> Attribute:
    found, values = Attribute(), set()
    wholes: list[int] = []
    floats: list[float] = []
    for number, integer, value in wire.fields(view, wire.ATTRIBUTE):
        if number == 1:
            found.name = wire.text(value)
        elif number not in (13, 20):  # doc_string, type
            values.add(number)
        if number == 4:  # s
            found.text = wire.text(value)
        elif number in (6, 11):  # g, graphs
            facts.has_subgraphs = True
        elif number == 21:  # ref_attr_name: of a function
            facts.has_functions = True
        elif number in (22, 23):  # sparse_tensor, sparse_tensors
            facts.has_external_data = True
        elif number in (5, 10):  # t, tensors
            found.numbers = _note_tensor(value, facts).numbers
        elif number in (3, 8) and len(wholes) <= SMALL:  # i, ints
            wholes += wire.whole_numbers(integer, value, most=SMALL + 1)
        elif number in (2, 7) and len(floats) <= SMALL:  # f, floats
            floats += floats_of(value, 4, most=SMALL + 1)
    if len(values) > 1:
        raise ValueError(f"the attribute {found.name} has several values")
    told = tuple(wholes or floats)
    if 0 < len(told) <= SMALL:
        found.numbers = told
    return found


def _note_tensor(view: memoryview, facts: GraphFacts) -> TensorFacts:
    tensor = walk_tensor(view)
    facts.has_external_data = facts.has_external_data or tensor.is_external
    facts.has_metadata = facts.has_metadata or tensor.has_metadata
    return tensor
