"""Decoding ahead of the model: same rows, same order, few pictures waiting."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from infer_runs import lines_in, wait_for
from tiny_bundle import grey, save_picture, write_bundle
from watched_predictor import watch

from pyimgano_runtime.cli import main
from pyimgano_runtime.errors import ImageError
from pyimgano_runtime.inputs import Input
from pyimgano_runtime.predictor import Image, Predictor
from pyimgano_runtime.read_ahead import AHEAD_PER_WORKER, loaded
from pyimgano_runtime.rows import (
    MOST_WORKERS,
    default_decode_workers,
    predict_files,
    predict_inputs,
)

PATIENCE = 30.0  # seconds: only a fault waits so long


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.open(write_bundle(tmp_path / "bundle"), threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """30 pictures of changing sizes, the first the slowest to read; two are damaged."""
    rng = np.random.default_rng(5)
    paths = []
    for number in range(30):
        side = 400 if number % 7 == 0 else int(rng.integers(8, 60))
        path = tmp_path / f"{number:02}.png"
        save_picture(path, grey(number, side, side))
        paths.append(path)
    paths[3].write_bytes(b"no picture")
    paths[11].unlink()
    return paths


def rows_of(predictor: Predictor, paths: list[Path], workers: int) -> list[Any]:
    rows = [
        row
        for row, _, _ in predict_files(
            predictor, paths, with_map=True, decode_workers=workers
        )
    ]
    return [{k: v for k, v in row.items() if k != "ms"} for row in rows]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_rows_are_the_same_and_in_order_whoever_decodes(
    predictor: Predictor, photos: list[Path], workers: int
) -> None:
    alone = rows_of(predictor, photos, 0)
    assert [row["input"] for row in alone] == [str(path) for path in photos]
    assert [n for n, row in enumerate(alone) if not row["ok"]] == [3, 11]
    assert rows_of(predictor, photos, workers) == alone


def test_the_next_picture_is_decoded_while_one_is_judged(
    predictor: Predictor, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    second_read = threading.Event()
    seen: list[bool] = []
    watch(
        predictor,
        monkeypatch,
        on_read=lambda path: second_read.set() if path == photos[1] else None,
        on_predict=lambda: seen.append(second_read.wait(PATIENCE)),
    )
    rows = predict_files(predictor, photos[:2], with_map=True, decode_workers=1)
    assert [row["ok"] for row, _, _ in rows] == [True, True]
    assert seen == [True, True]


@pytest.mark.parametrize("workers", [1, 3])
def test_few_pictures_wait_and_none_is_decoded_after_the_end(
    predictor: Predictor,
    photos: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
) -> None:
    read: list[Path] = []
    watch(predictor, monkeypatch, on_read=read.append)
    before = threading.active_count()
    rows = predict_files(predictor, photos, with_map=True, decode_workers=workers)
    for taken in range(1, 6):
        next(rows)
        assert len(read) <= taken + workers * AHEAD_PER_WORKER
    rows.close()
    left = len(read)
    assert threading.active_count() == before
    assert left < len(photos)


def test_a_picture_does_not_wait_until_more_of_them_come(
    predictor: Predictor, photos: list[Path]
) -> None:
    def source() -> Iterator[Input | None]:
        yield Input("a", photos[0])
        yield None
        raise AssertionError("asked for more, with a picture in hand")

    def read(item: Input) -> Image:
        assert item.path is not None
        return predictor.read(item.path)

    pictures = loaded(read, source(), workers=4)
    assert next(pictures)[0].name == "a"
    pictures.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_that_lie_elsewhere_give_the_rows_of_their_files(
    predictor: Predictor, photos: list[Path], workers: int
) -> None:
    def missing() -> bytes:
        raise ImageError("gone", code="IMAGE_MISSING", stage="read")

    inputs = [Input(str(path), fetch=path.read_bytes) for path in photos[:3]]
    inputs.append(Input("gone.png", fetch=missing))
    judged = predict_inputs(predictor, inputs, with_map=False, decode_workers=workers)
    *found, gone = [row for row, _, _ in judged]
    alone = predict_files(predictor, photos[:3], with_map=False)
    assert [row["score"] for row in found] == [row["score"] for row, _, _ in alone]
    assert gone["input"] == "gone.png"
    assert gone["error"]["code"] == "IMAGE_MISSING"


def test_a_picture_too_large_for_a_worker_costs_its_own_row_only(
    predictor: Predictor, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(path: Path) -> None:
        if path == photos[1]:
            raise MemoryError

    watch(predictor, monkeypatch, on_read=lack)
    rows = rows_of(predictor, photos[:3], 2)
    assert [row["ok"] for row in rows] == [True, False, True]
    assert rows[1]["error"]["code"] == "OUT_OF_MEMORY"


@pytest.mark.parametrize("workers", ["-1", "two", "1025", "1.5"])
def test_a_number_of_workers_that_is_none_is_a_usage_error(
    tmp_path: Path, workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["infer", "--bundle", "b", "--decode-workers", workers, "a.png"])
    assert caught.value.code == 2
    assert "whole number from 0 to 1024" in capsys.readouterr().err


def test_workers_are_counted_when_memory_is_bounded(
    tmp_path: Path, photos: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(write_bundle(tmp_path / "b"))
    command = ["infer", "--bundle", bundle, "--max-memory", "2G", str(photos[0])]
    assert main([*command, "--decode-workers", "64"]) == 2
    assert "reserve for 64 threads" in capsys.readouterr().err


def test_by_default_the_usable_cores_decode_but_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 <= default_decode_workers() <= MOST_WORKERS


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_interrupted_process_ends_130_with_its_workers(
    tmp_path: Path, photos: list[Path], workers: str
) -> None:
    bundle, output = write_bundle(tmp_path / "b"), tmp_path / "rows.jsonl"
    child = subprocess.Popen(
        [
            *(sys.executable, "-m", "pyimgano_runtime", "infer"),
            *("--bundle", bundle, "--output", output, "--decode-workers", workers),
            *[photos[1]] * 20_000,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    partial = tmp_path / "rows.jsonl.partial"
    wait_for(lambda: lines_in(partial), child)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert err.endswith("pyimgano-runtime: interrupted\n")
    assert "Traceback" not in err
    assert partial.read_text().endswith("}\n")
    assert not output.exists()


FLAT_MB = 6.0  # measured: 0.0 MB; 200 of these pictures alone would be 40 MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_over_pictures_of_changing_sizes(tmp_path: Path) -> None:
    bundle, rng = write_bundle(tmp_path / "b"), np.random.default_rng(3)
    for number in range(40):
        height, width = rng.integers(8, 400, 2)
        np.save(tmp_path / f"{number}.npy", grey(number, int(height), int(width)))
    code = f"""
from pathlib import Path
from pyimgano_runtime import Predictor
from pyimgano_runtime.rows import predict_files

def resident_mb():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024

predictor = Predictor.open({str(bundle)!r}, threads=2)
paths = sorted(Path({str(tmp_path)!r}).glob("*.npy")) * 15
marks = []
rows = predict_files(predictor, paths, with_map=True, decode_workers=2)
for number, (row, _, _) in enumerate(rows):
    assert row["ok"]
    if number in (200, 599):
        marks.append(resident_mb())
print(marks[1] - marks[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= FLAT_MB
