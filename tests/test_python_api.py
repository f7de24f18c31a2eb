"""The Python API as docs/python_api.md tells it, in torch as on the device."""

from __future__ import annotations

import doctest
import pickle
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector_trials import ImageList, context_of, create, draw
from pyimgano.inference.torch_predictor import torch_predictor
from pyimgano_runtime import ImageError, Prediction, Predictor, open_bundle

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "python_api.md"
DEMO = ROOT / "bundles" / "demo"


def test_every_example_of_the_page_runs_and_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(DEMO, tmp_path / "bundle")
    (tmp_path / "photos").mkdir()
    for number in (1, 2, 3):
        name = f"{number:03}.png"
        shutil.copy(DEMO / "golden" / name, tmp_path / "photos" / name)
    (tmp_path / "photos" / "004.png").write_bytes(b"half a pic")
    monkeypatch.chdir(tmp_path)
    before = threading.active_count()
    # The fences would be taken for output; empty lines keep the numbers of lines.
    text = re.sub(r"^```.*$", "", PAGE.read_text("utf-8"), flags=re.MULTILINE)
    page = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    found = runner.run(page)
    assert found.attempted > 30
    assert found.failed == 0
    assert threading.active_count() == before


def test_the_page_shows_all_of_its_python_as_examples() -> None:
    """A block without `>>>` would be code that no test runs."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        assert block.startswith(">>> ")


@pytest.fixture
def predictor() -> Predictor:
    return Predictor.open(DEMO)


def pictures(n: int = 6) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (90, 120, 3), dtype=np.uint8) for _ in range(n)]


def bits(prediction: Prediction | None) -> tuple[Any, ...]:
    assert prediction is not None
    assert prediction.anomaly_map is not None
    facts = (prediction.score, prediction.p_value, prediction.label)
    return (*facts, prediction.anomaly_map.tobytes())


def judged_by_eight_threads(predictor: Predictor, images: list[Any]) -> list[Any]:
    start = threading.Barrier(8)

    def judge_all(first: int) -> list[tuple[Any, ...]]:
        start.wait(60)
        order = [(first + turn) % len(images) for turn in range(len(images))]
        found = {number: bits(predictor.predict(images[number])) for number in order}
        return [found[number] for number in range(len(images))]

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(judge_all, range(8)))


def test_eight_threads_get_equal_bits_of_a_trained_bundle(
    predictor: Predictor,
) -> None:
    images = pictures()
    alone = [bits(predictor.predict(image)) for image in images]
    assert judged_by_eight_threads(predictor, images) == [alone] * 8


@pytest.fixture
def in_torch(tmp_path: Path) -> Predictor:
    detector = create("pixel_stats").fit(
        ImageList(draw(6, seed=1)), context=context_of(tmp_path)
    )
    config = open_bundle(DEMO).config
    return torch_predictor(
        detector, "bracket", config.categories["bracket"], config.input
    )


def test_the_predictor_in_torch_has_every_method_of_the_runtimes(
    in_torch: Predictor,
) -> None:
    assert type(in_torch) is Predictor


def test_a_stream_in_torch_gives_what_predict_gives(
    in_torch: Predictor, tmp_path: Path
) -> None:
    for number, image in enumerate(pictures(4)):
        np.save(tmp_path / f"{number}.npy", image)
    paths = sorted(tmp_path.glob("*.npy"))
    alone = [bits(in_torch.predict(image)) for image in pictures(4)]
    assert [bits(p) for p in in_torch.predict_batch(pictures(4))] == alone
    inputs: list[Any] = [*paths, tmp_path / "none.npy", *pictures(4)]
    results = list(in_torch.stream(inputs, decode_workers=2))
    assert isinstance(results[4].error, ImageError)
    assert [bits(r.prediction) for r in results if r.ok] == alone * 2


def test_eight_threads_get_equal_bits_in_torch(in_torch: Predictor) -> None:
    images = pictures()
    alone = [bits(in_torch.predict(image)) for image in images]
    assert judged_by_eight_threads(in_torch, images) == [alone] * 8


def test_a_predictor_in_torch_says_that_it_cannot_be_pickled(
    in_torch: Predictor,
) -> None:
    with pytest.raises(TypeError, match=r"an engine \(torch .*cannot be pickled"):
        pickle.dumps(in_torch)
