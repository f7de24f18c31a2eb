"""Mutants of bundles by number, and a worker that opens, checks and runs them.

    python fuzz_bundles.py replay SEED NUMBER     one case, told in full
    python fuzz_bundles.py work SEED              cases by their numbers on stdin

A case is made from seed and number alone, so that a finding can be replayed. A changed
model is listed with its true size and hash, so that it reaches the walker and the
session.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Final

from fuzz_mutants import mutated_model, mutated_text, zoo
from tiny_bundle import grey, write_bundle

from pyimgano_runtime.cores import usable_cores
from pyimgano_runtime.memory_limit import MIB, least_limit, limit_memory

HEADROOM: Final = 512 * MIB  # of memory, beyond what the libraries need
DEMO: Final = Path(__file__).parents[2] / "bundles" / "demo"
DEMO_EVERY: Final = 12  # one case of so many is of the demo, which takes longer


class Base:
    """A whole bundle that mutants are made of."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self.model = model
        self.document = json.loads((folder / "infer_config.json").read_bytes())
        self.data = (folder / model).read_bytes()


class Bench:
    """A folder with the bundles that mutants are made of, and their cases."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.seed = seed
        self.bases = [
            Base(write_bundle(folder / "tiny"), "models/tiny.onnx"),
            Base(write_bundle(folder / "zoo", model_bytes=zoo()), "models/tiny.onnx"),
        ]
        if DEMO.is_dir():
            shutil.copytree(DEMO, folder / "demo")
            self.bases.append(Base(folder / "demo", "models/bracket.onnx"))

    def make(self, number: int) -> Path:
        """Write a case's bundle and give its folder."""
        rng = random.Random(f"{self.seed}:{number}")
        last = len(self.bases) - 1
        base = self.bases[last if number % DEMO_EVERY == 0 else 1 if number % 3 else 0]
        document, data = base.document, base.data
        if rng.random() < 0.25:
            text = mutated_text(rng, document)
        else:
            data = mutated_model(rng, data)
            text = json.dumps(relisted(document, base.model, data)).encode()
        (base.folder / base.model).write_bytes(data)
        (base.folder / "infer_config.json").write_bytes(text)
        return base.folder


def relisted(document: Any, path: str, data: bytes) -> Any:
    """Give the document with a file's true size and hash."""
    facts = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    entries = [e | facts if e["path"] == path else e for e in document["files"]]
    return document | {"files": entries}


def outcome(folder: Path) -> str:
    """Open, verify, show, check and run a bundle: "ok", or the class that refused it.

    Any error that is not ours leaves as it came.
    """
    from pyimgano_runtime import Predictor, PyimganoError, open_bundle
    from pyimgano_runtime.check import check_bundle
    from pyimgano_runtime.info_cli import print_info
    from pyimgano_runtime.row_output import json_text

    try:
        bundle = open_bundle(folder)
        bundle.verify_files()
        with redirect_stdout(io.StringIO()):
            print_info(bundle)
        json_text(check_bundle(bundle, threads=1).to_json(), sys.stdout)
        category = next(iter(bundle.config.categories))
        predictor = Predictor.open(bundle, category=category, threads=1)
        for picture in (grey(40), grey(200, 64, 48)):
            prediction = predictor.predict(picture)
            json_text(prediction.ms, sys.stdout)
    except PyimganoError as error:
        return f"{type(error).__name__} {str(error)[:160]!r}"
    return "ok"


def work(seed: int, numbers: Iterator[str], tell: Callable[[str], object]) -> None:
    """Run cases by number; one line each: "fine ..." or "FOUND ..."."""
    warnings.simplefilter("error")
    limit = least_limit(usable_cores()) + HEADROOM
    with tempfile.TemporaryDirectory() as place, limit_memory(limit):
        bench = Bench(Path(place), seed)
        outcome(bench.bases[0].folder)  # loads the libraries
        tell("ready")
        for number in numbers:
            folder = bench.make(int(number))
            try:
                tell(f"fine {outcome(folder)}".replace(place, ""))
            except BaseException:  # whatever it is, it is a finding
                tell(f"FOUND {traceback.format_exc()!r}")


def main(command: str, seed: str, number: str = "") -> None:
    """Work on the numbers of stdin, or replay one case."""

    def tell(line: str) -> None:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    work(int(seed), iter([number]) if command == "replay" else iter(sys.stdin), tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
