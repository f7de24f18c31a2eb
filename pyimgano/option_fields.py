"""Options as data: one declaration gives the default, the check and the docs.

@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    bank_size: int = option(2000, "vectors kept", low=1)

read_options(Config, payload, "config.json", problems)   # strict reader
options_schema(Config)                                   # JSON Schema for editors
options_table(Config)                                    # rows for the docs
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar

from pyimgano_runtime._reader import Fields

T = TypeVar("T")


def option(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
) -> Any:
    """Declare a field of an options dataclass.

    Args:
        default: value when the file does not name it; `...` makes it required. A group
            of options (a nested dataclass) has `...`, or None where it is `| None`.
        doc: one sentence for the table and for editors.
        low, high: inclusive range of a number.
        choices: the texts that are allowed.
    """
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    if default is ...:
        return dataclasses.field(metadata=metadata)
    if isinstance(default, type) or callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def read_options(
    cls: type[T], payload: Any, where: str, problems: list[str], *, at: str = ""
) -> T:
    """Give an options dataclass read from a JSON object.

    Unknown keys, wrong types and values out of range are appended to `problems`; the
    result may be used only if there are none.
    """
    fields = Fields(payload, where, problems, at=at)
    result = read_fields(cls, fields)
    fields.finish()
    return result


def read_fields(cls: type[T], fields: Fields) -> T:
    """Read the declared options of a dataclass from an object's fields."""
    types = typing.get_type_hints(cls)
    values = {
        item.name: _read(fields, item, types[item.name])
        for item in dataclasses.fields(cls)  # type: ignore[arg-type]
    }
    return cls(**values)


def _read(fields: Fields, item: dataclasses.Field[Any], kind: Any) -> Any:
    key, facts = item.name, item.metadata
    kind, optional = _without_none(kind)
    if dataclasses.is_dataclass(kind):
        if optional and not fields.has(key):
            return None
        nested = fields.fields(key, {})
        result = read_fields(typing.cast(type[Any], kind), nested)
        nested.finish()
        return result
    default = _default(item)
    if default is not dataclasses.MISSING and not fields.has(key):
        if key in fields.payload and not optional:
            fields.problem(key, "found null, expected a value")
        return default
    if kind is bool:
        return fields.flag(key)
    if kind is int:
        return fields.integer(key, low=facts["low"], high=facts["high"])
    if kind is float:
        return fields.number(key, low=facts["low"], high=facts["high"])
    if kind is str:
        return fields.text(key, choices=facts["choices"])
    if kind == tuple[int, int]:
        size = fields.size(key)
        low, high = facts["low"] or 1, facts["high"] or float("inf")
        read = fields.payload.get(key) == list(size)  # else already reported
        if read and not all(low <= side <= high for side in size):
            reach = (
                f"of at least {low}"
                if facts["high"] is None
                else f"from {low} to {high}"
            )
            fields.problem(key, f"found {list(size)}, expected sides {reach}")
        return size
    if kind == tuple[str, ...]:
        return fields.texts(key)
    if kind == tuple[float, ...]:
        return fields.numbers(key)
    if typing.get_origin(kind) is dict:
        value = fields.raw(key)
        if not isinstance(value, dict):
            fields.problem(key, "expected an object {...}")
            return {}
        return value
    raise TypeError(f"{item.name}: options of type {kind} are not supported")


def _without_none(kind: Any) -> tuple[Any, bool]:
    if isinstance(kind, UnionType) or typing.get_origin(kind) is typing.Union:
        members = [m for m in typing.get_args(kind) if m is not NoneType]
        if len(members) == 1:
            return members[0], True
    return kind, False


def _default(item: dataclasses.Field[Any]) -> Any:
    if item.default is not dataclasses.MISSING:
        return item.default
    if item.default_factory is not dataclasses.MISSING:
        return item.default_factory()
    return dataclasses.MISSING


def options_schema(cls: Any) -> dict[str, Any]:
    """Give the JSON Schema (draft 2020-12) of an options dataclass."""
    types = typing.get_type_hints(cls)
    properties, required = {}, []
    for item in dataclasses.fields(cls):
        kind, optional = _without_none(types[item.name])
        if dataclasses.is_dataclass(kind):
            schema = options_schema(kind)
            if optional:
                schema = {"anyOf": [schema, {"type": "null"}], "default": None}
        else:
            schema = _schema_of(kind, item.metadata)
            default = _default(item)
            if default is dataclasses.MISSING:
                required.append(item.name)
            else:
                schema["default"] = (
                    list(default) if isinstance(default, tuple) else default
                )
            if optional:
                schema["type"] = [schema["type"], "null"]
        schema["description"] = item.metadata["doc"]
        properties[item.name] = schema
    result: dict[str, Any] = {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }
    if required:
        result["required"] = required
    return result


def _schema_of(kind: Any, facts: Any) -> dict[str, Any]:
    if kind == tuple[int, int]:
        side = {"type": "integer", "minimum": facts["low"] or 1}
        if facts["high"] is not None:
            side["maximum"] = facts["high"]
        return {"type": "array", "items": side, "minItems": 2, "maxItems": 2}
    if kind == tuple[str, ...]:
        return {"type": "array", "items": {"type": "string"}}
    if kind == tuple[float, ...]:
        return {"type": "array", "items": {"type": "number"}}
    if typing.get_origin(kind) is dict:
        return {"type": "object"}
    names = {bool: "boolean", int: "integer", float: "number", str: "string"}
    schema: dict[str, Any] = {"type": names[kind]}
    if kind is str:
        schema["minLength"] = 1
    if facts["low"] is not None:
        schema["minimum"] = facts["low"]
    if facts["high"] is not None:
        schema["maximum"] = facts["high"]
    if facts["choices"] is not None:
        schema["enum"] = list(facts["choices"])
    return schema


def options_table(cls: Any, *, at: str = "") -> list[tuple[str, str, str]]:
    """Give (name, default, meaning) of every option, nested ones by dotted name."""
    types = typing.get_type_hints(cls)
    rows: list[tuple[str, str, str]] = []
    for item in dataclasses.fields(cls):
        kind, optional = _without_none(types[item.name])
        nested = dataclasses.is_dataclass(kind)
        if nested and not optional:
            rows += options_table(kind, at=f"{at}{item.name}.")
            continue
        default = None if nested else _default(item)
        shown = "required" if default is dataclasses.MISSING else _shown(default)
        rows.append((f"{at}{item.name}", shown, item.metadata["doc"]))
        if nested:
            rows += options_table(kind, at=f"{at}{item.name}.")
    return rows


def _shown(value: Any) -> str:
    import json

    return json.dumps(list(value) if isinstance(value, tuple) else value)
