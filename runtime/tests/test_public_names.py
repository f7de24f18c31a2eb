"""The names that a program may import from `pyimgano_runtime`."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pyimgano_runtime
from pyimgano_runtime import Predictor, Streamed

NAMES = {
    *("Bundle", "open_bundle"),
    *("Predictor", "Prediction", "Streamed", "map_to_image"),
    *("ThresholdsFile", "read_thresholds_file"),
    *("PyimganoError", "BundleError", "ConfigError", "DatasetError"),
    *("ExportError", "ImageError", "ParityError"),
    "__version__",
}


def test_the_exported_members_are_these_and_no_others() -> None:
    assert set(pyimgano_runtime.__all__) == NAMES
    assert len(pyimgano_runtime.__all__) == len(NAMES)


def test_type_checkers_see_the_names_that_python_gives() -> None:
    tree = ast.parse(Path(pyimgano_runtime.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == pyimgano_runtime._HOMES
    assert set(seen) | {"__version__"} == NAMES


def test_every_public_name_is_told_in_a_docstring() -> None:
    members = [getattr(pyimgano_runtime, name) for name in NAMES - {"__version__"}]
    members += [
        member
        for kind in (Predictor, Streamed)
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_") and callable(member)
    ]
    assert not [member for member in members if not inspect.getdoc(member)]


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(pyimgano_runtime.__file__).with_name("py.typed").is_file()
