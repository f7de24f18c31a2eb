"""The quickly made dataclass behaves as the standard one."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from pyimgano_runtime import quick_dataclass
from pyimgano_runtime.infer_config import FileEntry


def make(decorate: Any) -> Any:
    @decorate(frozen=True, slots=True)
    class Part:
        """A part."""

        name: str
        sizes: tuple[int, ...] = (1, 2)
        facts: Any = None
        opened: Any = dataclasses.field(
            default_factory=dict, init=False, repr=False, compare=False
        )

    return Part


QUICK, STANDARD = make(quick_dataclass.dataclass), make(dataclasses.dataclass)


@pytest.mark.parametrize("arguments", [("a",), ("b", (3,)), ("c", (), {"x": 1.5})])
def test_it_is_written_as_the_standard_one(arguments: Any) -> None:
    quick, standard = QUICK(*arguments), STANDARD(*arguments)
    assert repr(quick) == repr(standard)
    assert dataclasses.asdict(quick) == dataclasses.asdict(standard)


def test_equal_values_are_equal_and_hash_alike() -> None:
    assert QUICK("a") == QUICK("a", (1, 2))
    assert QUICK("a") != QUICK("b")
    assert hash(QUICK("a")) == hash(QUICK("a")) == hash(STANDARD("a"))
    assert QUICK("a") != STANDARD("a")
    with pytest.raises(TypeError, match="unhashable"):
        hash(QUICK("a", facts=[]))


def test_a_field_that_is_no_part_of_the_value_is_left_out() -> None:
    used, fresh = QUICK("a"), QUICK("a")
    used.opened["session"] = 1
    assert used == fresh
    assert hash(used) == hash(fresh)
    assert "opened" not in repr(used)


def test_it_cannot_be_changed_and_has_no_other_attributes() -> None:
    part = QUICK("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        part.name = "b"
    assert not hasattr(part, "__dict__")
    assert dataclasses.replace(part, name="b") == QUICK("b")


def test_one_that_holds_itself_can_be_shown() -> None:
    facts: list[Any] = []
    part = QUICK("a", facts=facts)
    facts.append(part)
    assert repr(part).endswith(".Part(name='a', sizes=(1, 2), facts=[...])")


def test_it_goes_through_pickle() -> None:
    entry = FileEntry("models/m.onnx", "0" * 64, 3, "model")
    assert pickle.loads(pickle.dumps(entry)) == entry


def test_no_other_kind_is_made() -> None:
    with pytest.raises(TypeError, match="expected frozen=True"):
        quick_dataclass.dataclass(frozen=False, slots=True)
