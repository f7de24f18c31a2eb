"""Measures a bundle on this machine: from an encoded picture to its result.

    plan = BenchPlan(seconds=5)
    run = measure(lambda: Predictor.open("bundle"), golden_pictures(bundle, name), plan)
    print(run.ms["total"]["p99"], run.pictures_per_s)

One picture after the other, in this process. What `infer` gains by decoding ahead of
the model is not in it.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from .bundle import Bundle
from .decode import decode_bytes
from .errors import ConfigError, ImageError
from .infer_config import InputRules
from .peak_memory import peak_rss_mb, rss_mb
from .predictor import Image, Predictor
from .providers import ProviderInUse
from .quick_dataclass import dataclass
from .sources import list_inputs

STEPS: Final = ("decode", "infer", "post", "total")
SHARES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}
GENERATED: Final = 2
GENERATED_SIZE: Final = (1024, 1024)  # where nobody says another
SEED: Final = 7


@dataclass(frozen=True, slots=True)
class BenchPicture:
    """A picture file, the bytes of one, or pixels as a camera's driver gives them."""

    name: str
    source: Path | bytes | Image

    def decode(self, predictor: Predictor) -> Image:
        """Give its pixels as `infer` reads them."""
        if isinstance(self.source, Path):
            return predictor.read(self.source)
        if isinstance(self.source, bytes):
            return decode_bytes(self.source, predictor.rules, name=self.name)
        return self.source


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How long to measure, and how."""

    seconds: float = 5.0
    rounds: int | None = None  # over all pictures, in place of `seconds`
    warmup: int = 5  # pictures before the first that counts
    with_map: bool = True


@dataclass(frozen=True, slots=True)
class BenchRun:
    """What came out."""

    open_ms: float
    first_ms: float  # of the first picture, decoding included
    pictures: int
    failed: dict[str, str]  # name of a picture -> why it was not measured
    size: tuple[int, int]  # (height, width) of the largest picture
    ms: dict[str, dict[str, float]]  # by step: p50, p90, p99, max
    pictures_per_s: float
    rss_mb: float | None  # at the end
    peak_rss_mb: float | None
    provider: ProviderInUse
    engine: str

    def to_json(self) -> dict[str, Any]:
        """Give the run as a JSON object."""
        return {
            "open_ms": round(self.open_ms, 3),
            "first_ms": round(self.first_ms, 3),
            "pictures": self.pictures,
            "failed": self.failed,
            "largest": list(self.size),
            "ms": {
                step: {name: round(value, 3) for name, value in shares.items()}
                for step, shares in self.ms.items()
            },
            "pictures_per_s": round(self.pictures_per_s, 3),
            "rss_mb": None if self.rss_mb is None else round(self.rss_mb, 1),
            "peak_rss_mb": (
                None if self.peak_rss_mb is None else round(self.peak_rss_mb, 1)
            ),
            "provider": self.provider.name,
            "operators": self.provider.operators,
        }


def folder_pictures(folder: str) -> list[BenchPicture]:
    """Give the pictures of a folder, sorted.

    Raises:
        ConfigError: it holds none, or cannot be listed.
    """
    return [BenchPicture(str(path), path) for path in list_inputs([folder])]


def golden_pictures(bundle: Bundle, category: str) -> list[BenchPicture]:
    """Give the goldens of a category, in memory; none where the bundle has none."""
    return [
        BenchPicture(golden.image, bundle.read(golden.image))
        for golden in bundle.config.parity.goldens
        if golden.category == category
    ]


def generated_pictures(
    rules: InputRules, size: tuple[int, int] | None = None
) -> list[BenchPicture]:
    """Give seeded pictures without anything to decode: a soft pattern and some noise.

    Args:
        size: (height, width); default: what the bundle expects, else 1024 x 1024.

    Raises:
        ConfigError: more pixels than the bundle takes.
    """
    height, width = size or rules.expected_size or GENERATED_SIZE
    if height * width > rules.max_pixels:
        raise ConfigError(
            f"--size {height}x{width}: {height * width:,} pixels, expected at most "
            f"{rules.max_pixels:,}, which this bundle takes"
        )
    random = np.random.default_rng(SEED)
    across = np.cos(np.arange(width, dtype=np.float32) / 53)
    made = []
    for number in range(GENERATED):
        pixels = random.integers(0, 8, (height, width, 3), np.uint8)
        for row, level in enumerate(np.sin(np.arange(height) / 37 + number)):
            pixels[row] += (120 + 60 * level * across).astype(np.uint8)[:, None]
        made.append(BenchPicture(f"generated {number}", pixels))
    return made


def measure(
    open_predictor: Callable[[], Predictor],
    pictures: Sequence[BenchPicture],
    plan: BenchPlan,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> BenchRun:
    """Open a predictor and judge pictures with it, one after the other.

    Args:
        open_predictor: opens bundle and models.
        clock: gives seconds.

    Raises:
        ConfigError: none of the pictures can be judged.
    """
    start = clock()
    predictor = open_predictor()
    open_ms = (clock() - start) * 1000
    first_ms = 0.0
    failed: dict[str, str] = {}
    size = (0, 0)
    times = {step: array("d") for step in STEPS}
    most = None if plan.rounds is None else plan.rounds * len(pictures) + plan.warmup
    began = clock()
    for number, picture in enumerate(islice(cycle(pictures), most)):
        if number == plan.warmup:
            began = clock()
        if most is None and times["total"] and clock() - began >= plan.seconds:
            break
        if picture.name in failed:
            continue
        start = clock()
        try:
            image = picture.decode(predictor)
            decoded = clock()
            prediction = predictor.predict(image, with_map=plan.with_map)
        except ImageError as error:
            failed[picture.name] = str(error)
            if len(failed) == len({p.name for p in pictures}):
                raise ConfigError(
                    f"none of the {len(pictures)} pictures can be measured: {error}"
                ) from error
            continue
        total_ms = (clock() - start) * 1000
        first_ms = first_ms or total_ms
        if number < plan.warmup:
            continue
        size = max(size, image.shape[:2], key=lambda sides: sides[0] * sides[1])
        spent = {"decode": (decoded - start) * 1000, "total": total_ms}
        for step in STEPS:
            times[step].append(spent[step] if step in spent else prediction.ms[step])
    in_use = predictor.provider_in_use
    assert in_use is not None
    return BenchRun(
        open_ms=open_ms,
        first_ms=first_ms,
        pictures=len(times["total"]),
        failed=failed,
        size=size,
        ms={step: _shares(values) for step, values in times.items()},
        pictures_per_s=1000 * len(times["total"]) / sum(times["total"]),
        rss_mb=rss_mb(),
        peak_rss_mb=peak_rss_mb(),
        provider=in_use,
        engine=predictor.engine.name,
    )


def _shares(values: Sequence[float]) -> dict[str, float]:
    found = np.percentile(np.asarray(values), list(SHARES.values()))
    return dict(zip(SHARES, (float(value) for value in found), strict=True))
