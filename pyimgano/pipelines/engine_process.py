"""What an engine costs by itself: start and memory, in a process that does only this.

    python -m pyimgano.pipelines.engine_process JSON

The process of an ONNX engine imports the runtime alone: no torch, as on a device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pyimgano_runtime.peak_memory import peak_rss_mb

if TYPE_CHECKING:
    from pyimgano_runtime.predictor import Predictor

PICTURES: Final = 8  # the largest of them decides the memory
SECONDS: Final = 600
MEASURED: Final = ("import_ms", "open_ms", "first_ms", "peak_rss_mb")


@dataclass(frozen=True, slots=True)
class EngineSource:
    """How a process of its own opens an engine."""

    engine: str  # one of `engines.ENGINES`
    category: str
    threads: int
    bundle: Path
    run: Path | None  # torch only


def measure_process(source: EngineSource, images: Sequence[Path]) -> dict[str, Any]:
    """Give `import_ms`, `open_ms`, `first_ms` and `peak_rss_mb` of a fresh process.

    `import_ms`: numpy, the engine and our own code; `open_ms`: reading, checking and
    making the session; `first_ms`: the first picture, decoding excluded.

    All are None where the process failed, and `reason` says why: what the pictures
    said is worth no less for it.
    """
    from ..detectors.plugins import loaded_homes

    order = {
        "plugins": loaded_homes() if source.run is not None else [],
        "engine": source.engine,
        "category": source.category,
        "threads": source.threads,
        "bundle": str(source.bundle),
        "run": None if source.run is None else str(source.run),
        "images": [str(path) for path in images[:PICTURES]],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-X", "utf8", "-m", __name__, json.dumps(order)],
            capture_output=True,
            encoding="utf-8",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _not_measured(f"its own process took more than {SECONDS} s")
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return _not_measured(
            f"its own process ended with exit code {done.returncode}: {said}"
        )
    # The last line: what a library printed stands before it.
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured | {"reason": None}


def _not_measured(reason: str) -> dict[str, Any]:
    return dict.fromkeys(MEASURED) | {"reason": reason}


def _child(order: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    opened = _open_torch if order["engine"] == "torch" else _open_onnx
    open_engine = opened(order)
    imported = time.perf_counter()
    predictor = open_engine()
    ready = time.perf_counter()
    first_ms = None
    for path in order["images"]:
        image = predictor.read(Path(path))
        begin = time.perf_counter()
        predictor.predict(image)
        first_ms = first_ms or (time.perf_counter() - begin) * 1000
    return {
        "import_ms": (imported - start) * 1000,
        "open_ms": (ready - imported) * 1000,
        "first_ms": first_ms,
        "peak_rss_mb": peak_rss_mb(),
    }


def _open_onnx(order: dict[str, Any]) -> Any:
    """Import what a device imports; give what opens the bundle."""
    from pyimgano_runtime.predictor import Predictor
    from pyimgano_runtime.quiet_onnxruntime import load_onnxruntime

    load_onnxruntime()

    def open_engine() -> Predictor:
        return Predictor.open(
            order["bundle"], category=order["category"], threads=order["threads"]
        )

    return open_engine


def _open_torch(order: dict[str, Any]) -> Any:
    """Import torch and the detectors; give what opens the checkpoint."""
    import torch

    from pyimgano_runtime.bundle import open_bundle

    from ..detectors.plugins import load_plugins
    from ..inference.torch_predictor import torch_predictor
    from ..workbench.artifacts import open_run
    from ..workbench.trained import load_trained

    torch.set_num_threads(order["threads"])
    load_plugins(order["plugins"])

    def open_engine() -> Predictor:
        config = open_bundle(order["bundle"]).config
        name = order["category"]
        detector = load_trained(open_run(Path(order["run"])), name)
        return torch_predictor(detector, name, config.categories[name], config.input)

    return open_engine


if __name__ == "__main__":
    print(json.dumps(_child(json.loads(sys.argv[1]))))
