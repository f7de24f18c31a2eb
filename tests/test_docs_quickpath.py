"""The quick path is run as it is written, and shows what is really printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "INDUSTRIAL_QUICKPATH.md"


@dataclass
class Step:
    """A command of the page and the lines shown after it."""

    command: str
    shown: list[str] = field(default_factory=list)


def steps() -> list[Step]:
    found: list[Step] = []
    text = PAGE.read_text(encoding="utf-8")
    for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Step(line[2:]))
            else:
                found[-1].shown.append(line)
    return found


def skeleton(line: str) -> str:
    """Give a line without what differs from machine to machine: numbers, spaces."""
    line = re.sub(r"[0-9a-f]{64}", "HASH", line)
    line = re.sub(r"-?[0-9]+(\.[0-9]+)?(e[+-][0-9]+)?", "#", line)
    return re.sub(r"[\s─]+", " ", line).strip()


def test_the_page_has_the_whole_path() -> None:
    text = " ".join(step.command for step in steps())
    for word in ("manifest create", "preflight", "train", "export", "check", "infer"):
        assert word in text


def test_every_command_of_the_page_prints_what_is_shown(tmp_path: Path) -> None:
    """In one folder, in order: each step uses what the ones before have made."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    scripts = tmp_path / "bin"
    scripts.mkdir()
    modules = {
        "pyimgano": "pyimgano.cli",
        "pyimgano-runtime": "pyimgano_runtime.cli",
    }
    for name, module in modules.items():
        # As pip would write them: the tests may run where no script was installed.
        script = f"#!{sys.executable}\nimport sys\nfrom {module} import main\n"
        (scripts / name).write_text(f"{script}sys.exit(main())\n", encoding="utf-8")
        (scripts / name).chmod(0o755)
    places = ("", "exporters", "runtime/src")
    environment = os.environ | {
        "PATH": f"{scripts}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": ":".join(str(ROOT / place) for place in places),
    }
    for step in steps():
        done = subprocess.run(
            step.command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (step.command, done.stderr)
        printed = (done.stdout + done.stderr).replace(f"{tmp_path}/", "")
        lines = [skeleton(line) for line in printed.splitlines()]
        for shown in step.shown:
            start = skeleton(shown.removesuffix("..."))
            assert any(line.startswith(start) for line in lines), (
                f"{step.command}: does not print {shown!r} but\n{printed}"
            )
