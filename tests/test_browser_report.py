"""The report page in headless Chromium: no errors, no requests, no overflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from chromium import measured, opened
from conftest import Exported
from pyimgano.cli import main
from pyimgano.pipelines.report_run import report_of_run
from pyimgano.pipelines.result_folder import open_result
from pyimgano.reporting.report_page import report_html
from pyimgano_runtime.bundle import open_bundle

pytestmark = pytest.mark.browser

LONG = "a-category-of-a-very-long-name-without-any-space" * 2


@pytest.fixture(scope="module")
def small(exported: Callable[[str], Exported]) -> Exported:
    return exported("pixel_stats")


@pytest.fixture(scope="module")
def run_page(small: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, names that cannot be broken, every part of a page."""
    told = report_of_run(
        open_result(small.run),
        open_bundle(small.bundle),
        gallery=4,
        progress=lambda step, done, total: None,
        warn=pytest.fail,
    )
    (category,) = told.categories
    part = replace(category.parts[-1], kind="kind_of_defect" * 9, name="picture" * 30)
    parts = (*category.parts[:-1], part)
    long = replace(category, name=LONG, parts=parts)
    page = tmp_path_factory.mktemp("report") / "run.html"
    html = report_html(replace(told, name=LONG, categories=(category, long)))
    page.write_text(html, encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def bundle_page(small: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("report") / "bundle.html"
    assert main(["report", str(small.bundle), "--html", str(page)]) == 0
    return page


@pytest.fixture(params=["run", "bundle"])
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"{request.param}_page")
    return found


def test_the_page_opens_without_a_console_message(page: Path, tmp_path: Path) -> None:
    document, log = opened(page, tmp_path)
    assert "Words on this page" in document
    assert "CONSOLE" not in log


def test_a_request_would_be_seen(page: Path, tmp_path: Path) -> None:
    asking = page.with_name("asking.html")
    asks = '<script>fetch("http://example.org/").catch(e => console.log("asked"))'
    text = page.read_text("utf-8").replace("</body>", f"{asks}</script></body>")
    asking.write_text(text, encoding="utf-8")
    assert "CONSOLE" in opened(asking, tmp_path)[1]


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_never_wider_than_its_window(
    page: Path, tmp_path: Path, width: int
) -> None:
    found = measured(page, tmp_path, width=width)

    assert found["inner"] == width
    assert found["scroll"] <= width
