"""The leaderboard page in headless Chromium: no errors, no overflow, sorting."""

from pathlib import Path

import pytest

from chromium import measured, opened, told
from leaderboard_cells import comparison, write_cell
from pyimgano.reporting.leaderboard import FailedCell, write_leaderboard

pytestmark = pytest.mark.browser

# What clicks and choices do, told as JSON.
DRIVE = """<script>
(function () {
  function told() {
    return Array.from(document.querySelectorAll(".board tbody tr"))
      .filter(function (row) { return row.offsetParent !== null; })
      .map(function (row) {
        return [row.cells[0].textContent.trim(), row.dataset.engine].join(" ");
      });
  }
  function button(name) {
    return Array.from(document.querySelectorAll(".board th button"))
      .find(function (b) { return b.textContent === name; });
  }
  var result = {};
  button("AUROC").click();
  result.auroc = told();
  result.sort = button("AUROC").parentNode.getAttribute("aria-sort");
  button("AUROC").click();
  result.reversed = told();
  button("ms").click();
  result.ms = told();
  result.old = button("AUROC").parentNode.getAttribute("aria-sort");
  var engine = document.getElementById("by-engine");
  engine.value = "onnx";
  engine.dispatchEvent(new Event("change"));
  result.filtered = told();
  result.count = document.getElementById("count").textContent;
  var pre = document.createElement("pre");
  pre.id = "told";
  pre.textContent = JSON.stringify(result);
  document.body.appendChild(pre);
}());
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("leaderboard")
    cells = [
        write_cell(
            folder / f"{model}-{place}",
            model=model,
            category=place,
            pixels=place == "a",
        )
        for model in ("patchcore", "padim", "pixel_stats")
        for place in ("a", "a-category-of-a-very-long-name-without-any-space" * 2)
    ]
    failed = [
        FailedCell("stfpm", "m", "bolts", "a", 0, "DatasetError", "/a/long/path" * 30)
    ]
    write_leaderboard(
        *(folder, cells, failed),
        title="Bolts and a_title_that_cannot_be_broken_anywhere" * 2,
        command="pyimgano benchmark " + "--a-long-option=value" * 8,
        comparisons=[comparison("patchcore", "padim", category="a")],
    )
    return folder / "leaderboard.html"


def test_the_page_opens_without_a_console_message(page: Path, tmp_path: Path) -> None:
    document, log = opened(page, tmp_path)
    assert "12 of 12 rows" in document  # the script ran to its end
    assert "CONSOLE" not in log


def test_a_console_message_would_be_seen(page: Path, tmp_path: Path) -> None:
    broken = page.with_name("broken.html")
    text = page.read_text("utf-8").replace('"use strict";', "nothing();", 1)
    broken.write_text(text, encoding="utf-8")
    assert "nothing is not defined" in opened(broken, tmp_path)[1]


@pytest.mark.parametrize("width", [1280, 400])
def test_the_page_is_never_wider_than_its_window(
    page: Path, tmp_path: Path, width: int
) -> None:
    found = measured(page, tmp_path, width=width)

    assert found["inner"] == width
    assert found["scroll"] <= width


def test_buttons_sort_and_choices_filter(page: Path, tmp_path: Path) -> None:
    driven = page.with_name("driven.html")
    text = page.read_text("utf-8").replace("</body>", DRIVE)
    driven.write_text(text, encoding="utf-8")

    found = told(opened(driven, tmp_path)[0])

    assert [row.split()[0] for row in found["auroc"]] == (
        ["patchcore"] * 4 + ["padim"] * 4 + ["pixel_stats"] * 4
    )
    assert found["sort"] == "descending"
    assert [row.split()[0] for row in found["reversed"]][:4] == ["pixel_stats"] * 4
    assert found["ms"][:3] == ["pixel_stats onnx"] * 2 + ["pixel_stats torch"]
    assert found["old"] is None
    assert len(found["filtered"]) == 6
    assert all(row.endswith("onnx") for row in found["filtered"])
    assert found["count"] == "6 of 12 rows"
