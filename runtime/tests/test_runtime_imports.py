"""Importing the package, or asking for help, loads nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
    [
        *(["--help"], ["infer", "--help"], ["check", "-h"], ["info", "-h"]),
        *(["bench", "-h"], ["--version"]),
    ],
)
def test_help_loads_nothing_heavy_and_ends_with_0(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom pyimgano_runtime.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit as end: print(end.code, {HEAVY} & {{*sys.modules}})"
    )
    assert run(code).endswith("\n0 set()\n")


@pytest.mark.parametrize("command", ["infer", "check", "info", "bench", "calibrate"])
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


def test_a_machine_whose_onnxruntime_does_not_load_is_told_what_to_install(
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
    assert "pip install --force-reinstall onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr


LATE = {
    *("concurrent.futures", "difflib", "shutil", "traceback"),
    *("pyimgano_runtime.calibrate_cli", "pyimgano_runtime.thresholds_file"),
    *("pyimgano_runtime.reload", "pyimgano_runtime.health"),
    *("pyimgano_runtime.onnxruntime_build", "pyimgano_runtime.bench_cli"),
}


def start(folder: Path, code: str) -> str:
    """Run `infer` on one picture of a small bundle between two pieces of code."""
    from tiny_bundle import grey, save_picture, write_bundle

    bundle = write_bundle(folder / "bundle")
    save_picture(folder / "a.png", grey(7))
    command = ["infer", "--bundle", str(bundle), str(folder / "a.png")]
    return run(code.replace("INFER", f"main({command!r})"))


def test_one_picture_waits_for_no_module_that_it_does_not_need(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, onnxruntime\nbefore = {*sys.modules}\n"
        "from pyimgano_runtime.cli import main\nINFER\n"
        f"print(sorted({LATE!r} & ({{*sys.modules}} - before)))"
    )
    assert start(tmp_path, code).splitlines()[-1] == "[]"


def test_every_file_is_opened_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy, onnxruntime, collections\n"
        "from pyimgano_runtime.cli import main\n"
        "opened = collections.Counter()\n"
        "def note(event, facts):\n"
        "    if event == 'open' and isinstance(facts[0], str):\n"
        "        opened[facts[0].rpartition('/')[2]] += 1\n"
        "sys.addaudithook(note)\nINFER\n"
        "print([opened[n] for n in ('infer_config.json', 'tiny.onnx', 'a.png')])"
    )
    assert start(tmp_path, code).splitlines()[-1] == "[1, 1, 1]"


def test_a_prediction_opens_no_file(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pyimgano_runtime import Predictor\n"
        "from pyimgano_runtime.cli import main\n"
        "opened = []\nsys.addaudithook(\n"
        "    lambda event, facts: event == 'open' and opened.append(facts[0]))\n"
        "INFER\n"
        f"predictor = Predictor.open({str(tmp_path / 'bundle')!r})\n"
        f"image = predictor.read({str(tmp_path / 'a.png')!r})\n"
        "predictor.predict(image)\n"
        "opened.clear()\npredictor.predict(image)\npredictor.predict(image)\n"
        "print(opened)"
    )
    assert start(tmp_path, code).splitlines()[-1] == "[]"


def test_garbage_is_collected_again_after_the_start(tmp_path: Path) -> None:
    code = "import gc\nfrom pyimgano_runtime.cli import main\nINFER\n"
    assert start(tmp_path, code + "print(gc.isenabled())").endswith("\nTrue\n")
    off = "import gc; gc.disable()\n" + code + "print(gc.isenabled())"
    assert start(tmp_path, off).endswith("\nFalse\n")
