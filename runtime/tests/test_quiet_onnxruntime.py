"""Nothing is left behind or sent when onnxruntime is imported by us."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_bundle import write_bundle

from pyimgano_runtime.quiet_onnxruntime import SWITCH


def check(bundle: Path, home: Path, **switch: str) -> None:
    """Check a bundle as a process of a user with this home, outside of any CI."""
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "pyimgano_runtime", "check", str(bundle)],
        env=environment | switch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_check_leaves_nothing_in_the_users_folders(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    check(write_bundle(tmp_path / "bundle"), home)
    assert list(home.rglob("*")) == []


def test_a_user_who_switched_it_on_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

    monkeypatch.setenv(SWITCH, "0")
    assert load_onnxruntime().__version__
    assert os.environ[SWITCH] == "0"
