"""`dataclass(frozen=True, slots=True)`, made in about half of the time.

The standard one compiles `__repr__`, `__eq__` and `__hash__` for every class; with the
30 classes that a prediction needs, that was a tenth of the start of a command. Here
all classes share one of each; everything else is the standard one's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses
    from reprlib import recursive_repr

    def dataclass(*, frozen, slots, kw_only=False):
        """Give what makes a class a frozen dataclass with slots."""
        if not (frozen and slots):
            raise TypeError("expected frozen=True, slots=True: no other kind is made")

        def make(cls):
            made = dataclasses.dataclass(
                frozen=True, slots=True, kw_only=kw_only, repr=False, eq=False
            )(cls)
            made.__repr__, made.__eq__, made.__hash__ = _repr, _eq, _hash
            return made

        return make

    def _values(self):
        fields = dataclasses.fields(self)
        return tuple(getattr(self, f.name) for f in fields if f.compare)

    @recursive_repr()
    def _repr(self):
        told = [f.name for f in dataclasses.fields(self) if f.repr]
        members = ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
        return f"{type(self).__qualname__}({members})"

    def _eq(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash(_values(self))
