"""Makes bundles/demo again: generated parts, `pixel_stats`, synthetic goldens.

    python bundles/make_demo.py bundles/demo

Made again on the same machine with the same packages it has the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from pyimgano.cli import main as pyimgano
from pyimgano.datasets.generated_parts import write_parts

CONFIG = {
    "model": {"name": "pixel_stats"},
    "dataset": {"manifest_path": "data/manifest.jsonl"},
}


def main() -> int:
    """Generate, train, export."""
    output = Path(sys.argv[1])
    # The bundle's date: fixed, so that making it again changes nothing.
    os.environ["SOURCE_DATE_EPOCH"] = "1771891200"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        write_parts(work / "data", parts=("bracket",), n_train=120, seed=7)
        (work / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        run = str(work / "run")
        code = pyimgano(
            ["train", "--config", str(work / "config.json"), "--output", run]
        )
        return code or pyimgano(
            [
                "bundle",
                "export",
                "--run",
                run,
                "--output",
                str(output),
                "--name",
                "demo",
            ]
        )


if __name__ == "__main__":
    sys.exit(main())
