"""Nodes that onnxruntime does not survive, found by fuzzing; each with its version."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .onnx_tensors import Numbers

_TERM: Final = r"[A-Za-z]*(?:\.\.\.[A-Za-z]*)?"
_EINSUM: Final = rf"{_TERM}(?:,{_TERM})*(?:->{_TERM})?"
# Operators of as many inputs as one likes: none of them may be left out.
_VARIADIC: Final = frozenset(("Concat", "Einsum", "Max", "Mean", "Min", "Sum"))


@dataclass(slots=True)
class Attribute:
    """An attribute of a node, as far as rules ask for it."""

    name: str = ""
    text: str = ""
    numbers: Numbers | None = None  # where there are a few


def node_problem(
    operator: str,
    attributes: Mapping[str, Attribute],
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> str | None:
    """Why onnxruntime must not see a node, in words; None if it may."""
    # 1.32: a segmentation fault for a Split whose first output has no name, and for a
    # Sum with an input that has none.
    if not all(outputs):
        return "an output has no name"
    if operator in _VARIADIC and not all(inputs):
        return "an input has no name"
    if operator == "Einsum":
        # 1.32: the equation "...." makes a session that never comes to an end.
        equation = attributes.get("equation", Attribute()).text
        if not re.fullmatch(_EINSUM, equation.replace(" ", "")):
            return "its equation is damaged"
    if operator == "Split":
        # 1.32: fewer than there are names abort the process (an index out of range).
        told = attributes.get("num_outputs")
        if told is not None and told.numbers != (len(outputs),):
            return f"its num_outputs is not the number of its outputs, {len(outputs)}"
    return None
