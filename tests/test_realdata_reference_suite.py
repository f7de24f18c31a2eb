"""One suite over the reference sets: killed in the middle, resumed, and looked at."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chromium import measured, opened

pytestmark = pytest.mark.realdata

SETS = ("mvtec_screw", "magnetic_tile", "elpv_mono", "cookies", "sdu_composite")
MODELS = ("patchcore", "padim", "pixel_stats")
# Small pictures and banks: this is about the suite, docs/benchmarks.md has the numbers.
SMALL = {"patchcore": {"bank_size": 200}}
QUICK = ("--no-pixel-metrics", "--no-process-costs")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the output of a suite that was killed once and resumed."""
    data = os.environ.get("PYIMGANO_TEST_DATA")
    if data is None:
        pytest.skip("PYIMGANO_TEST_DATA is not set")
    folder = tmp_path_factory.mktemp("reference")
    models = [
        {"name": name, "options": {"image_size": [128, 128]} | SMALL.get(name, {})}
        for name in MODELS
    ]
    datasets = [
        {"dataset": "manifest", "manifest_path": f"{name}/manifest.jsonl"}
        for name in SETS
    ]
    file, output = folder / "suite.json", folder / "out"
    file.write_text(json.dumps({"models": models, "datasets": datasets}))
    command = [
        *(sys.executable, "-m", "pyimgano.cli", "benchmark", "--suite", str(file)),
        *("--suite-root", data, "--output", str(output), *QUICK),
    ]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while len(list(output.glob("cells/[!.]*/report.json"))) < 2:
        assert killed.poll() is None, "the suite ended by itself"
        time.sleep(0.2)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = subprocess.run(
        [*command, "--resume"], capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cells are finished already" in done.stderr
    return output


def test_every_cell_has_both_engines_and_labels_that_agree(suite: Path) -> None:
    with (suite / "leaderboard.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = {(row["category"], row["model"], row["engine"]) for row in rows}
    assert found == {
        (name, model, engine)
        for name in SETS
        for model in MODELS
        for engine in ("torch", "onnx")
    }
    assert len(rows) == len(found)
    for row in rows:
        if row["engine"] == "onnx" and row["label_flips"] != "0":
            # A score may be the threshold but for rounding (ADR 9), and then alone.
            assert row["label_flips"] == "1"
            closest = float(row["min_threshold_distance"])
            assert closest <= 1e-5 * float(row["threshold"])


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 400])
def test_its_page_opens_in_a_browser(suite: Path, tmp_path: Path, width: int) -> None:
    page = suite / "leaderboard.html"
    document, log = opened(page, tmp_path, width=width)
    n_rows = 2 * len(SETS) * len(MODELS)
    assert f"{n_rows} of {n_rows} rows" in document  # the script ran to its end
    assert "CONSOLE" not in log
    assert "http://" not in page.read_text("utf-8").replace("http://www.w3.org/", "")
    assert "https://" not in page.read_text("utf-8")
    found = measured(page, tmp_path, width=width)
    assert found["scroll"] <= found["inner"] == width
