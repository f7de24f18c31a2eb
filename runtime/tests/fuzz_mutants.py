"""Changes a bundle's document or model so that a reader may stumble over it.

Documents are changed as JSON and as text, models as protobuf and as bytes.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tiny_bundle import (
    FLOAT,
    attribute,
    field,
    graph,
    int64s,
    model,
    node,
    varint,
)

NUMBERS: Final = (
    *(0, 1, -1, 2, 3, 5, 7, 8, 16, 64, 255, 256, 4096, 65_536),
    *(2**31 - 1, 2**31, -(2**31), 2**32, 2**62, 2**63 - 1, -(2**63), 10**10),
)
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, "", "x", "a" * 5000, "../a", "\x00", "\u202e", "NaN", "1e5"),
    *(0, -1, 1, 2**31, 2**63, 10**19, 0.5, -0.0, 1e-320, 1e308, -1e308, 3.5e38),
    *([], {}, [[]], [0], ["a"], {"a": 1}, [1] * 3000, {"": ""}),
)
# All of the standard domain that the rule lets through.
OPERATORS: Final = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention
AveragePool BatchNormalization BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr
BitwiseXor BlackmanWindow Cast CastLike CausalConvWithState Ceil Celu CenterCropPad
Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose
Cos Cosh CumProd CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout
DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor GRU Gather
GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid
HardSwish Hardmax Identity ImageDecoder InstanceNormalization IsInf IsNaN LRN LSTM
LayerNormalization LeakyRelu Less LessOrEqual LinearAttention Log LogSoftmax
LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean
MeanVarianceNormalization MelWeightMatrix Min Mish Mod Mul Neg
NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal
ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu Reshape Resize
ReverseSequence RoiAlign RotaryEmbedding Round STFT ScatterElements ScatterND Selu
Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus
Softsign SpaceToDepth Split Sqrt Squeeze StringConcat StringNormalizer StringSplit Sub
Sum SwiGLU Swish Tan Tanh TensorScatter TfIdfVectorizer ThresholdedRelu Tile TopK
Transpose Trilu Unique Unsqueeze Where Xor
""".split()  # noqa: SIM905 - a list of 180 lines says no more
# Operators that take each other's inputs, so that a mutant gets as far as the kernels.
ALIKE: Final = tuple(
    group.split()
    for group in (
        "Add Sub Mul Div Mod Pow Max Min Sum Mean PRelu Where BitShift Equal Less",
        "Relu Sqrt Abs Neg Exp Log Sigmoid Erf Ceil Floor Round Softmax LogSoftmax "
        "Hardmax Identity Cast Flatten Transpose Squeeze Shape Size NonZero LRN Det "
        "DepthToSpace SpaceToDepth GlobalAveragePool LpNormalization IsNaN Unique",
        "ReduceMin ReduceMax ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 "
        "ReduceLogSumExp ReduceSumSquare ArgMin ArgMax CumSum TopK Squeeze Unsqueeze",
        "MaxPool AveragePool LpPool GlobalMaxPool GlobalLpPool",
        "Conv ConvTranspose MatMul Gemm DeformConv Einsum BatchNormalization",
        "Reshape Expand Tile Pad Resize Gather GatherND GatherElements OneHot Slice "
        "CenterCropPad Compress Trilu Split Concat Unsqueeze EyeLike ConstantOfShape",
    )
)


# Documents


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every value of a document."""
    if at:
        yield at
    pairs: Any = ()
    if len(at) > 80:
        return
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = enumerate(value[:20])
    for key, inner in pairs:
        yield from places(inner, (*at, key))


def holder_of(document: Any, place: tuple[Any, ...]) -> Any:
    """Give the object or list that a place is in."""
    for key in place[:-1]:
        document = document[key]
    return document


def change_document(rng: random.Random, document: Any) -> None:
    """Change one value, name or order of a document."""
    spots = list(places(document))
    if not spots:
        return
    place, other = rng.choice(spots), rng.choice(spots)
    holder, key = holder_of(document, place), place[-1]
    old = json.loads(json.dumps(holder[key]))  # a copy: nothing may hold itself
    kind = rng.randrange(8)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        holder[key] = json.loads(json.dumps(holder_of(document, other)[other[-1]]))
    elif kind == 2 and isinstance(holder, dict):
        holder[rng.choice((str(key)[:-1], str(key) + "s", "extra", ""))] = old
    elif kind == 3 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), old)
    elif kind == 4 and isinstance(old, (int, float)):
        holder[key] = rng.choice((*NUMBERS, -old, old + 1, old * 1e10, float(old)))
    elif kind == 5:
        for _ in range(rng.choice((1, 3, 63, 70, 200))):
            old = [old] if rng.random() < 0.5 else {"a": old}
        holder[key] = old
    elif kind == 6 and isinstance(old, str) and old:
        at = rng.randrange(len(old))
        holder[key] = old[:at] + rng.choice(("/", "..", "\n", "ä", "", "9")) + old[at:]
    else:
        holder[key] = json.loads(json.dumps(rng.choice(VALUES)))  # a copy, again


def change_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flip, cut, repeat or insert bytes."""
    if not data:
        return b"\x00"
    at = rng.randrange(len(data))
    end = min(len(data), at + rng.choice((1, 2, 8, 40, 400)))
    kind = rng.randrange(7)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[end:]
    if kind == 2:
        return data[:at] + data[at:end] * 2 + data[end:]
    if kind == 3:
        return data[:at] + rng.randbytes(end - at) + data[end:]
    if kind == 4:
        piece, to = data[at:end], rng.randrange(len(data))
        return data[:to] + piece + data[to:]
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def mutated_text(rng: random.Random, document: Any) -> bytes:
    """Give a document's bytes with one to three changes."""
    document = json.loads(json.dumps(document))
    kind = rng.random()
    if kind < 0.8:
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            change_document(rng, document)
    text = json.dumps(document).encode()
    if kind > 0.7:
        for _ in range(rng.choice((1, 1, 2))):
            text = change_bytes(rng, text)
    return text


# Models


@dataclass(slots=True)
class Part:
    """One field of a protobuf message."""

    number: int
    wire: int
    value: Any  # int, bytes, or the list of Parts of a message
    kind: str = ""  # of the message within


# Of onnx.proto: message -> field number -> message.
INNER: Final[dict[str, dict[int, str]]] = {
    "model": {7: "graph", 8: "opset"},
    "graph": {1: "node", 5: "tensor", 11: "info", 12: "info", 13: "info"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor"},
    "info": {2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "dim"},
}


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Give a whole number and the position behind it."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def parsed(data: bytes, kind: str = "model") -> list[Part]:
    """Give the parts of a whole message."""
    parts, at = [], 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        value: Any
        if wire == 0:
            value, at = read_varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                length, at = read_varint(data, at)
            value, at = data[at : at + length], at + length
            if wire == 2 and number in INNER.get(kind, {}):
                value = parsed(value, INNER[kind][number])
        inner = INNER[kind][number] if isinstance(value, list) else ""
        parts.append(Part(number, wire, value, inner))
    return parts


def written(parts: list[Part]) -> bytes:
    """Give the bytes of a message."""
    out = []
    for part in parts:
        out.append(varint(part.number << 3 | part.wire))
        if part.wire == 0:
            out.append(varint(part.value & (2**64 - 1)))
            continue
        value = written(part.value) if isinstance(part.value, list) else part.value
        out.append((varint(len(value)) if part.wire == 2 else b"") + value)
    return b"".join(out)


def messages(
    parts: list[Part], kind: str = "model"
) -> Iterator[tuple[str, list[Part]]]:
    """Give every message within one, itself included, with its kind."""
    yield kind, parts
    for part in parts:
        if isinstance(part.value, list):
            yield from messages(part.value, part.kind)


def change_model(rng: random.Random, parts: list[Part]) -> None:
    """Change one part of a model in a way that keeps it protobuf."""
    found: dict[str, list[list[Part]]] = {}
    for kind, message in messages(parts):
        if message:
            found.setdefault(kind, []).append(message)
    kind = rng.choice([*found, *["node", "attribute", "tensor"] * 3])
    if kind not in found:
        return
    message = rng.choice(found[kind])
    at = rng.randrange(len(message))
    part = message[at]
    if kind == "tensor" and rng.random() < 0.7:
        change_tensor(rng, message)
        return
    if kind == "node" and rng.random() < 0.6:
        change_node(rng, message, found["node"])
        return
    choice = rng.random()
    if choice < 0.1:
        del message[at]
    elif choice < 0.15:
        message.insert(rng.randrange(len(message) + 1), part)
    elif choice < 0.35:
        twins = [p for m in found[kind] for p in m if p.number == part.number]
        twin = rng.choice(twins if rng.random() < 0.9 else rng.choice(found[kind]))
        message[at] = Part(twin.number, twin.wire, twin.value, twin.kind)
    elif choice < 0.4:
        rng.shuffle(message)
    elif choice < 0.45:
        part.number = rng.choice((*range(1, 30), part.number + 1))
    elif part.wire == 0:
        part.value = rng.choice((*NUMBERS, part.value + 1, part.value - 1))
    elif isinstance(part.value, bytes):
        part.value = change_bytes(rng, part.value)


def change_node(
    rng: random.Random, message: list[Part], nodes: list[list[Part]]
) -> None:
    """Wire a node otherwise, or make another operator of it."""
    texts = [part for part in message if part.number in (1, 2)]
    every = [p.value for n in nodes for p in n if p.number in (1, 2)]
    choice = rng.randrange(5)
    if choice <= 1:
        for part in message:
            if part.number == 4:
                alike = next((k for k in ALIKE if part.value.decode() in k), OPERATORS)
                others = alike if rng.random() < 0.7 else OPERATORS
                part.value = rng.choice(others).encode()
    elif choice == 2 and texts:
        rng.choice(texts).value = rng.choice([*every, b""])
    elif choice == 3:
        message.insert(0, Part(1, 2, rng.choice([*every, b""])))
    else:
        borrowed = [p for n in nodes for p in n if p.number == 5]
        if borrowed:
            message.append(rng.choice(borrowed))


def change_tensor(rng: random.Random, message: list[Part]) -> None:
    """Change a tensor's numbers, or its type or dims so that its data still fit."""
    dtype = next((p.value for p in message if p.number == 2), 0)
    for part in message:
        if part.number == 9 and isinstance(part.value, bytes):
            n = len(part.value)
            if dtype == 7 and n >= 8:
                kept = list(struct.unpack(f"<{n // 8}q", part.value[: n // 8 * 8]))
                for _ in range(rng.choice((1, 1, len(kept)))):
                    kept[rng.randrange(len(kept))] = rng.choice(NUMBERS)
                if rng.random() < 0.3:
                    kept = kept[:-1] if rng.random() < 0.5 else [*kept, kept[0]]
                    dims(message, [len(kept)])
                part.value = struct.pack(f"<{len(kept)}q", *kept)
            elif dtype == 1 and n >= 4:
                odd = rng.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 1e-45))
                at = rng.randrange(n // 4) * 4
                part.value = (
                    part.value[:at] + struct.pack("<f", odd) + part.value[at + 4 :]
                )
                if rng.random() < 0.3:
                    dims(
                        message, rng.choice(([n // 4, 1], [1, 1, n // 4], [n // 4, 0]))
                    )
            return


def dims(message: list[Part], sides: list[int]) -> None:
    """Give a tensor other dims."""
    message[:] = [p for p in message if p.number != 1]
    message[:0] = [Part(1, 0, side) for side in sides]


def mutated_model(rng: random.Random, data: bytes) -> bytes:
    """Give a model's bytes with one to four changes."""
    kind = rng.random()
    if kind < 0.92:
        parts = parsed(data)
        for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
            change_model(rng, parts)
        data = written(parts)
    if kind > 0.9:
        for _ in range(rng.choice((1, 1, 2))):
            data = change_bytes(rng, data)
    return data


def zoo() -> bytes:
    """Give a model with the operators that detectors' graphs are made of."""

    def floats(name: str, *sides: int) -> bytes:
        n = 1
        for side in sides:
            n *= side
        raw = struct.pack(f"<{n}f", *(0.1 * (i % 7) for i in range(n)))
        shape = b"".join(field(1, side) for side in sides)
        return shape + field(2, FLOAT) + field(8, name) + field(9, raw)

    nodes = [
        ("Pad", ["small", "pads"], ["padded"], [attribute("mode", "reflect")]),
        ("Conv", ["padded", "kernel"], ["conv"], [attribute("strides", [1, 1])]),
        ("Relu", ["conv"], ["relu"], []),
        ("MaxPool", ["relu"], ["pool"], [attribute("kernel_shape", [2, 2])]),
        ("AveragePool", ["pool"], ["mean"], [attribute("kernel_shape", [1, 1])]),
        ("Shape", ["mean"], ["shape"], []),
        ("Slice", ["shape", "zero", "one"], ["n"], []),
        ("Concat", ["n", "minus"], ["rows"], [attribute("axis", 0)]),
        ("Reshape", ["mean", "rows"], ["flat"], []),
        ("Transpose", ["flat"], ["turned"], [attribute("perm", [1, 0])]),
        ("Slice", ["turned", "zero", "three", "zero"], ["few"], []),
        ("Transpose", ["few"], ["back"], [attribute("perm", [1, 0])]),
        ("MatMul", ["back", "bank"], ["near"], []),
        ("TopK", ["near", "one"], ["best", "index"], []),
        ("Gather", ["bank", "one"], ["row"], [attribute("axis", 0)]),
        ("ReduceMin", ["near", "one"], ["least"], [attribute("keepdims", 1)]),
        ("ArgMin", ["near"], ["arg"], [attribute("axis", 1)]),
        ("Div", ["shape", "one"], ["half"], []),
        ("Mod", ["shape", "one"], ["rest"], []),
        ("ConstantOfShape", ["three"], ["zeros"], []),
        ("Expand", ["one_f", "three"], ["wide"], []),
        ("Tile", ["one_f", "one"], ["tiles"], []),
        ("Range", ["zero_s", "two_s", "one_s"], ["steps"], []),
        ("Cast", ["steps"], ["steps_f"], [attribute("to", FLOAT)]),
        ("Split", ["bank"], ["left", "right"], [attribute("num_outputs", 2)]),
        ("GatherND", ["bank", "pairs"], ["picked"], []),
        ("Softmax", ["near"], ["soft"], [attribute("axis", 1)]),
        ("Sqrt", ["best"], ["root"], []),
        ("Unsqueeze", ["root", "ends"], ["four"], []),
        ("ReduceSum", ["wide"], ["sum_1"], [attribute("keepdims", 0)]),
        ("ReduceSum", ["tiles"], ["sum_2"], [attribute("keepdims", 0)]),
        ("ReduceSum", ["zeros"], ["sum_3"], [attribute("keepdims", 0)]),
        ("ReduceSum", ["steps_f"], ["sum_4"], [attribute("keepdims", 0)]),
        ("ReduceSum", ["soft"], ["sum_5"], [attribute("keepdims", 0)]),
        ("ReduceSum", ["picked"], ["sum_6"], [attribute("keepdims", 0)]),
        ("Cast", ["rest"], ["rest_f"], [attribute("to", FLOAT)]),
        ("ReduceSum", ["rest_f"], ["sum_7"], [attribute("keepdims", 0)]),
        ("Sum", [f"sum_{i}" for i in range(1, 8)], ["sum"], []),
        ("Mul", ["sum", "none"], ["nothing"], []),
        ("Add", ["small", "nothing"], ["almost"], []),
        ("Mul", ["four", "none"], ["less"], []),
        ("Add", ["almost", "less"], ["last"], []),
    ]
    tensors = [
        *(int64s("pads", [0, 0, 1, 1, 0, 0, 1, 1]), int64s("zero", [0])),
        *(int64s("one", [1]), int64s("three", [3]), int64s("minus", [-1])),
        *(int64s("ends", [2, 3]), int64s("pairs", [0, 0])),
        *(scalar("zero_s", 0), scalar("two_s", 2), scalar("one_s", 1)),
        *(floats("kernel", 2, 1, 3, 3), floats("bank", 3, 4), floats("one_f", 1)),
        field(2, FLOAT) + field(8, "none") + field(9, bytes(4)),
    ]
    body = b"".join(node(op, i, o, *a) for op, i, o, a in nodes)
    extra = b"".join(field(5, tensor) for tensor in tensors)
    return model(graph(extra_nodes=body, extra=extra, last="last"))


def scalar(name: str, value: int) -> bytes:
    """Give an int64 tensor without axes."""
    return field(2, 7) + field(8, name) + field(9, struct.pack("<q", value))
