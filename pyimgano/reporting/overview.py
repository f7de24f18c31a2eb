"""One page and one picture that tell a person what a bundle did on test pictures.

Labels, scores and maps are the device's; nothing is judged again here.
"""

from __future__ import annotations

from pathlib import Path

from pyimgano_runtime.atomic import write_bytes, write_text

from .overview_facts import Overview
from .overview_figure import figure_png
from .overview_page import page_html


def write_overview(folder: Path, overview: Overview) -> None:
    """Write overview.png, then overview.html, into an existing folder."""
    write_bytes(folder / "overview.png", figure_png(overview))
    write_text(folder / "overview.html", page_html(overview))
