"""`--provider`: what computes is what was asked for, or it is said or refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from tiny_bundle import edit_document, grey, save_picture, write_bundle

import pyimgano_runtime
from pyimgano_runtime import ConfigError, Predictor, open_bundle
from pyimgano_runtime.check import check_bundle, score_tolerance
from pyimgano_runtime.cli import main
from pyimgano_runtime.onnxruntime_build import install_hint, installed_builds
from pyimgano_runtime.providers import (
    CPU,
    Placement,
    placement_of,
    provider_in_use,
    refused_by_provider,
    resolve_providers,
)

CUDA = "CUDAExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
# It starts everywhere and takes none of our operators: a silent fallback to the CPU.
AZURE = "AzureExecutionProvider"
needs_azure = pytest.mark.skipif(
    AZURE not in onnxruntime.get_available_providers()
    or not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"),
    reason="this onnxruntime has no Azure provider, or does not tell what computes",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def placed(*asked: str, started: tuple[str, ...], **operators: int) -> Placement:
    names = {"cuda": CUDA, "cpu": CPU, "tensorrt": TENSORRT}
    counts = {names[short]: n for short, n in operators.items()}
    return Placement(asked, started, counts)


def test_nothing_asked_for_is_the_cpu() -> None:
    assert resolve_providers(None) == resolve_providers([]) == (CPU,)


@pytest.mark.parametrize("name", ["cpu", "CPU", CPU, CPU.upper()])
def test_a_provider_has_a_short_name_in_any_case(name: str) -> None:
    assert resolve_providers([name, name]) == (CPU,)


def test_one_text_may_hold_the_list() -> None:
    assert resolve_providers("cpu, CPU") == (CPU,)


def test_a_provider_that_this_build_has_not_is_refused_by_the_names_it_has() -> None:
    missing = next(
        short
        for short, full in (("cuda", CUDA), ("coreml", "CoreMLExecutionProvider"))
        if full not in onnxruntime.get_available_providers()
    )
    with pytest.raises(ConfigError, match=rf"--provider {missing}: .*{CPU}"):
        resolve_providers([missing, "cpu"])


def test_a_misspelt_provider_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r'"opnvino".*did you mean "openvino"'):
        resolve_providers(["opnvino"])


@pytest.mark.parametrize("text", ["", "cuda,", "cu da", "cuda;cpu"])
def test_a_provider_that_is_no_name_is_a_usage_error(text: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["check", "bundle", "--provider", text])
    assert caught.value.code == 2


def test_the_preferred_provider_that_takes_some_operators_is_in_use() -> None:
    found = provider_in_use([placed(CUDA, started=(CUDA, CPU), cuda=40, cpu=2)])
    assert (found.name, found.fallback) == (CUDA, "")
    assert found.describe() == f"{CUDA} (40 of 42 operators)"


def test_a_provider_that_did_not_start_is_refused_where_nothing_may_stand_in() -> None:
    with pytest.raises(ConfigError, match=r"could not be started.*,cpu"):
        provider_in_use([placed(CUDA, started=(CPU,), cpu=42)])


def test_a_provider_that_did_not_start_is_said_where_the_cpu_may_stand_in() -> None:
    found = provider_in_use([placed(CUDA, CPU, started=(CPU,), cpu=42)])
    assert found.name == CPU
    assert found.fallback.startswith(f"{CUDA} could not be started")
    assert found.fallback.endswith(f"{CPU} computes in its place")


def test_what_onnxruntime_says_is_told_without_its_source_file() -> None:
    said = "/src/a.cc:729 void ort::Plug(Options&, const More&) Please install it."
    found = refused_by_provider(TENSORRT, said)
    assert found == f"{TENSORRT} could not open the model here (Please install it.)"


def test_the_next_provider_of_the_list_stands_in_before_the_cpu() -> None:
    placement = placed(TENSORRT, CUDA, CPU, started=(CUDA, CPU), cuda=42)
    found = provider_in_use([placement])
    assert found.name == CUDA
    assert TENSORRT in found.fallback


def test_one_of_two_models_on_the_provider_is_enough_and_both_are_counted() -> None:
    backbone = placed(CUDA, started=(CUDA, CPU), cuda=40)
    head = placed(CUDA, started=(CUDA, CPU), cpu=3)
    found = provider_in_use([backbone, head])
    assert found.describe() == f"{CUDA} (40 of 43 operators)"


def test_an_onnxruntime_that_does_not_tell_is_taken_by_what_it_started() -> None:
    assert provider_in_use([Placement((CUDA,), (CUDA, CPU), None)]).name == CUDA
    with pytest.raises(ConfigError, match="could not be started"):
        provider_in_use([Placement((CUDA,), (CPU,), None)])


@dataclass
class Session:
    """What `placement_of` asks of a session, in the versions before 1.24."""

    names: list[str] = field(default_factory=lambda: [CUDA, CPU])

    def get_providers(self) -> list[str]:
        return self.names


def test_a_session_that_does_not_count_its_operators_has_no_count() -> None:
    assert placement_of(Session(), (CUDA,), "").operators is None


def test_the_cpu_is_not_asked_what_it_computes(bundle: Path) -> None:
    in_use = Predictor.open(bundle).provider_in_use
    assert in_use is not None
    assert (in_use.name, in_use.operators) == (CPU, None)


@needs_azure
def test_a_silent_fallback_to_the_cpu_is_refused(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["check", str(bundle)], ["bench", str(bundle)]):
        assert main([*command, "--provider", "azure"]) == 2
        assert f"{AZURE} takes none of this model's" in capsys.readouterr().err


@needs_azure
@pytest.mark.parametrize("flags", [["azure,cpu"], ["azure", "--provider", "cpu"]])
def test_a_fallback_that_was_allowed_is_said(
    bundle: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(bundle), "--json", "--provider", *flags]) == 0
    out, err = capsys.readouterr()
    assert f"warning: --provider: {AZURE} takes none" in err
    report = json.loads(out)
    assert (report["provider"], report["score_tolerance"]) == (CPU, 1e-5)


@needs_azure
def test_infer_says_the_fallback_and_its_rows_name_no_other_provider(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(save_picture(tmp_path / "a.png", grey(7)))
    command = ["infer", "--bundle", str(bundle), picture]
    assert main([*command, "--provider", "azure,cpu"]) == 0
    out, err = capsys.readouterr()
    assert "computes in its place" in err
    assert "provider" not in json.loads(out)


def on_cuda(predictor: Predictor) -> Predictor:
    """Give the predictor as it would be on a machine with that provider."""
    engine: Any = predictor.engine
    engine.provider = provider_in_use([placed(CUDA, started=(CUDA, CPU), cuda=9)])
    return predictor


def test_rows_name_a_provider_that_is_not_the_cpu(bundle: Path, tmp_path: Path) -> None:
    from pyimgano_runtime.rows import predict_files

    good, bad = save_picture(tmp_path / "a.png", grey(7)), tmp_path / "no.png"
    predictor = on_cuda(Predictor.open(bundle))
    rows = [row for row, _, _ in predict_files(predictor, [good, bad], with_map=False)]
    assert [row["ok"] for row in rows] == [True, False]
    assert [row["provider"] for row in rows] == [CUDA, CUDA]


def test_the_cpu_is_held_to_the_strict_tolerance_and_others_to_the_stated_one(
    bundle: Path,
) -> None:
    opened = open_bundle(bundle)
    assert score_tolerance(opened, CPU) == 1e-5
    assert score_tolerance(opened, CUDA) == 1e-3


def test_the_cpu_does_not_get_the_tolerance_of_other_kernels(bundle: Path) -> None:
    def alter(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][0]["score"] *= 1 + 1e-4

    edit_document(bundle, alter)
    assert not check_bundle(open_bundle(bundle), providers=["cpu"]).ok


@pytest.mark.skipif(
    OPENVINO not in onnxruntime.get_available_providers(),
    reason="needs onnxruntime-openvino in place of onnxruntime",
)
def test_openvino_gets_the_tolerance_of_other_kernels_and_its_rows_say_so(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def alter(document: dict[str, Any]) -> None:
        document["parity"]["goldens"][0]["score"] *= 1 + 1e-4

    edit_document(bundle, alter)
    assert main(["check", str(bundle), "--provider", "openvino"]) == 0
    assert "scores within 0.001" in capsys.readouterr().out
    picture = str(save_picture(tmp_path / "a.png", grey(7)))
    command = ["infer", "--bundle", str(bundle), "--provider", "openvino", picture]
    assert main(command) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["provider"], row["score"]) == (OPENVINO, 7.0)


def test_check_says_the_tolerance_that_it_used(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(bundle)]) == 0
    assert "scores within 1e-05, relative (the bundle's tolerance for the CPU)" in (
        capsys.readouterr().out
    )


def test_a_gpu_gets_no_limit_of_addresses_that_nobody_asked_for() -> None:
    from argparse import Namespace

    from pyimgano_runtime.cli import _memory_limit

    for provider, limited in ((["CUDA", "cpu"], False), (["openvino"], True)):
        options = Namespace(max_memory=None, provider=provider)
        assert (_memory_limit(options) is not None) is limited


def install(folder: Path, name: str) -> None:
    (folder / f"{name}.dist-info").mkdir(parents=True)


def test_every_build_of_onnxruntime_is_known_and_its_tools_are_not(
    tmp_path: Path,
) -> None:
    for name in ("onnxruntime_gpu-1.31.1", "onnxruntime_extensions-0.14.0"):
        install(tmp_path, name)
    assert installed_builds([str(tmp_path)]) == [("onnxruntime-gpu", "1.31.1")]


def test_a_build_that_is_there_is_kept_by_the_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "onnxruntime_openvino-1.24.1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    hint = install_hint(ImportError("no DLL", name="onnxruntime"))
    assert hint.startswith("onnxruntime-openvino 1.24.1 is installed but does not load")
    assert hint.endswith("pip install --force-reinstall onnxruntime-openvino")
    assert install_hint(ImportError("", name="numpy")) == "pip install numpy"


def test_where_nothing_is_installed_the_hint_names_what_to_install(
    tmp_path: Path,
) -> None:
    # Alone: where it is installed, numpy and onnxruntime lie beside it.
    package = tmp_path / "alone"
    shutil.copytree(
        Path(pyimgano_runtime.__file__).parent, package / "pyimgano_runtime"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pyimgano_runtime", "check", str(tmp_path / "b")],
        env={**os.environ, "PYTHONPATH": str(package)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 5
    assert "pip install numpy onnxruntime" in done.stderr
    assert "Traceback" not in done.stderr
