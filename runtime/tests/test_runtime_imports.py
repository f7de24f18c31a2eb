"""Importing the package, or asking for help, loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pyimgano_runtime

HEAVY = "{'numpy', 'onnxruntime', 'torch', 'cv2'}"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert run(f"import sys, pyimgano_runtime; print({HEAVY} & {{*sys.modules}})") == (
        "set()\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["infer", "--help"], ["check", "-h"], ["info", "-h"], ["--version"]],
)
def test_help_loads_nothing_heavy_and_ends_with_0(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pyimgano_runtime.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit as end: print(end.code, {HEAVY} & {{*sys.modules}})"
    )
    assert run(code).endswith("\n0 set()\n")


@pytest.mark.parametrize("command", ["infer", "check", "info", "calibrate"])
def test_every_command_ends_its_help_with_an_example(command: str) -> None:
    code = f"from pyimgano_runtime.cli import main; main(['{command}', '-h'])"
    assert f"example: pyimgano-runtime {command} " in run(code).splitlines()[-1]


def test_every_public_name_resolves() -> None:
    for name in pyimgano_runtime.__all__:
        assert getattr(pyimgano_runtime, name) is not None
    assert set(pyimgano_runtime.__all__) <= set(dir(pyimgano_runtime))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        pyimgano_runtime.Predicter  # noqa: B018 - the access is the test


def test_a_machine_without_onnxruntime_is_told_what_to_install(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    from tiny_bundle import write_bundle

    folder = write_bundle(tmp_path_factory.mktemp("b"))
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from pyimgano_runtime.cli import main\n"
        f"sys.exit(main(['check', {str(folder)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr.endswith("pip install numpy onnxruntime\n")
    assert "Traceback" not in done.stderr
