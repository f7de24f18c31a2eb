"""The runtime alone, in an environment of its own, runs the committed demo bundle."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent

# onnxruntime and what it pulls; anything else on a device is a mistake of ours.
ALLOWED = {
    *("pyimgano-runtime", "numpy", "onnxruntime", "pip", "setuptools"),
    *("flatbuffers", "packaging", "protobuf", "coloredlogs", "humanfriendly"),
    *("sympy", "mpmath", "ml-dtypes"),
}


@pytest.fixture(scope="module")
def device_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter in whose environment only the runtime was installed."""
    folder = tmp_path_factory.mktemp("device") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", ROOT / "runtime"]
    subprocess.run(install, check=True)
    return python


def run(python: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the runtime from the root folder, with no path to the checkout."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [python, "-m", *map(str, arguments)],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_only_onnxruntime_and_what_it_pulls_is_installed(device_python: Path) -> None:
    listed = json.loads(run(device_python, "pip", "list", "--format=json").stdout)
    names = {entry["name"].lower().replace("_", "-") for entry in listed}
    assert {"pyimgano-runtime", "numpy", "onnxruntime"} <= names
    assert names <= ALLOWED


def test_a_read_only_copy_of_the_demo_bundle_checks_and_infers(
    device_python: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "a device é" / "bundle"
    shutil.copytree(ROOT / "bundles" / "demo", bundle)
    for path in [*bundle.rglob("*"), bundle]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    check = run(device_python, "pyimgano_runtime", "check", bundle)
    assert check.returncode == 0, check.stderr
    assert "3 of 3 goldens agree" in check.stdout
    assert "pip install opencv-python-headless" in check.stdout  # the JPEG golden
    picture = bundle / "golden" / "001.png"
    done = run(device_python, "pyimgano_runtime", "infer", "--bundle", bundle, picture)
    assert done.returncode == 0, done.stderr
    golden = json.loads((bundle / "infer_config.json").read_text("utf-8"))["parity"]
    expected = next(g for g in golden["goldens"] if g["image"] == "golden/001.png")
    score = json.loads(done.stdout)["score"]
    assert score == pytest.approx(expected["score"], rel=1e-5)
