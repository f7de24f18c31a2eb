"""Judging pictures as they come: one result each, in order, and an end to it."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundle import grey, save_picture, write_bundle
from watched_predictor import watch

from pyimgano_runtime import ImageError, Predictor, Streamed
from pyimgano_runtime.rows import predict_files

PATIENCE = 30.0  # seconds: only a fault waits so long


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor.open(write_bundle(tmp_path / "bundle"), threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """20 pictures, the first the slowest to read."""
    sides = [400, *range(8, 27)]
    return [
        save_picture(tmp_path / f"{n:02}.png", grey(n, side, side))
        for n, side in enumerate(sides)
    ]


def score_of(result: Streamed[Any]) -> float:
    assert result.prediction is not None, result.error
    return result.prediction.score


@pytest.mark.parametrize("workers", [0, 1, 5, None])
def test_results_are_those_of_predict_in_order_whoever_decodes(
    predictor: Predictor, photos: list[Path], workers: int | None
) -> None:
    results = list(predictor.stream(photos, decode_workers=workers))
    assert [result.index for result in results] == list(range(20))
    assert [result.input for result in results] == photos
    for path, result in zip(photos, results, strict=True):
        alone = predictor.predict(predictor.read(path))
        assert result.ok
        assert result.prediction is not None
        assert result.prediction.score == alone.score
        assert result.prediction.anomaly_map is not None
        assert alone.anomaly_map is not None
        assert result.prediction.anomaly_map.tobytes() == alone.anomaly_map.tobytes()
        assert result.decode_ms > 0


def test_arrays_and_paths_may_be_mixed(
    predictor: Predictor, photos: list[Path]
) -> None:
    array = grey(77)
    inputs = [photos[1], str(photos[2]), array, photos[3], array[..., 0]]
    results = list(predictor.stream(inputs, decode_workers=2))
    assert [score_of(result) for result in results] == [1, 2, 77, 3, 77]
    assert results[1].input == str(photos[2])
    assert results[2].input is array


def test_the_rows_of_infer_say_the_same(
    predictor: Predictor, photos: list[Path]
) -> None:
    rows = predict_files(predictor, photos, with_map=False, decode_workers=2)
    results = predictor.stream(photos, with_map=False)
    for (row, _, _), result in zip(rows, results, strict=True):
        assert row["score"] == score_of(result)


def test_a_bad_one_is_a_result_with_its_error_and_the_next_one_goes_on(
    predictor: Predictor, photos: list[Path], tmp_path: Path
) -> None:
    photos[3].write_bytes(b"no picture")
    photos[4].unlink()
    inputs: list[Any] = [photos[2], photos[3], photos[4], tmp_path, None, photos[5]]
    inputs += [grey(5).astype(np.float32), np.zeros((4, 4, 4), np.uint8), "", b"x"]
    results = list(predictor.stream([*inputs, photos[6]], decode_workers=2))
    found = [(r.error.code, r.error.stage) if r.error else None for r in results]
    assert found == [
        None,
        ("IMAGE_UNREADABLE", "decode"),
        ("IMAGE_MISSING", "read"),
        ("IMAGE_NOT_A_FILE", "read"),
        ("IMAGE_DTYPE", "decode"),
        None,
        ("IMAGE_DTYPE", "decode"),
        ("IMAGE_SHAPE", "decode"),
        ("IMAGE_MISSING", "read"),
        ("IMAGE_DTYPE", "decode"),
        None,
    ]
    assert [r.ok for r in results] == [r.error is None for r in results]
    assert str(results[4].error).startswith("item 4: found a NoneType")
    assert score_of(results[-1]) == pytest.approx(6)


def test_an_error_of_a_result_keeps_no_frames_and_so_no_pixels(
    predictor: Predictor, photos: list[Path]
) -> None:
    photos[1].unlink()
    (result,) = predictor.stream([photos[1]])
    assert result.error is not None
    assert result.error.__traceback__ is None
    assert isinstance(result.error.__cause__, FileNotFoundError)
    assert result.error.__cause__.__traceback__ is None


def test_a_picture_too_large_for_the_memory_costs_its_own_result_only(
    predictor: Predictor, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack(path: Path) -> None:
        if path == photos[1]:
            raise MemoryError

    watch(predictor, monkeypatch, on_read=lack)
    results = list(predictor.stream(photos[:3], decode_workers=2))
    assert [result.ok for result in results] == [True, False, True]
    assert results[1].error is not None
    assert results[1].error.code == "OUT_OF_MEMORY"
    assert str(photos[1]) in str(results[1].error)


def test_the_engine_out_of_memory_costs_its_own_result_only(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lack() -> None:
        monkeypatch.undo()
        raise MemoryError

    watch(predictor, monkeypatch, on_predict=lack)
    first, second = predictor.stream([grey(1), grey(2)])
    assert first.error is not None
    assert (first.error.code, first.error.stage) == ("OUT_OF_MEMORY", "infer")
    assert second.ok


def test_the_next_path_is_decoded_while_one_is_judged(
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
    assert all(r.ok for r in predictor.stream(photos[:2], decode_workers=1))
    assert seen == [True, True]


class Asked:
    """An endless source that counts what was asked of it."""

    def __init__(self, items: list[Any]) -> None:
        self._items, self.n = itertools.cycle(items), 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.n += 1
            yield item


@pytest.mark.parametrize(
    ("workers", "ahead", "most"), [(1, None, 2), (3, None, 6), (3, 1, 1), (2, 5, 5)]
)
def test_an_endless_source_is_asked_for_few_paths_ahead(
    predictor: Predictor,
    photos: list[Path],
    workers: int,
    ahead: int | None,
    most: int,
) -> None:
    source = Asked(photos)
    with closing(
        predictor.stream(source, decode_workers=workers, ahead=ahead)
    ) as results:
        for answered, result in enumerate(itertools.islice(results, 50)):
            assert result.ok
            assert source.n == answered + most


@pytest.mark.parametrize(("kind", "workers"), [("array", 4), ("path", 0)])
def test_a_live_source_gets_its_answer_before_it_is_asked_again(
    predictor: Predictor, photos: list[Path], kind: str, workers: int
) -> None:
    source = Asked([grey(1), grey(2)] if kind == "array" else photos)
    with closing(predictor.stream(source, decode_workers=workers)) as results:
        for answered, result in enumerate(itertools.islice(results, 10), start=1):
            assert result.ok
            assert source.n == answered


def test_arrays_need_no_thread(predictor: Predictor) -> None:
    before = threading.active_count()
    with closing(predictor.stream(itertools.repeat(grey(1)))) as results:
        next(results)
        assert threading.active_count() == before


def test_closing_the_stream_ends_its_threads_and_its_decoding(
    predictor: Predictor, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    watch(predictor, monkeypatch, on_read=read.append)
    before = threading.active_count()
    results = predictor.stream(itertools.cycle(photos), decode_workers=3)
    next(results)
    results.close()
    n_read = len(read)
    assert threading.active_count() == before
    assert len(read) == n_read <= 6


def test_leaving_the_loop_ends_the_threads_too(
    predictor: Predictor, photos: list[Path]
) -> None:
    before = threading.active_count()
    for _ in predictor.stream(itertools.cycle(photos), decode_workers=3):
        assert threading.active_count() > before
        break
    assert threading.active_count() == before


def test_an_error_of_the_source_is_the_callers_and_leaves_no_threads(
    predictor: Predictor, photos: list[Path]
) -> None:
    def source() -> Iterator[Path]:
        yield from photos[:6]
        raise OSError("the share is gone")

    before = threading.active_count()
    answered: list[int] = []
    results = predictor.stream(source(), decode_workers=1)
    with pytest.raises(OSError, match="the share is gone"):
        answered.extend(result.index for result in results)
    assert answered == list(range(5))  # the one asked for ahead is not answered
    assert threading.active_count() == before


def test_an_interrupt_while_judging_leaves_no_threads(
    predictor: Predictor, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    watch(predictor, monkeypatch, on_predict=interrupt)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        list(predictor.stream(itertools.cycle(photos), decode_workers=3))
    assert threading.active_count() == before


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_a_signal_ends_an_endless_stream_without_threads(
    tmp_path: Path, photos: list[Path]
) -> None:
    code = f"""
import itertools, threading
from pyimgano_runtime import Predictor
predictor = Predictor.open({str(write_bundle(tmp_path / "b"))!r}, threads=1)
results = predictor.stream(itertools.repeat({str(photos[0])!r}), decode_workers=3)
try:
    for result in results:
        assert result.ok
        if result.index == 5:
            print("going", flush=True)
except KeyboardInterrupt:
    results.close()
    print("interrupted", threading.active_count())
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "going\n"
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=60)
    assert (out, child.returncode) == ("interrupted 1\n", 0)


def test_pixels_are_kept_where_they_are_asked_for(
    predictor: Predictor, photos: list[Path]
) -> None:
    (lean,) = predictor.stream(photos[:1])
    assert lean.image is None
    inputs = [photos[1], grey(9)[..., 0], photos[0].with_name("none.png")]
    path, array, missing = predictor.stream(inputs, with_image=True)
    assert np.array_equal(path.image, predictor.read(photos[1]))
    assert np.array_equal(array.image, grey(9))
    assert missing.image is None


def test_maps_may_be_left_out(predictor: Predictor, photos: list[Path]) -> None:
    (result,) = predictor.stream(photos[:1], with_map=False)
    assert result.prediction is not None
    assert result.prediction.anomaly_map is None


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert list(predictor.stream([])) == []


def test_an_array_of_pictures_is_a_source(predictor: Predictor) -> None:
    pictures = np.stack([grey(3), grey(4)])
    assert [score_of(r) for r in predictor.stream(pictures)] == [3, 4]


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ("photos", "one path, 'photos'"),
        (Path("a.png"), "one path"),
        (grey(1), r"one array of shape \(8, 9, 3\)"),
        (grey(1)[..., 0], r"one array of shape \(8, 9\)"),
    ],
)
def test_one_picture_is_no_source_and_is_refused_at_once(
    predictor: Predictor, inputs: Any, found: str
) -> None:
    with pytest.raises(TypeError, match=found + ".*expected an iterable"):
        predictor.stream(inputs)


@pytest.mark.parametrize(
    "numbers",
    [
        {"decode_workers": -1},
        {"decode_workers": 1025},
        {"decode_workers": 1.5},
        {"ahead": 0},
        {"ahead": "2"},
    ],
)
def test_a_number_that_is_none_is_refused_at_once(
    predictor: Predictor, numbers: dict[str, Any]
) -> None:
    (name,) = numbers
    with pytest.raises(ValueError, match=f"{name}: found .* expected a whole number"):
        predictor.stream([], **numbers)


def test_several_streams_may_use_one_predictor_at_once(
    predictor: Predictor, photos: list[Path]
) -> None:
    def scores(_: int) -> list[float]:
        return [score_of(r) for r in predictor.stream(photos, decode_workers=2)]

    alone = scores(0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(scores, range(8))) == [alone] * 8


def test_a_result_is_told_without_its_pixels(predictor: Predictor) -> None:
    (result,) = predictor.stream([np.zeros((4, 4, 4), np.uint8)], with_image=True)
    assert isinstance(result.error, ImageError)
    assert "image=" not in repr(result)


FLAT_MB = 6.0  # measured: 0.1 MB; 200 of these pictures alone would be 40 MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat_over_good_and_bad_pictures(tmp_path: Path) -> None:
    bundle, rng = write_bundle(tmp_path / "b"), np.random.default_rng(3)
    for number in range(30):
        height, width = rng.integers(8, 400, 2)
        np.save(tmp_path / f"{number}.npy", grey(number, int(height), int(width)))
    for number in range(30, 40):
        np.save(tmp_path / f"{number}.npy", np.zeros((300, 300, 3), np.float32))
    code = f"""
import itertools
from pathlib import Path
from pyimgano_runtime import Predictor

def resident_mb():
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024

predictor = Predictor.open({str(bundle)!r}, threads=2)
paths = sorted(Path({str(tmp_path)!r}).glob("*.npy"))
errors, marks = [], []
for result in predictor.stream(itertools.cycle(paths), decode_workers=2):
    if result.error:
        errors.append(result)
    if result.index in (200, 599):
        marks.append(resident_mb())
    if result.index == 600:
        break
assert len(errors) == 150
print(marks[1] - marks[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= FLAT_MB
