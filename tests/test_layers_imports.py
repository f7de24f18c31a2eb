"""The arrows of the architecture: imports point down only."""

from __future__ import annotations

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
HOMES = {
    "pyimgano": REPOSITORY / "pyimgano",
    "pyimgano_exporters": REPOSITORY / "exporters/pyimgano_exporters",
    "pyimgano_runtime": REPOSITORY / "runtime/src/pyimgano_runtime",
}

# Lower numbers are nearer to the user; a module imports its own row or rows below.
ROWS: dict[str, int] = {
    "cli": 0,
    "workbench": 1,
    "pipelines": 1,
    "scoring": 1,
    "inference": 2,
    "calibration": 2,
    "reporting": 2,
    "detectors": 3,
    "backbones": 3,
    "datasets": 3,
    "metrics": 3,
}
# Small modules that several rows share; they import nothing of ours but the runtime.
SHARED = {
    "_version",
    "option_fields",
    "ray_cluster",
    "terminal_progress",
    "command_errors",
    "finite_range",
    "signing",
    "source_date",
}
# Third-party packages a part may import anywhere, at the top or inside of a function.
RUNTIME_MAY = {"numpy", "onnxruntime", "cv2"}


@cache
def modules(package: str) -> tuple[tuple[str, Path], ...]:
    home = HOMES[package]
    found = []
    for path in sorted(home.rglob("*.py")):
        parts = path.relative_to(home).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found.append((".".join((package, *parts)), path))
    assert found, f"{home} holds no modules"
    return tuple(found)


@cache
def imports(name: str, path: Path) -> tuple[tuple[str, int, bool], ...]:
    """Give (module, line, whether at the top) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_top = set(map(id, tree.body))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = []
    for node in ast.walk(tree):
        top = id(node) in at_top
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            # "from .. import calibration" names a module, not an attribute.
            found += [
                (f"{base}.{alias.name}", node.lineno, top) for alias in node.names
            ]
    return tuple(found)


def part_of(module: str) -> str:
    """Give the part of pyimgano that a module belongs to."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return "cli" if name == "cli" or name.endswith("_cli") else name


def test_the_reader_of_imports_sees_relative_and_nested_ones(tmp_path: Path) -> None:
    path = tmp_path / "runner.py"
    path.write_text("from .. import calibration\ndef f():\n    from .config import x\n")
    assert imports("pyimgano.workbench.runner", path) == (
        ("pyimgano.calibration", 1, True),
        ("pyimgano.workbench.config.x", 3, False),
    )


def test_imports_inside_pyimgano_point_down() -> None:
    wrong = []
    for name, path in modules("pyimgano"):
        own = part_of(name)
        if own == "":
            continue
        for module, line, _ in imports(name, path):
            if module.split(".")[0] != "pyimgano":
                continue
            part = part_of(module)
            if part in SHARED or part in ("", "resources"):
                continue
            if own in SHARED or ROWS[own] > ROWS[part]:
                wrong.append(f"{path.name}:{line}: {own} imports {module}")
    assert not wrong


def test_every_part_of_pyimgano_has_a_row() -> None:
    parts = {part_of(name) for name, _ in modules("pyimgano")} - {"", "resources"}
    assert parts <= set(ROWS) | SHARED


@pytest.mark.parametrize("part", ["detectors", "backbones"])
def test_detectors_know_no_data_sets(part: str) -> None:
    for name, path in modules("pyimgano"):
        if part_of(name) == part:
            known = [module for module, _, _ in imports(name, path)]
            assert not [m for m in known if m.startswith("pyimgano.datasets")], name


def test_data_sets_do_not_import_torch() -> None:
    for name, path in modules("pyimgano"):
        if part_of(name) == "datasets":
            assert not [m for m, _, _ in imports(name, path) if m.startswith("torch")]


def test_pages_and_tables_do_not_import_torch() -> None:
    for name, path in modules("pyimgano"):
        if part_of(name) == "reporting":
            assert not [m for m, _, _ in imports(name, path) if m.startswith("torch")]


def test_only_the_top_rows_import_the_exporters() -> None:
    for name, path in modules("pyimgano"):
        uses = [m for m, _, _ in imports(name, path) if m.startswith("pyimgano_exp")]
        if uses:
            assert part_of(name) in ("cli", "workbench", "pipelines"), name


def test_the_exporters_never_import_pyimgano() -> None:
    for name, path in modules("pyimgano_exporters"):
        roots = {module.split(".")[0] for module, _, _ in imports(name, path)}
        assert "pyimgano" not in roots, name


def test_the_runtime_imports_nothing_else_of_ours() -> None:
    for name, path in modules("pyimgano_runtime"):
        roots = {module.split(".")[0] for module, _, _ in imports(name, path)}
        assert not roots & {"pyimgano", "pyimgano_exporters"}, name


def test_the_runtime_needs_only_numpy_onnxruntime_and_opencv() -> None:
    ours_or_python = set(sys.stdlib_module_names) | {"pyimgano_runtime", "__future__"}
    for name, path in modules("pyimgano_runtime"):
        roots = {module.split(".")[0] for module, _, _ in imports(name, path)}
        assert roots - ours_or_python <= RUNTIME_MAY, name


def test_the_runtime_imports_opencv_inside_of_functions_only() -> None:
    for name, path in modules("pyimgano_runtime"):
        top = [m for m, _, at_top in imports(name, path) if at_top]
        assert not [m for m in top if m.split(".")[0] == "cv2"], name


def test_command_modules_import_nothing_heavy_at_the_top() -> None:
    heavy = {"torch", "numpy", "onnx", "onnxruntime", "cv2", "sklearn", "matplotlib"}
    for name, path in modules("pyimgano"):
        if part_of(name) == "cli":
            top = {m.split(".")[0] for m, _, at_top in imports(name, path) if at_top}
            assert not top & heavy, name


def test_no_module_is_called_after_nothing() -> None:
    nothing = {"utils.py", "common.py", "helpers.py", "misc.py"}
    for package in HOMES:
        assert not {path.name for _, path in modules(package)} & nothing


def test_the_folders_of_the_packages_are_no_packages() -> None:
    assert not (REPOSITORY / "exporters/__init__.py").exists()
    assert not (REPOSITORY / "runtime/__init__.py").exists()
