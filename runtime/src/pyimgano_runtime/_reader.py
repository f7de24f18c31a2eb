"""Strict reading of JSON objects: every problem is found, named and placed.

    fields = Fields(payload, "config.json", problems)
    size = fields.integer("size", default=256, low=8)
    fields.finish()          # unknown keys, each with the closest known name
    raise_all(problems)

A value that is wrong is reported and replaced by a harmless stand-in, so that one
reading finds all problems of a file; the caller raises before using any of it.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from ._version import __version__
from .errors import ConfigError, PyimganoError

MAX_JSON_BYTES: Final = 64 * 1024 * 1024
MAX_JSON_DEPTH: Final = 64
MAX_WHOLE: Final = 2**53 - 1
FLOAT32_MAX: Final = 3.4028234663852886e38

_REQUIRED: Final = object()


class Problem(str):
    """A problem in words that also knows its field and the name that was meant."""

    field: str
    suggestion: str | None

    def __new__(
        cls, message: str, field: str, suggestion: str | None = None
    ) -> Problem:
        """Make the text and note its facts."""
        made = super().__new__(cls, message)
        made.field, made.suggestion = field, suggestion
        return made


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Give the known name that a misspelt one probably stands for."""
    import difflib  # only where something is wrong: 1 ms at the start

    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return match[0] if match else None


def closest(name: str, known: Iterable[str]) -> str:
    """`did you mean "width"?` for a misspelt name, or what is known."""
    names = sorted(known)
    match = nearest(name, names)
    if match is not None:
        return f'did you mean "{match}"?'
    return "known: " + ", ".join(names) if names else "nothing is known here"


def parse_json(
    data: bytes, where: str, *, error: type[PyimganoError] = ConfigError
) -> Any:
    """Give the value of a JSON text: no duplicate keys, NaN, BOM or deep nesting.

    Raises:
        PyimganoError: of the class `error`, with line and column.
    """
    if len(data) > MAX_JSON_BYTES:
        raise error(
            f"{where}: {len(data)} bytes, expected at most {MAX_JSON_BYTES}; "
            "this is not a file that PyImgAno wrote"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as cause:
        raise error(
            f"{where}: byte {cause.start} is not UTF-8; save the file as UTF-8"
        ) from cause
    if text.startswith("\ufeff"):
        raise error(
            f"{where}: starts with a byte-order mark, expected plain UTF-8; "
            'save it as "UTF-8 without BOM"'
        )
    too_deep = (
        f"{where}: nested more than {MAX_JSON_DEPTH} levels deep; "
        "this is not a file that PyImgAno wrote"
    )

    def refuse_constant(name: str) -> float:
        raise error(f"{where}: contains {name}, expected finite numbers only")

    def finite(digits: str) -> float:
        value = float(digits)
        return value if math.isfinite(value) else refuse_constant(digits[:40])

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise error(f'{where}: the key "{twice}" stands twice; keep one of them')
        return result

    def bounded_int(digits: str) -> int:
        if len(digits) > 20:
            raise error(f"{where}: a number of {len(digits)} digits is out of range")
        return int(digits)

    try:
        value = json.loads(
            text,
            parse_constant=refuse_constant,
            object_pairs_hook=unique,
            parse_int=bounded_int,
            parse_float=finite,
        )
    except RecursionError as cause:
        raise error(too_deep) from cause
    except json.JSONDecodeError as cause:
        raise error(
            f"{where}: line {cause.lineno}, column {cause.colno}: {cause.msg}; "
            "expected one JSON value"
        ) from cause
    if _is_deeper(value, MAX_JSON_DEPTH):
        raise error(too_deep)
    if "\\u" in text and _has_half_character(value):
        raise error(
            f"{where}: a text has one half of a \\uD800..\\uDFFF pair, which is no "
            "character; write the text as plain UTF-8"
        )
    return value


def check_version(
    payload: Any,
    where: str,
    *,
    schema: str,
    newest: tuple[int, int],
    made_by: str,
    advice: Callable[[], str],
    error: type[PyimganoError],
) -> None:
    """Refuse a document of another format, or of a version that is not read here.

    Args:
        newest: MAJOR and MINOR; all minors up to it are read.
        made_by: the command that writes such a document.
        advice: what to install where the version is another one.

    Raises:
        PyimganoError: of the class `error`.
    """
    if not isinstance(payload, dict) or payload.get("schema") != schema:
        raise error(
            f'{where}: expected a JSON object with "schema": "{schema}"; '
            f'make one with "{made_by}"'
        )
    version = payload.get("schema_version")
    match = None
    if isinstance(version, str):
        match = re.fullmatch(r"(0|[1-9][0-9]{0,3})\.(0|[1-9][0-9]{0,3})", version)
    major, minor = newest
    if match is None:
        raise error(
            f"{where}: schema_version: found {json.dumps(version)[:60]}, expected a "
            f'text "MAJOR.MINOR", such as "{major}.{minor}"'
        )
    if int(match[1]) != major or int(match[2]) > minor:
        raise error(
            f"{where}: schema_version is {version}, runtime {__version__} reads "
            f"{major}.0 to {major}.{minor}; install {advice()}"
        )


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects are nested more than so many levels deep."""
    layer: list[Any] = [[value]]
    for _ in range(levels + 1):
        members = (v.values() if isinstance(v, dict) else v for v in layer)
        layer = [v for m in members for v in m if isinstance(v, (dict, list))]
    return bool(layer)


def _has_half_character(value: Any) -> bool:
    """Whether some text cannot be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def read_json(path: Path, *, error: type[PyimganoError] = ConfigError) -> Any:
    """Give the value of a JSON file, read strictly (see `parse_json`)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as cause:
        raise error(f"{path}: no such file; check the path") from cause
    except OSError as cause:
        raise error(f"{path}: cannot be read ({cause.strerror})") from cause
    return parse_json(data, str(path), error=error)


def dump_json(value: Any) -> str:
    """Give the JSON text that we write: indented, ordered as built, no NaN."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class Fields:
    """Reads the fields of one JSON object and remembers which were asked for."""

    def __init__(
        self, payload: Any, where: str, problems: list[str], *, at: str = ""
    ) -> None:
        self.where = where
        self.at = at
        self.problems = problems
        self.known: set[str] = set()
        self.payload: dict[str, Any] = {}
        if isinstance(payload, dict):
            self.payload = payload
        else:
            self._wrong(at.rstrip(".") or "the file", payload, "an object {...}")
            self.problems = []  # no more can be said of its members

    def finish(self) -> None:
        """Report every key of the object that no field asked for."""
        for key in self.payload:
            if key not in self.known:
                self.problem(
                    key,
                    f"unknown key ({closest(key, self.known)})",
                    suggestion=nearest(key, self.known),
                )

    def problem(self, key: str, message: str, *, suggestion: str | None = None) -> None:
        """Report a problem of one field in the caller's words."""
        name = f"{self.at}{key}"
        self.problems.append(
            Problem(f"{self.where}: {name}: {message}", name, suggestion)
        )

    def has(self, key: str) -> bool:
        """Whether the key is there and not null; marks it as known."""
        self.known.add(key)
        return self.payload.get(key) is not None

    def raw(self, key: str, default: Any = _REQUIRED) -> Any:
        """The value as it stands, or the default; a missing one is a problem."""
        self.known.add(key)
        if key in self.payload:
            return self.payload[key]
        if default is _REQUIRED:
            self.problem(key, "missing; expected a value")
            return None
        return default

    def text(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        choices: Sequence[str] | None = None,
    ) -> str:
        """A non-empty string, one of `choices` if given."""
        value = self.raw(key, default)
        if value is default:
            return value  # type: ignore[no-any-return]
        if key not in self.payload:
            return ""
        if not isinstance(value, str) or not (value or choices):
            self._wrong(key, value, "a text that is not empty")
            return ""
        if choices is not None and value not in choices:
            expected = ", ".join(f'"{c}"' for c in choices)
            hint = nearest(value, choices)
            tail = f' (did you mean "{hint}"?)' if hint else ""
            self.problem(
                key,
                f'found "{value}", expected one of {expected}{tail}',
                suggestion=hint,
            )
        return value

    def integer(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        low: int | None = None,
        high: int | None = None,
    ) -> int:
        """A whole number within [low, high]."""
        return int(self._number(key, default, low, high, whole=True))

    def number(
        self,
        key: str,
        default: Any = _REQUIRED,
        *,
        low: float | None = None,
        high: float | None = None,
    ) -> float:
        """A finite number within [low, high]."""
        return float(self._number(key, default, low, high, whole=False))

    def maybe(self, key: str, read: Callable[[str], Any]) -> Any:
        """None if the key is absent or null, else what `read` gives."""
        return read(key) if self.has(key) else None

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """true or false."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            if key in self.payload:
                self._wrong(key, value, "true or false")
            return False
        return value

    def array(self, key: str, default: Any = _REQUIRED) -> list[Any]:
        """A list, its items unchecked."""
        value = self.raw(key, default)
        if not isinstance(value, (list, tuple)):
            if key in self.payload:
                self._wrong(key, value, "a list [...]")
            return []
        return list(value)

    def texts(self, key: str, default: Any = _REQUIRED) -> tuple[str, ...]:
        """A list of texts."""
        items = self.array(key, default)
        for index, item in enumerate(items):
            if not isinstance(item, str):
                self._wrong(f"{key}[{index}]", item, "a text")
        return tuple(str(item) for item in items)

    def numbers(self, key: str, default: Any = _REQUIRED) -> tuple[float, ...]:
        """A list of finite numbers."""
        items = self.array(key, default)
        for index, item in enumerate(items):
            if not _is_number(item):
                self._wrong(f"{key}[{index}]", item, "a finite number")
        return tuple(map(float, items)) if all(map(_is_number, items)) else ()

    def size(self, key: str, default: Any = _REQUIRED) -> tuple[int, int]:
        """[height, width], both positive whole numbers."""
        value = self.raw(key, default)
        good = (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(is_side(side) for side in value)
        )
        if not good:
            if key in self.payload:
                self._wrong(key, value, "[height, width], two positive whole numbers")
            return (1, 1)
        return (value[0], value[1])

    def fields(self, key: str, default: Any = _REQUIRED) -> Fields:
        """A nested object, to be read the same way."""
        value = self.raw(key, default)
        missing = value is None and key not in self.payload
        return Fields(
            {} if missing else value,
            self.where,
            [] if missing else self.problems,  # its members are missing by that
            at=f"{self.at}{key}.",
        )

    def each(self, key: str) -> list[tuple[str, Fields]]:
        """The members of an object of objects, as (name, fields)."""
        value = self.raw(key)
        if not isinstance(value, dict):
            if key in self.payload:
                self._wrong(key, value, "an object {...}")
            return []
        return [
            (
                name,
                Fields(item, self.where, self.problems, at=f"{self.at}{key}.{name}."),
            )
            for name, item in value.items()
        ]

    def items(self, key: str, default: Any = _REQUIRED) -> list[Fields]:
        """The members of a list of objects."""
        return [
            Fields(item, self.where, self.problems, at=f"{self.at}{key}[{index}].")
            for index, item in enumerate(self.array(key, default))
        ]

    def _number(
        self,
        key: str,
        default: Any,
        low: float | None,
        high: float | None,
        *,
        whole: bool,
    ) -> float:
        value = self.raw(key, default)
        if key not in self.payload:
            return 0 if value is None else value
        kind = "a whole number" if whole else "a finite number"
        expected = kind + _range_text(low, high)
        good = _is_number(value) and (not whole or _is_whole(value))
        if not good:
            self._wrong(key, value, expected)
            return low if low is not None else 0
        if (low is not None and value < low) or (high is not None and value > high):
            self._wrong(key, value, expected)
        return value  # type: ignore[no-any-return]

    def _wrong(self, key: str, value: Any, expected: str) -> None:
        shown = json.dumps(value, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        place = key if key == self.at.rstrip(".") else f"{self.at}{key}"
        message = f"{self.where}: {place}: found {shown}, expected {expected}"
        self.problems.append(Problem(message, place))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300  # false for NaN and infinity too


def is_side(value: Any) -> bool:
    """Whether this is a positive whole number, as a picture's or tensor's side is."""
    return type(value) is int and 0 < value <= MAX_WHOLE


def _is_whole(value: Any) -> bool:
    """Whether every language can hold it: JavaScript's numbers end at 2^53 - 1."""
    return isinstance(value, int) and abs(value) <= MAX_WHOLE


def _range_text(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f" of at least {low}"
    return "" if high is None else f" of at most {high}"
