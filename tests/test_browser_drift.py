"""The drift page in headless Chromium: no errors, no network, no overflow."""

from pathlib import Path

import numpy as np
import pytest

from chromium import measured, opened
from pyimgano_runtime.drift import BRIGHTNESS, SCORE, SHARPNESS, DriftMonitor
from pyimgano_runtime.drift_page import drift_page
from pyimgano_runtime.picture_statistics import PictureStatistics
from pyimgano_runtime.reference import distribution_of

pytestmark = pytest.mark.browser

LONG = "a_name_that_cannot_be_broken_anywhere_" * 2


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    line = np.random.default_rng(3)
    known = {
        name: distribution_of(line.normal(mean, sd, 80), 80)
        for name, mean, sd in (
            (SCORE, 2.5, 0.3),
            (BRIGHTNESS, 120, 5),
            (SHARPNESS, 31_000, 900),
        )
    }
    monitor = DriftMonitor(known, window=50)
    for index in range(150):
        bright, sharp = line.normal(120 + index / 5, 5), line.normal(31_000, 900)
        picture = PictureStatistics(float(bright), float(sharp))
        monitor.add(float(line.normal(2.5, 0.3)), picture)
    path = tmp_path_factory.mktemp("drift") / "drift.html"
    html = drift_page(LONG, monitor.reading(), note=f"Note {LONG}", written="now")
    path.write_text(html, encoding="utf-8")
    return path


def test_the_page_opens_without_a_console_message(page: Path, tmp_path: Path) -> None:
    document, log = opened(page, tmp_path)
    assert "The pictures are brighter than in training" in document
    assert document.count("<svg") == 4
    assert "CONSOLE" not in log


def test_the_page_asks_the_network_for_nothing(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "http:" not in text
    assert "https:" not in text
    assert "//" not in text.replace("</", "")


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_never_wider_than_its_window(
    page: Path, tmp_path: Path, width: int
) -> None:
    found = measured(page, tmp_path, width=width)

    assert found["inner"] == width
    assert found["scroll"] <= width
