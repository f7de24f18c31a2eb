"""Options as data: one declaration gives default, check, schema and table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest

from pyimgano.option_fields import (
    option,
    options_schema,
    options_table,
    read_options,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    depth: int = option(3, "how deep", low=1, high=9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sized:
    size: tuple[int, int] = option(..., "how large", low=4)
    depth: int = option(2, "how deep")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    path: str = option(..., "where")
    mode: str = option("fast", "how", choices=("fast", "slow"))
    rate: float = option(0.5, "how much", low=0.0, high=1.0)
    size: tuple[int, int] = option((8, 8), "how large", low=4, high=64)
    names: tuple[str, ...] = option(("a",), "which")
    on: bool = option(True, "whether")
    limit: int | None = option(None, "at most", low=0)
    extra: dict[str, Any] = option(dict, "more")
    inner: Inner = option(..., "nested")
    maybe: Sized | None = option(None, "a group that may be left out")


def read(payload: Any) -> tuple[Options, list[str]]:
    problems: list[str] = []
    return read_options(Options, payload, "c.json", problems), problems


def problem(**changes: Any) -> str:
    _, problems = read({"path": "p"} | changes)
    assert len(problems) == 1, problems
    return problems[0]


def test_defaults_stand_in_for_what_is_not_named() -> None:
    options, problems = read({"path": "p"})
    assert not problems
    assert options == Options(path="p", inner=Inner())
    assert options.extra == {}


def test_named_values_are_read() -> None:
    options, problems = read(
        {
            "path": "p",
            "mode": "slow",
            "rate": 1,
            "size": [5, 64],
            "names": [],
            "on": False,
            "limit": 0,
            "extra": {"k": [1]},
            "inner": {"depth": 9},
        }
    )
    assert not problems
    assert options == Options(
        path="p",
        mode="slow",
        rate=1.0,
        size=(5, 64),
        names=(),
        on=False,
        limit=0,
        extra={"k": [1]},
        inner=Inner(depth=9),
    )
    assert isinstance(options.rate, float)


def test_a_default_dict_is_not_shared() -> None:
    first, second = read({"path": "p"})[0], read({"path": "p"})[0]
    assert first.extra is not second.extra


def test_a_required_option_is_missed() -> None:
    _, problems = read({})
    assert problems == ["c.json: path: missing; expected a value"]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("path", 3, "a text"),
        ("path", "", "a text"),
        ("mode", "quick", 'expected one of "fast", "slow"'),
        ("rate", "0.5", "a finite number from 0.0 to 1.0"),
        ("rate", 1.01, "a finite number from 0.0 to 1.0"),
        ("rate", True, "a finite number"),
        ("size", [8], "[height, width]"),
        ("size", [8, 8.0], "[height, width]"),
        ("size", [3, 8], "expected sides from 4 to 64"),
        ("size", [8, 65], "expected sides from 4 to 64"),
        ("names", "a", "expected"),
        ("names", [1], "a text"),
        ("on", 1, "true or false"),
        ("limit", -1, "a whole number of at least 0"),
        ("limit", 1.5, "a whole number"),
        ("extra", [], "an object"),
        ("inner", {"depth": 10}, "inner.depth: found 10"),
        ("inner", {"depht": 1}, 'inner.depht: unknown key (did you mean "depth"?)'),
        ("inner", 5, "inner: found 5, expected an object"),
        ("pth", 1, 'pth: unknown key (did you mean "path"?)'),
    ],
)
def test_a_wrong_value_is_one_placed_problem(
    key: str, value: Any, expected: str
) -> None:
    message = problem(**{key: value})
    assert message.startswith(f"c.json: {key}")
    assert expected in message


@pytest.mark.parametrize("key", ["mode", "rate", "size", "names", "on", "extra"])
def test_null_is_no_value_where_one_is_needed(key: str) -> None:
    assert problem(**{key: None}) == f"c.json: {key}: found null, expected a value"


def test_null_is_a_value_where_the_option_may_be_empty() -> None:
    options, problems = read({"path": "p", "limit": None})
    assert not problems
    assert options.limit is None


def test_every_problem_is_found_in_one_reading() -> None:
    _, problems = read({"mode": 1, "rate": 2, "inner": {"depth": 0}, "x": 1})
    assert len(problems) == 5


def test_a_payload_that_is_no_object_is_refused() -> None:
    _, problems = read([1])
    assert "expected an object" in problems[0]


ACCEPTED: list[dict[str, Any]] = [
    {"path": "p"},
    {"path": "p", "limit": None, "size": [4, 64], "inner": {}},
    {"path": "p", "rate": 1, "names": ["a", "b"], "extra": {"k": None}},
]
REFUSED: list[dict[str, Any]] = [
    {},
    {"path": 1},
    {"path": "p", "x": 1},
    {"path": "p", "mode": "quick"},
    {"path": "p", "rate": 1.5},
    {"path": "p", "size": [3, 8]},
    {"path": "p", "size": [8, 65]},
    {"path": "p", "size": [8, 8, 8]},
    {"path": "p", "limit": -1},
    {"path": "p", "on": None},
    {"path": "p", "extra": None},
    {"path": "p", "inner": {"depth": 10}},
    {"path": "p", "inner": {"x": 1}},
    {"path": ""},
]


@pytest.mark.parametrize("payload", ACCEPTED)
def test_schema_and_reader_accept_the_same(payload: dict[str, Any]) -> None:
    jsonschema.validate(payload, options_schema(Options))
    assert read(payload)[1] == []


@pytest.mark.parametrize("payload", REFUSED)
def test_schema_and_reader_refuse_the_same(payload: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(payload, options_schema(Options))
    assert read(payload)[1]


def test_the_table_has_a_row_for_every_option() -> None:
    assert options_table(Options) == [
        ("path", "required", "where"),
        ("mode", '"fast"', "how"),
        ("rate", "0.5", "how much"),
        ("size", "[8, 8]", "how large"),
        ("names", '["a"]', "which"),
        ("on", "true", "whether"),
        ("limit", "null", "at most"),
        ("extra", "{}", "more"),
        ("inner.depth", "3", "how deep"),
        ("maybe", "null", "a group that may be left out"),
        ("maybe.size", "required", "how large"),
        ("maybe.depth", "2", "how deep"),
    ]


@pytest.mark.parametrize("payload", [{"path": "p"}, {"path": "p", "maybe": None}])
def test_a_group_that_may_be_left_out_is_none(payload: Any) -> None:
    options, problems = read(payload)
    assert not problems
    assert options.maybe is None
    jsonschema.validate(payload, options_schema(Options))


def test_a_group_that_is_named_is_read() -> None:
    payload = {"path": "p", "maybe": {"size": [8, 9]}}
    options, problems = read(payload)
    assert not problems
    assert options.maybe == Sized(size=(8, 9))
    jsonschema.validate(payload, options_schema(Options))


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({}, "maybe.size: missing"),
        ({"size": [3, 9]}, "maybe.size: found [3, 9], expected sides of at least 4"),
        ({"size": [8, 9], "deep": 1}, "maybe.deep: unknown key"),
        (7, "maybe: found 7, expected an object"),
    ],
)
def test_a_group_that_is_wrong_is_refused(group: Any, message: str) -> None:
    assert message in problem(maybe=group)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"path": "p", "maybe": group}, options_schema(Options))
