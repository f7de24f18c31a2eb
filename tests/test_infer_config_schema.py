"""The published JSON Schema and the hand-written reader take the same documents.

The golden documents are broken in many ways, one at a time, and both must agree on the
outcome. `KNOWN` names the few cases where they cannot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs  # the thousands of documents take seconds, not half a minute
import pytest
from jsonschema import Draft202012Validator

from pyimgano.inference.config import parse_document
from pyimgano_runtime.errors import BundleError
from pyimgano_runtime.infer_config import MAJOR, MINOR
from pyimgano_runtime.infer_config_reader import parse_bundle_fields, parse_run_fields

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "pyimgano" / "resources" / "infer_config.schema.json"
GOLDEN = ROOT / "tests" / "golden"

REMOVED = object()
# Of every JSON type.
OTHERS = (None, "", "x", [], {}, [1], ["x"], {"x": 1}, True, -1, 0, 1, 1.0, 1.5, 1e308)
# At the edges of what number fields take.
NUMBERS = (-0.5, 3.5e38, -1e308, 2_000_000_000, 2_000_000_001, 10**20 - 1)
WHOLE = (7, 9, 17, 18, 24, 25)

LONG = "a" * 121
BAD_PATHS = (
    *("../m.onnx", "a/../b", "..", ".", "./a", "a/.", "a//b", "a/", "/", "/etc/a"),
    *("C:/a", "c:a", "a\\b", "~/a", "CON", "con.txt", "a/NUL", "a/Lpt9.onnx/b", "aux"),
    *("a.", "a./b", "a\n", "a\n/b", "\na", "a ", " a", "a b", "é", "-a", "_a", ".a"),
    *(LONG, f"a/{LONG}", "/".join("abcdefghi"), "a\x00", "a\u200b", "a\u2028", "a\r"),
)
GOOD_PATHS = (
    *("a", "a.onnx", "A-1_b..c", LONG[1:], "/".join("abcdefgh"), "a-", "a_", "0"),
    *("console", "com10", "nul_", "a/conx.txt", "lpt", "com.txt"),
)
RUN_PATHS = (
    *("../a", "../../a b.safetensors", "é/ü", "a~", "../~a", "a/../b", "../", "../.."),
    *("a/..", "..a", "...", "../...", "a...", "a\x7f", "a\u0085b", "\u2028", "..\n/a"),
    *("../a\n", "~", "../a/", "..//a"),
)
HASH = "0f" * 32
HASHES = (
    *(HASH, HASH.upper(), f"{HASH}\n", f"\n{HASH}", HASH[1:], f"{HASH}0", "\n", " "),
    *(f"{HASH[1:]}\n", f"{HASH[1:]}g", f"{HASH[1:]}\u0660"),
)
CATEGORY_NAMES = (
    *("", " ", "  ", "a", " a", "a" * 100, "a" * 101, "a\n", "a\nb", "é", "\x00"),
    *("\u2028", "\x85", "\x7f", "//"),
)
KINDS = (
    "bundle",
    "run",
    "image",
    "features",
    "score",
    "anomaly_map",
    "synthetic",
    "real",
    "Run",
)
VERSIONS = (
    "1.1",
    "1.2",
    "1.3",
    "1.4",
    "2.0",
    "0.9",
    "1",
    "1.0.0",
    "01.0",
    "1.0\n",
    "1.00",
    "",
    "\u0661.0",
    1.0,
)


class Case(NamedTuple):
    """One broken document."""

    path: tuple[str | int, ...]
    value: Any
    document: Any
    original: Any  # what stood at the path; None for a key that was added


class Known(NamedTuple):
    """Cases in which schema and fields differ, and why they cannot agree."""

    why: str
    schema_takes: bool
    applies: Callable[[Case], bool]


def head_is_known(document: Any) -> bool:
    """Whether a document is of this format, of a version that is read here."""
    return (
        isinstance(document, dict)
        and document.get("schema") == "pyimgano/infer_config"
        and document.get("schema_version") in ("1.0", "1.1", "1.2", "1.3")
        and document.get("requires") in ([], ["tiling"], ["tiling", "regions"])
    )


def _ends(case: Case, *names: str) -> bool:
    """Whether a case changed one of these fields, or an item of it."""
    return any(name in case.path[-2:] for name in names)


KNOWN = {
    "whole float": Known(
        "1.0 is an integer in JSON Schema; the reader wants it without a point",
        schema_takes=True,
        applies=lambda case: (
            (type(case.original) is int or _ends(case, "shape"))
            and isinstance(case.value, float)
            and case.value.is_integer()
        ),
    ),
    "order": Known(
        "JSON Schema cannot compare two numbers: scores ascend, low <= high",
        schema_takes=True,
        applies=lambda case: _ends(
            case, "image_scores", "by_images", "by_groups", "edges"
        ),
    ),
    "count": Known(
        "JSON Schema cannot compare a length or a sum with a number: n_images, n",
        schema_takes=True,
        applies=lambda case: (
            case.path[-2:] == ("calibration", "n_images")
            or ("reference" in case.path and _ends(case, "n", "n_groups", "counts"))
        ),
    ),
    "contradiction": Known(
        "the reader says these among the contradictions, which are not fields",
        schema_takes=False,
        applies=lambda case: _ends(case, "graph", "categories", "provenance"),
    ),
}


def golden(name: str) -> Any:
    path = GOLDEN / f"infer_config_{MAJOR}.{MINOR}_{name}.json"
    return json.loads(path.read_text("utf-8"))


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """Give a document with another value at a path; the original stays as it is."""
    if not path:
        return value
    key, *rest = path
    copy = document.copy()
    if value is REMOVED and not rest:
        del copy[key]
    elif rest:
        copy[key] = changed(document[key], tuple(rest), value)
    else:
        copy[key] = value
    return copy


def places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give every path of a document with its value, as (path, value)."""
    yield at, value
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    for key, member in members:
        yield from places(member, (*at, key))


def places_once(document: Any) -> Iterator[tuple[Any, ...]]:
    """Give (path, value) of each place, of those with one meaning only the first."""
    seen = set()
    for path, value in places(document):
        # List items, categories, and both provenances are read alike.
        alike = ("categories", "provenance", "producer")
        kind = tuple(
            "*" if isinstance(key, int) or before in alike else key
            for before, key in zip((None, *path), path, strict=False)
        )
        if (kind, type(value)) not in seen:
            seen.add((kind, type(value)))
            yield path, value


def slim(value: Any, *, named: bool = False) -> Any:
    """Give a document with one category, file, golden, ...: as much to break."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return [slim(v) for v in value[: 1 if isinstance(value[0], dict) else 2]]
    if isinstance(value, dict):
        members = list(value.items())[: 1 if named else None]
        return {
            k: slim(v, named=k in ("categories", "models", "producer"))
            for k, v in members
        }
    return value


def cases(name: str) -> Iterator[Case]:
    """Give the documents of a kind broken in every way, one at a time."""
    full, small = slim(golden(name)), golden(f"{name}_minimal")
    for path, value in places_once(full):
        # The other members are minimal: each document is checked in half the time.
        document = {**small, path[0]: full[path[0]]} if path else small
        yield from broken(document, path, value if path else small)


def broken(document: Any, path: tuple[str | int, ...], value: Any) -> Iterator[Case]:
    """Give a document broken in every way at one place."""
    values: list[Any] = [*OTHERS, REMOVED] if path else [*OTHERS]
    if isinstance(value, dict):
        for added in (1, {}):
            at = (*path, "unknown_key")
            yield Case(at, added, changed(document, at, added), None)
    if path[-1:] in (("categories",), ("models",)):
        name = next(iter(value))
        for other in CATEGORY_NAMES:
            renamed = {other if k == name else k: v for k, v in value.items()}
            yield Case((*path, other), value, changed(document, path, renamed), value)
    if path[-1:] in (("path",), ("file",), ("image",), ("map",)):
        values += [*BAD_PATHS, *GOOD_PATHS]
    if path[-2:] == ("checkpoint", "path"):
        values += RUN_PATHS
    if path[-1:] in (("sha256",), ("pixels_sha256",), ("fingerprint",)):
        values += HASHES
    if path[-1:] == ("schema_version",):
        values += VERSIONS
    if path[-1:] == ("kind",):
        values += KINDS
    if type(value) in (int, float):
        values += NUMBERS
    if type(value) is int:
        values += WHOLE
    for other in values:
        if type(other) is not type(value) or other != value:
            yield Case(path, other, changed(document, path, other), value)


def takes(document: Any) -> bool:
    """Whether the reader takes a document."""
    try:
        parse_document(document, "x")
    except BundleError:
        return False
    return True


def fields_take(document: Any) -> bool:
    """Whether the reader takes a document but for fields that contradict each other."""
    if takes(document):
        return True
    if not head_is_known(document):
        return False  # another format, version or kind: no fields are read
    problems: list[str] = []
    parse = parse_run_fields if document.get("kind") == "run" else parse_bundle_fields
    parse(document, "x", problems)
    return not problems


@pytest.fixture(scope="module")
def differences() -> list[tuple[str | None, bool, Case]]:
    """Cases in which schema and fields differ: (name in KNOWN, by schema, case)."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    validator = jsonschema_rs.Draft202012Validator(schema)
    found = []
    for name in ("bundle", "run"):
        for case in cases(name):
            by_schema = validator.is_valid(case.document)
            if by_schema != fields_take(case.document):
                fitting = (
                    key
                    for key, known in KNOWN.items()
                    if known.schema_takes == by_schema and known.applies(case)
                )
                found.append((next(fitting, None), by_schema, case))
    return found


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(json.loads(SCHEMA.read_text("utf-8")))


def test_schema_and_reader_agree_on_every_broken_document(
    differences: list[tuple[str | None, bool, Case]],
) -> None:
    unknown = [
        f"{'/'.join(map(str, case.path))} = {case.value!r:.60}: "
        f"the {'schema' if by_schema else 'reader'} takes it"
        for name, by_schema, case in differences
        if name is None
    ]
    assert not unknown, "\n".join(unknown)


def test_the_reader_refuses_what_only_the_schema_refuses(
    differences: list[tuple[str | None, bool, Case]],
) -> None:
    taken = [case for _, by_schema, case in differences if not by_schema]
    assert taken
    assert not any(takes(case.document) for case in taken)


@pytest.mark.parametrize("name", KNOWN)
def test_each_known_difference_is_there(
    name: str, differences: list[tuple[str | None, bool, Case]]
) -> None:
    assert any(known == name for known, _, _ in differences)


@pytest.mark.parametrize("name", ["bundle", "run"])
def test_an_unknown_key_is_refused_with_the_name_that_was_meant(name: str) -> None:
    document = golden(name)
    misread = []
    for path, value in places_once(document):
        if not path or isinstance(path[-1], int) or names_are_free(path[:-1]):
            continue
        wrong, meant = f"{path[-1]}_", f'unknown key (did you mean "{path[-1]}"?)'
        with pytest.raises(BundleError) as caught:
            parse_document(changed(document, (*path[:-1], wrong), value), "x")
        if f"{wrong}: {meant}" not in str(caught.value):
            misread.append(str(caught.value))
    assert not misread


def names_are_free(path: tuple[str | int, ...]) -> bool:
    """Whether an object names its members as it likes, or has a message of its own."""
    inside = ("training", "extensions", "parameters", "options", "score_summary")
    ends = ("categories", "models", "producer", "provenance")
    is_step = path[:1] in (("preprocess",), ("postprocess",))
    is_inside = any(key in path for key in inside)
    return is_step or is_inside or (bool(path) and path[-1] in ends)


@pytest.mark.parametrize("name", ["bundle_minimal", "run_minimal"])
def test_every_key_of_a_minimal_document_is_needed(name: str) -> None:
    document = golden(name)
    removable = [
        path
        for path, _ in places(document)
        if path and not isinstance(path[-1], int) and not names_are_free(path[:-1])
        if takes(changed(document, path, REMOVED))
    ]
    assert not removable
