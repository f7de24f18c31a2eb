"""A tensor stored in an ONNX file: its form is plain, its data as large as it says."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Final

from . import onnx_wire as wire

Numbers = tuple[float, ...]  # whole ones are int

SMALL: Final = 64  # numbers: shapes, pads and scales have fewer
# TensorProto.DataType -> bytes of one number in raw_data. Text, complex and packed
# 4-bit tensors are not for pictures.
_ITEM_BYTES: Final = {
    **dict.fromkeys((2, 3, 9), 1),  # uint8, int8, bool
    **dict.fromkeys((4, 5, 10, 16), 2),  # uint16, int16, float16, bfloat16
    **dict.fromkeys((1, 6, 12), 4),  # float, int32, uint32
    **dict.fromkeys((7, 11, 13), 8),  # int64, double, uint64
}
_FLOAT: Final = 1
_INT64: Final = 7


@dataclass(slots=True)
class TensorFacts:
    """What the walker found in one TensorProto."""

    name: str = ""
    dtype: int = 0
    is_external: bool = False
    has_metadata: bool = False
    numbers: Numbers | None = None  # of a small int64 or float tensor


def walk_tensor(view: memoryview) -> TensorFacts:
    """Give the facts of one tensor.

    Raises:
        ValueError: it is damaged, of a type that no graph of ours has, or its data
            are not as many as its dims say.
    """
    facts = TensorFacts()
    dims: list[int] = []
    raw: memoryview | None = None
    wholes: list[int] = []
    floats: list[float] = []
    count = 0  # of typed data
    for number, integer, value in wire.fields(view, wire.TENSOR):
        if number == 1:
            dims += wire.whole_numbers(integer, value, most=SMALL + 1)
        elif number == 2:
            facts.dtype = integer
        elif number == 8:
            facts.name = wire.text(value)
        elif number == 9:
            raw = value
        elif number in (5, 7, 11):  # int32_data, int64_data, uint64_data
            count += wire.count_packed(value) if value else 1
            if number == 7 and len(wholes) <= SMALL:
                wholes += wire.whole_numbers(integer, value, most=SMALL + 1)
        elif number in (4, 10):  # float_data, double_data
            count += len(value) // (4 if number == 4 else 8)
            if number == 4 and len(floats) <= SMALL:
                floats += floats_of(value, 4, most=SMALL + 1)
        elif number == 13 or (number == 14 and integer != 0):
            facts.is_external = True
        elif number in (12, 16) and len(value):  # doc_string, metadata_props
            facts.has_metadata = True
    if facts.is_external:
        return facts
    _check_size(facts, dims, raw, count)
    if math.prod(dims) <= SMALL:
        if facts.dtype == _INT64:
            kept = struct.unpack(f"<{len(raw) // 8}q", raw) if raw else wholes
            facts.numbers = tuple(kept)
        elif facts.dtype == _FLOAT:
            facts.numbers = tuple(floats_of(raw, 4, most=SMALL) if raw else floats)
    return facts


def _check_size(
    facts: TensorFacts, dims: list[int], raw: memoryview | None, count: int
) -> None:
    name = f'the tensor "{facts.name[:60]}"'
    if facts.dtype not in _ITEM_BYTES:
        raise ValueError(f"{name} is of type {facts.dtype}")
    if len(dims) > SMALL or min(dims, default=0) < 0:
        raise ValueError(f"{name} has the dims {dims[:8]}")
    if raw is not None and count:
        raise ValueError(f"{name} has its data twice")
    item = _ITEM_BYTES[facts.dtype]
    found, unit = (count, "numbers") if raw is None else (len(raw), "bytes")
    expected = math.prod(dims) * (1 if raw is None else item)
    if found != expected:
        raise ValueError(
            f"{name} has {found} {unit} of data, its dims {dims} say {expected}"
        )


def floats_of(view: memoryview, width: int, *, most: int) -> list[float]:
    """Give the first numbers of a repeated float (width 4) or double (8) field."""
    whole = min(len(view) // width, most)
    return list(
        struct.unpack(f"<{whole}{'f' if width == 4 else 'd'}", view[: whole * width])
    )
