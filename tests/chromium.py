"""Headless Chromium through its command line: a page's document, log and width."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)

# Chromium's own windows are at least 500 px wide, so narrow ones are frames. Frames of
# file:// are origins of their own: the page measures itself and tells its parent.
MEASURE = """<script>
window.addEventListener("load", function () {
  document.querySelectorAll("details").forEach(function (d) { d.open = true; });
  parent.postMessage(JSON.stringify({
    inner: window.innerWidth, scroll: document.documentElement.scrollWidth
  }), "*");
});
</script></body>"""
WRAPPER = """<body><iframe src="measured.html" width="{width}" height="900"></iframe>
<pre id="told">nothing</pre><script>
window.addEventListener("message", function (event) {{
  document.getElementById("told").textContent = event.data;
}});
</script></body>"""


def opened(page: Path, profile: Path, *, width: int = 1280) -> tuple[str, str]:
    """The document after its scripts, and what Chromium logged."""
    if CHROMIUM is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"),
            *(f"--user-data-dir={profile}", f"--window-size={width},900"),
            *("--virtual-time-budget=3000", "--enable-logging=stderr", "--v=0"),
            *("--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )
    return done.stdout, done.stderr


def told(document: str) -> dict[str, Any]:
    found = re.search(r'<pre id="told">(.*?)</pre>', document, re.DOTALL)
    assert found is not None
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


def measured(page: Path, profile: Path, *, width: int) -> dict[str, Any]:
    """The page's own `inner` and `scroll` width in a frame of so many pixels."""
    text = page.read_text("utf-8").replace("</body>", MEASURE)
    page.with_name("measured.html").write_text(text, encoding="utf-8")
    wrapper = page.with_name(f"wrapper-{width}.html")
    wrapper.write_text(WRAPPER.format(width=width), encoding="utf-8")
    return told(opened(wrapper, profile, width=1400)[0])
