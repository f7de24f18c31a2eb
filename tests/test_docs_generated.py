"""The parts of the docs that come from code are those of this code."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_generated_blocks_are_up_to_date() -> None:
    files = runpy.run_path(str(ROOT / "docs" / "generate.py"))["generated_files"]()
    stale = [p.name for p, text in files.items() if p.read_text("utf-8") != text]
    assert not stale, "run: python docs/generate.py"


def test_links_between_pages_lead_somewhere() -> None:
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in LINK.findall(page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not broken
