"""Protobuf's wire format as onnx.proto uses it, read strictly and without onnx.

A parser lets much pass that no writer writes: the last of two values wins, two halves
of a message are merged, a field of another wire type or an unknown one is skipped.
Each of these would let onnxruntime see another model than we do; all are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Wire types: a whole number, 8 bytes, length and bytes, 4 bytes.
WHOLE: Final = 0
EIGHT: Final = 1
BYTES: Final = 2
FOUR: Final = 5

# Field number -> wire types it may have, whether it repeats, whether it is a text.
Kinds = dict[int, tuple[tuple[int, ...], bool, bool]]


def _message(
    *,
    texts: tuple[int, ...] = (),
    many_texts: tuple[int, ...] = (),
    once: tuple[int, ...] = (),
    many: tuple[int, ...] = (),
    whole: tuple[int, ...] = (),
    many_whole: tuple[int, ...] = (),
) -> Kinds:
    return {
        **dict.fromkeys(texts, ((BYTES,), False, True)),
        **dict.fromkeys(many_texts, ((BYTES,), True, True)),
        **dict.fromkeys(once, ((BYTES,), False, False)),
        **dict.fromkeys(many, ((BYTES,), True, False)),
        **dict.fromkeys(whole, ((WHOLE,), False, False)),
        **dict.fromkeys(many_whole, ((WHOLE, BYTES), True, False)),  # or packed
    }


# Field numbers of onnx.proto; what stands nowhere here is refused.
MODEL: Final = _message(
    texts=(2, 3, 4, 6),  # producer_name, producer_version, domain, doc_string
    once=(7,),  # graph
    many=(8, 14, 20, 25),  # opset_import, metadata_props, training_info, functions
    whole=(1, 5),  # ir_version, model_version
)
OPSET: Final = _message(texts=(1,), whole=(2,))  # domain, version
GRAPH: Final = _message(
    texts=(2, 10),  # name, doc_string
    # node, initializer, input, output, value_info, quantization_annotation,
    # sparse_initializer, metadata_props
    many=(1, 5, 11, 12, 13, 14, 15, 16),
)
VALUE_INFO: Final = _message(texts=(1, 3), once=(2,), many=(4,))  # name, type
TYPE: Final = _message(texts=(6,), once=(1,))  # denotation, tensor_type
TENSOR_TYPE: Final = _message(once=(2,), whole=(1,))  # shape, elem_type
SHAPE: Final = _message(many=(1,))  # dim
DIM: Final = _message(texts=(2, 3), whole=(1,))  # dim_param, denotation, dim_value
NODE: Final = _message(
    texts=(3, 4, 6, 7, 8),  # name, op_type, doc_string, domain, overload
    many_texts=(1, 2),  # input, output
    many=(5, 9),  # attribute, metadata_props
)
ATTRIBUTE: Final = {
    **_message(
        texts=(1, 4, 13, 21),  # name, s, doc_string, ref_attr_name
        many_texts=(9,),  # strings
        once=(5, 6, 14, 22),  # t, g, tp, sparse_tensor
        many=(10, 11, 15, 23),  # tensors, graphs, type_protos, sparse_tensors
        whole=(3, 20),  # i, type
        many_whole=(8,),  # ints
    ),
    2: ((FOUR,), False, False),  # f
    7: ((FOUR, BYTES), True, False),  # floats
}
TENSOR: Final = {
    **_message(
        texts=(8, 12),  # name, doc_string
        once=(9,),  # raw_data
        many=(6, 13, 16),  # string_data, external_data, metadata_props
        whole=(2, 14),  # data_type, data_location
        many_whole=(1, 5, 7, 11),  # dims, int32_data, int64_data, uint64_data
    ),
    4: ((FOUR, BYTES), True, False),  # float_data
    10: ((EIGHT, BYTES), True, False),  # double_data
}


def fields(view: memoryview, kinds: Kinds) -> Iterator[tuple[int, int, memoryview]]:
    """Give (field number, whole number, bytes) of each field of one message.

    Raises:
        ValueError: not protobuf, or a field that this kind of message does not have.
        IndexError: the message ends within a number.
    """
    seen = set()
    position, end = 0, len(view)
    while position < end:
        # Keys and lengths of one byte are most of a file, and opening one waits here.
        key, position = view[position], position + 1
        if key >= 0x80:
            key, position = varint(view, position - 1)
        if key >= 1 << 32:
            # onnxruntime's parser takes the lower 32 bits: a field that it sees and
            # that we would pass by.
            raise ValueError("a field number is out of range")
        number, wire = key >> 3, key & 7
        wires, repeated, is_text = kinds.get(number, ((), False, False))
        if wire not in wires:
            raise ValueError(f"field {number} of wire type {wire} is unknown")
        if number in seen and not repeated:
            raise ValueError(f"field {number} stands twice in one message")
        seen.add(number)
        if wire == WHOLE:
            value, position = varint(view, position)
            yield number, value, view[:0]
            continue
        if wire != BYTES:
            length = 8 if wire == EIGHT else 4
        else:
            length, position = view[position], position + 1
            if length >= 0x80:
                length, position = varint(view, position - 1)
            if not length and len(wires) > 1:
                # No writer makes one; empty bytes mean "not packed" to our readers.
                raise ValueError(f"field {number} is packed and empty")
        if position + length > end:
            raise ValueError("a field is longer than the file")
        value_bytes = view[position : position + length]
        if is_text:
            text(value_bytes)  # onnxruntime's Python layer stumbles over other bytes
        yield number, 0, value_bytes
        position += length


def varint(view: memoryview, position: int) -> tuple[int, int]:
    """Give a whole number of at most 64 bits and the position behind it."""
    value = shift = 0
    while True:
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
        if shift > 63:
            raise ValueError("a varint is too long")
    if value >= 1 << 64:
        raise ValueError("a varint is too long")
    return value, position


def signed(value: int) -> int:
    """Give an int64 from its 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value


def count_packed(view: memoryview) -> int:
    """Give how many varints stand in a packed field."""
    return len(bytes(view).translate(None, bytes(range(0x80, 0x100))))


def whole_numbers(integer: int, packed: memoryview, *, most: int) -> list[int]:
    """Give the first numbers of a repeated int64 field, packed or one by one."""
    if not packed:
        return [signed(integer)]
    numbers: list[int] = []
    position = 0
    while position < len(packed) and len(numbers) < most:
        number, position = varint(packed, position)
        numbers.append(signed(number))
    return numbers


def text(view: memoryview) -> str:
    """Give a text; one that is not UTF-8 is a ValueError."""
    return bytes(view).decode("utf-8")
