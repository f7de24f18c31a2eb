"""Help is quick: no heavy import, exit 0, and a real example at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pyimgano.cli import COMMANDS

HEAVY = ("torch", "numpy", "onnxruntime", "onnx", "cv2", "sklearn", "rich")
HELPS = [
    [],
    *([name] for name in COMMANDS),
    *(["bundle", name] for name in ("export", "verify", "accept", "inspect")),
    *(["bundle", name] for name in ("diff", "sign")),
    *(["runs", name] for name in ("list", "show", "compare")),
    *(["manifest", name] for name in ("create", "validate", "stats", "split")),
]

ASK = f"""
import sys
from pyimgano.cli import main
code = main(sys.argv[1:])
heavy = [name for name in {HEAVY!r} if name in sys.modules]
print("code", code, "heavy", heavy)
"""


def ask(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("command", HELPS, ids=lambda c: " ".join(c) or "pyimgano")
def test_help_imports_nothing_heavy_and_ends_with_an_example(
    command: list[str],
) -> None:
    text = ask(ASK, *command, "--help")
    helped, _, verdict = text.rpartition("code ")
    assert verdict.strip() == "0 heavy []"
    program = " ".join(["pyimgano", *command])
    assert f"Usage: {program} " in helped
    if command not in (
        ["bundle"],
        ["manifest"],
        ["runs"],
    ):  # its commands carry the examples
        example = helped.replace("\n", " ").split(program)[2:]
        assert example, f"no example of {program} in its help"


def test_the_version_needs_nothing_heavy() -> None:
    assert "code 0 heavy []" in ask(ASK, "--version")


@pytest.mark.parametrize("command", ["infer", "check", "info", "bench", "calibrate"])
def test_the_runtimes_help_imports_nothing_heavy(command: str) -> None:
    script = f"""
import sys
from pyimgano_runtime.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    print("code", ended.code, "heavy", heavy)
"""
    text = ask(script, command, "--help")
    assert "code 0 heavy []" in text
    assert f"example: pyimgano-runtime {command} " in text.replace("\n", " ")


def test_importing_the_runtime_imports_nothing_heavy() -> None:
    script = f"""
import sys, pyimgano_runtime
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert ask(script).strip() == "[]"
