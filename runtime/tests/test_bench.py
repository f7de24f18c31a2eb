"""`bench`: what is measured, how long, and what is said of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import GREY_JPEG, edit_document, grey, save_picture, write_bundle

from pyimgano_runtime import ConfigError, Predictor, open_bundle
from pyimgano_runtime.bench import (
    BenchPicture,
    BenchPlan,
    folder_pictures,
    generated_pictures,
    golden_pictures,
    measure,
)
from pyimgano_runtime.cli import main
from pyimgano_runtime.infer_config import InputRules
from pyimgano_runtime.machine import processor_name
from pyimgano_runtime.peak_memory import peak_rss_mb, rss_mb


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def bench(bundle: Path, *more: str) -> list[str]:
    return ["bench", str(bundle), "--rounds", "3", "--warmup", "1", *more]


def document_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


class Steps:
    """A clock that moves by so many seconds at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def pictures(*levels: int) -> list[BenchPicture]:
    return [BenchPicture(f"grey {level}", grey(level)) for level in levels]


def test_rounds_measure_every_picture_so_often_after_the_warm_up(bundle: Path) -> None:
    plan = BenchPlan(rounds=3, warmup=4)
    run = measure(lambda: Predictor.open(bundle), pictures(1, 2, 3), plan)
    assert run.pictures == 9


def test_seconds_are_measured_after_the_warm_up(bundle: Path) -> None:
    # Five looks at the clock a picture: its end, its start and two in between.
    plan = BenchPlan(seconds=40.0, warmup=2)
    run = measure(
        lambda: Predictor.open(bundle), pictures(1, 2), plan, clock=Steps(1.0)
    )
    assert run.pictures == 10
    assert run.ms["decode"]["p50"] == 1000
    assert run.ms["total"]["max"] == 2000
    assert run.pictures_per_s == 0.5
    assert run.open_ms == 1000


def test_the_shares_are_of_single_pictures(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyimgano_runtime.bench import _shares

    found = _shares([float(n) for n in range(101)])
    assert found == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_a_picture_that_is_refused_is_left_out_and_named(bundle: Path) -> None:
    mixed = [*pictures(1), BenchPicture("broken", b"no picture")]
    run = measure(lambda: Predictor.open(bundle), mixed, BenchPlan(rounds=2))
    assert list(run.failed) == ["broken"]
    assert run.pictures == 2


def test_where_no_picture_can_be_judged_nothing_is_measured(bundle: Path) -> None:
    broken = [BenchPicture(name, b"no picture") for name in ("a", "b")]
    with pytest.raises(ConfigError, match="none of the 2 pictures"):
        measure(lambda: Predictor.open(bundle), broken, BenchPlan(seconds=0.01))


def test_the_goldens_of_the_category_are_the_pictures(tmp_path: Path) -> None:
    two = open_bundle(write_bundle(tmp_path / "b", categories=("nut", "bolt")))
    names = [picture.name for picture in golden_pictures(two, "bolt")]
    assert names == ["golden/002.png", "golden/003.png"]


def test_a_folder_is_read_as_infer_reads_it(tmp_path: Path) -> None:
    save_picture(tmp_path / "b" / "1.png", grey(1))
    (tmp_path / "a.jpg").write_bytes(GREY_JPEG)
    (tmp_path / "notes.txt").write_text("")
    names = [Path(p.name).name for p in folder_pictures(str(tmp_path))]
    assert names == ["a.jpg", "1.png"]


def test_generated_pictures_are_alike_every_time_and_of_the_size_asked_for() -> None:
    first, again = (generated_pictures(InputRules(), (30, 40)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert isinstance(one.source, np.ndarray)
        assert (one.source.shape, one.source.dtype) == ((30, 40, 3), np.uint8)
        assert np.array_equal(one.source, other.source)
        assert np.std(one.source) > 3


def test_generated_pictures_have_the_size_that_the_bundle_expects() -> None:
    made = generated_pictures(InputRules(expected_size=(12, 16)))
    assert isinstance(made[0].source, np.ndarray)
    assert made[0].source.shape == (12, 16, 3)


def test_pictures_larger_than_the_bundle_takes_are_not_even_made(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bench(bundle, "--size", "90000x90000")) == 2
    assert "--size 90000x90000" in capsys.readouterr().err


def test_the_table_says_machine_build_provider_and_numbers(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bench(bundle, "--threads", "1")) == 0
    out = capsys.readouterr().out
    for part in (
        *("bundle    tiny 1, part", "usable cores", "onnxruntime"),
        *("CPUExecutionProvider", "2 goldens of the bundle", "with anomaly map"),
        *("1 thread ", "p50       p90       p99       max", "decode", "infer", "post"),
        *("pictures a second", "6 pictures measured (few:", "opened in"),
    ):
        assert part in out


def test_the_json_holds_the_numbers_of_the_table(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bench(bundle, "--json", "--no-map")) == 0
    found = document_of(capsys)
    assert (found["schema_version"], found["with_map"]) == ("1.0", False)
    assert found["bundle"]["sha256"] == open_bundle(bundle).sha256
    assert found["machine"]["usable_cores"] >= 1
    (run,) = found["runs"]
    assert set(run["ms"]) == {"decode", "infer", "post", "total"}
    assert run["ms"]["total"]["p50"] <= run["ms"]["total"]["max"]
    assert (run["pictures"], run["provider"]) == (6, "CPUExecutionProvider")
    assert run["largest"] == [8, 9]
    assert run["pictures_per_s"] > 0


def test_several_numbers_of_threads_are_measured_each_in_its_own_process(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_picture(tmp_path / "in" / "a.png", grey(3))
    (tmp_path / "json.py").write_text("raise SystemExit(9)")  # not ours to import
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    command = bench(bundle, "--threads", "2,1,2", "--images", "in", "--json")
    assert main(command) == 0
    found = document_of(capsys)
    assert [run["threads"] for run in found["runs"]] == [2, 1]
    assert [run["pictures"] for run in found["runs"]] == [3, 3]
    assert found["pictures"] == {"source": "in", "count": 1}


def test_a_sweep_that_fails_says_why_once_and_ends_with_the_same_code(
    bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (bundle / "models" / "tiny.onnx").write_bytes(b"other")
    assert main(bench(bundle, "--threads", "1,2")) == 3
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("tiny.onnx") == 1


def test_a_bundle_without_goldens_is_measured_with_generated_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = write_bundle(tmp_path / "b", golden_levels=())

    def expect(document: dict[str, Any]) -> None:
        document["input"]["expected_size"] = [20, 30]

    edit_document(bare, expect)
    assert main(bench(bare, "--json")) == 0
    found = document_of(capsys)
    assert found["pictures"]["source"].startswith("generated")
    assert found["runs"][0]["largest"] == [20, 30]


@pytest.mark.parametrize(
    "flags",
    [
        *(["--size", "1080"], ["--size", "0x5"], ["--size", "5x-1"]),
        *(["--seconds", "0"], ["--seconds", "nan"], ["--rounds", "0"]),
        *(["--threads", "1,"], ["--threads", "1,two"], ["--warmup", "-1"]),
        *(["--size", "5x5", "--images", "x"], ["--seconds", "1", "--rounds", "1"]),
    ],
)
def test_a_wrong_option_is_a_usage_error(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "bundle", *flags])
    assert caught.value.code == 2


def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path) -> None:
    text = tmp_path / "cpuinfo"
    text.write_text("processor\t: 0\nHardware\t: BCM2835\nModel\t\t: Raspberry Pi 5\n")
    assert processor_name(text).startswith("Raspberry Pi 5 (")
    assert processor_name(tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from proc")
def test_the_resident_memory_is_at_most_its_peak() -> None:
    now, peak = rss_mb(), peak_rss_mb()
    assert now is not None
    assert peak is not None
    assert 5 < now <= peak
