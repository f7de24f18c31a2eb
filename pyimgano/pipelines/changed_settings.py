"""What was set otherwise between two results: options, versions, machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from .result_folder import ResultFolder

ENVIRONMENT_KEYS: Final = ("pyimgano", "python", "platform", "machine")


def changed_config(
    a: ResultFolder, b: ResultFolder, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Give the options that differ; between a run and a benchmark, what both know."""
    if a.kind == b.kind:
        return _changes(_flattened(a.config()), _flattened(b.config()))
    before, now = (
        _flattened(
            {
                f"{name}.{key}": result.categories[name].get(key)
                for name in names
                for key in ("detector", "hyper_parameters")
            }
        )
        for result in (a, b)
    )
    return _changes(before, now)


def changed_environment(a: ResultFolder, b: ResultFolder) -> list[dict[str, Any]]:
    """Give the versions and facts of the machine that differ."""
    return _changes(_environment(a), _environment(b))


def _environment(result: ResultFolder) -> dict[str, Any]:
    found = result.environment()
    facts = {key: found.get(key) for key in ENVIRONMENT_KEYS}
    return facts | _flattened({"packages": found.get("packages")})


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"what": key, "a": a.get(key), "b": b.get(key)}
        for key in dict.fromkeys((*a, *b))
        if json.dumps(a.get(key)) != json.dumps(b.get(key))
    ]


def _flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give nested objects as one, with dots in its keys."""
    flat: dict[str, Any] = {}
    for key, member in value.items():
        if isinstance(member, Mapping):
            flat |= _flattened(member, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = member
    return flat
