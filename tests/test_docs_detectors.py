"""The detectors' pages: every name has one, whole, with the numbers that were measured.

That the pages are what docs/generate.py would write is `test_docs_generated`.
"""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import CommandResult, Exported
from pyimgano.detectors import DETECTORS
from pyimgano.pipelines.suite_file import shipped_suites

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "detectors"
# Its weights come with no package, so a suite of defaults cannot run it.
WITHOUT_WEIGHTS = {"anomaly_dino"}


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    """Give what docs/generate.py and its tables define."""
    return runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_page_says_what_when_when_not_whence_and_how_good(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text("utf-8")
    for part in ("**What.**", "**When.**", "**When not.**", "\n## Our numbers\n"):
        assert part in page, part
    assert re.search(r"\*\*Source|\b(19|20)\d\d\b", page), "no paper, no source"
    assert f"<!-- generated: options-{name} -->" in page
    assert f"<!-- generated: numbers-{name} -->" in page


def test_the_index_names_every_detector_in_every_table(made: dict[str, Any]) -> None:
    index = (PAGES / "index.md").read_text("utf-8")
    for block in ("capabilities", "image-accuracy", "costs"):
        start = index.index(f"<!-- generated: detector-{block} -->")
        table = index[start : index.index("<!-- end -->", start)]
        for name in DETECTORS:
            assert f"[{name}]({name}.md)" in table, block


def test_every_result_is_of_a_registered_detector() -> None:
    results = json.loads((PAGES / "results.json").read_text("utf-8"))
    assert set(results["detectors"]) <= set(DETECTORS)


def test_the_suite_of_detectors_lists_every_one_that_it_can_run() -> None:
    assert "detectors" in shipped_suites()
    path = ROOT / "pyimgano" / "resources" / "suites" / "detectors.json"
    models = json.loads(path.read_text("utf-8"))["models"]
    assert models == sorted(set(DETECTORS) - WITHOUT_WEIGHTS)


def test_results_come_out_of_a_suite_and_what_is_missing_is_said_to_be(
    run_cli: Any, two_parts: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = {
        "dataset": "manifest",
        "manifest_path": str(two_parts.manifest),
        "categories": ["bracket"],
        "name": "cookies",
    }
    models = ["pixel_stats", {"name": "pixel_stats", "preset": "fast"}]
    suite, output = tmp_path / "suite.json", tmp_path / "out"
    suite.write_text(json.dumps({"models": models, "datasets": [dataset]}))
    command = ("benchmark", "--suite", suite, "--output", output)
    done: CommandResult = run_cli(*command, "--no-process-costs")
    assert done.code == 0, done.stderr
    script = ROOT / "benchmarks" / "detector_table.py"
    printed = subprocess.run(
        [sys.executable, str(script), str(output)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    results = json.loads(printed)["detectors"]
    assert list(results) == ["pixel_stats"]  # the preset is no default
    (cell,) = results["pixel_stats"].values()
    # mean and deviation of four channels, and what the pictures are normalized by
    assert cell["parameters"] >= 2 * 4 * 128 * 128
    assert cell["label_flips"] == 0
    assert cell["image_auroc_ci95"][0] <= cell["image_auroc"]
    assert cell["bundle_mb"] > cell["model_mb"] > 0

    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import detector_pages

    file = tmp_path / "results.json"
    file.write_text(printed, encoding="utf-8")
    monkeypatch.setattr(detector_pages, "RESULTS", file)
    page = detector_pages.page_numbers("pixel_stats")
    assert f"| cookies | 3 + 3 | {cell['image_auroc']:.3f} [" in page
    assert "| mvtec_screw | not measured |" in page
    assert detector_pages.page_numbers("padim") == "Not measured."
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert len(widths) == 1
