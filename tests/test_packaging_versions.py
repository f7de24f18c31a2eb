"""One version everywhere, and a root wheel that carries what it needs."""

from __future__ import annotations

import runpy
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tomllib
from setuptools import find_packages

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION_FILES = (
    "pyimgano/_version.py",
    "exporters/pyimgano_exporters/_version.py",
    "runtime/src/pyimgano_runtime/_version.py",
)


def pyproject(path: str) -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", VERSION_FILES)
def test_every_package_has_the_version_of_the_distribution(path: str) -> None:
    version = runpy.run_path(str(REPOSITORY / path))["__version__"]
    assert version == pyproject("pyproject.toml")["project"]["version"]


def test_both_distributions_have_one_version() -> None:
    root, runtime = (
        pyproject(path)["project"]
        for path in ("pyproject.toml", "runtime/pyproject.toml")
    )
    assert root["version"] == runtime["version"]
    assert (root["name"], runtime["name"]) == ("pyimgano", "pyimgano-runtime")


def test_the_runtime_needs_numpy_and_onnxruntime_only() -> None:
    needs = pyproject("runtime/pyproject.toml")["project"]["dependencies"]
    assert sorted(need.split(">")[0] for need in needs) == ["numpy", "onnxruntime"]


def test_the_root_needs_no_unpublished_distribution() -> None:
    project = pyproject("pyproject.toml")["project"]
    needs = [
        *project["dependencies"],
        *chain.from_iterable(project["optional-dependencies"].values()),
    ]
    assert not [need for need in needs if need.startswith("pyimgano")]
    assert not [need for need in needs if "@" in need]


def test_both_agree_on_what_they_share() -> None:
    root = set(pyproject("pyproject.toml")["project"]["dependencies"])
    runtime = set(pyproject("runtime/pyproject.toml")["project"]["dependencies"])
    assert runtime <= root


def test_the_root_wheel_carries_every_import_package() -> None:
    find = pyproject("pyproject.toml")["tool"]["setuptools"]["packages"]["find"]
    found = {
        package
        for where in find["where"]
        for package in find_packages(str(REPOSITORY / where), include=find["include"])
    }
    on_disk = {
        folder.relative_to(REPOSITORY / where).as_posix().replace("/", ".")
        for where, top in (
            (".", "pyimgano"),
            ("exporters", "pyimgano_exporters"),
            ("runtime/src", "pyimgano_runtime"),
        )
        for folder in [path.parent for path in (REPOSITORY / where / top).rglob("*.py")]
    }
    assert on_disk <= found


def test_the_root_wheel_carries_the_resources() -> None:
    data = pyproject("pyproject.toml")["tool"]["setuptools"]["package-data"]
    carried = {
        path
        for package, where in (
            ("pyimgano", "."),
            ("pyimgano_exporters", "exporters"),
            ("pyimgano_runtime", "runtime/src"),
        )
        for pattern in data[package]
        for path in (REPOSITORY / where / package).glob(pattern)
    }
    resources = {
        path
        for path in (REPOSITORY / "pyimgano/resources").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert resources <= carried


def test_every_console_script_names_a_function_that_exists() -> None:
    from importlib import import_module

    scripts = {
        **pyproject("pyproject.toml")["project"]["scripts"],
        **pyproject("runtime/pyproject.toml")["project"]["scripts"],
    }
    assert {"pyimgano", "pyimgano-train", "pyimgano-benchmark", "pyimgano-runtime"} <= (
        set(scripts)
    )
    for home in scripts.values():
        module, _, function = home.partition(":")
        assert callable(getattr(import_module(module), function))


def test_what_a_build_leaves_beside_the_sources_is_no_installation(
    tmp_path: Path,
) -> None:
    for name in ("pyimgano", "pyimgano_runtime"):
        left = tmp_path / f"{name}.egg-info"
        left.mkdir()
        title = name.replace("_", "-")
        (left / "PKG-INFO").write_text(f"Metadata-Version: 2.4\nName: {title}\n")
    done = _import_with(tmp_path)
    assert done.returncode == 0, done.stderr


def test_two_installed_copies_of_the_runtime_are_refused(tmp_path: Path) -> None:
    for name in ("pyimgano", "pyimgano_runtime"):
        installed = tmp_path / f"{name}-0.6.5.dist-info"
        installed.mkdir()
        title = name.replace("_", "-")
        (installed / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {title}\n")
        (installed / "INSTALLER").write_text("pip\n")
    done = _import_with(tmp_path)
    assert done.returncode == 1
    assert "run: pip uninstall pyimgano-runtime" in done.stderr


def _import_with(folder: Path) -> subprocess.CompletedProcess[str]:
    """Import pyimgano with `folder` first among the places of distributions."""
    places = [str(folder), str(REPOSITORY), str(REPOSITORY / "runtime" / "src")]
    code = f"import sys; sys.path[:0] = {places}; import pyimgano"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
