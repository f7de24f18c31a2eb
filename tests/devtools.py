"""Headless Chromium driven by its DevTools protocol: for pages that need real time.

`chromium.opened` dumps a page after so much virtual time, which WebAssembly does not
know. Here messages go through two pipes (`--remote-debugging-pipe`), so that no port
and no WebSocket is needed: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chromium import CHROMIUM, NAMES

PATIENCE_S = 120.0  # for one answer: a busy machine compiles 14 MB of WebAssembly

# Chromium reads the descriptor 3 and writes to 4.
START = """
import fcntl, os, sys
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
    "--enable-unsafe-swiftshader",  # WebGL without a graphics card
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


class Browser:
    """One running Chromium; messages that are no answers are kept as events."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._waiting = b""
        self._count = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """The result of a command."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") != self._count:
                self.events.append(answer)
                continue
            assert "error" not in answer, f"{method}: {answer['error']}"
            return answer["result"]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE_S
        while b"\0" not in self._waiting:
            left = max(end - time.monotonic(), 0)
            assert select.select([self._read], [], [], left)[0], "Chromium is silent"
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium ended"
            self._waiting += data
        text, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message


class Page:
    """One tab of a width, in pixels."""

    def __init__(self, browser: Browser, width: int) -> None:
        self._browser = browser
        made = browser.call("Target.createTarget", url="about:blank")
        self._target = made["targetId"]
        to = {"targetId": self._target, "flatten": True}
        self._session = browser.call("Target.attachToTarget", **to)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=False)
        # All of the width is the page's.
        self.call("Emulation.setScrollbarsHidden", hidden=True)

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command to this tab."""
        return self._browser.call(method, self._session, **params)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression gives, promises awaited, as JSON gives it."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """What the expression gives as soon as that is true."""
        end = time.monotonic() + PATIENCE_S
        while not (found := self.value(expression)):
            if time.monotonic() > end:
                shown = self.value("document.body.innerText")
                pytest.fail(f"{expression} stays false; the page says:\n{shown}")
            time.sleep(0.05)
        return found

    def press(self, key: str) -> None:
        """Press and release a key, such as "ArrowRight", "Tab" or "Enter"."""
        code = {"Enter": 13, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}.get(key, 0)
        keys: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        if key == "Enter":
            keys["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **keys)
        self.call("Input.dispatchKeyEvent", type="keyUp", **keys)

    def choose(self, selector: str, *paths: Path) -> None:
        """Put files into an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=root, selector=selector)
        names = [str(path) for path in paths]
        self.call("DOM.setFileInputFiles", nodeId=found["nodeId"], files=names)

    def drop(self, *paths: Path) -> None:
        """Drop files or folders on the middle of the page."""
        files = [str(path) for path in paths]
        data = {"items": [], "files": files, "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as a PNG file."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        whole = {"captureBeyondViewport": True, "clip": clip | {"scale": 1}}
        shot = self.call("Page.captureScreenshot", **whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _events(self, method: str) -> list[dict[str, Any]]:
        self.value("1")  # whatever happened until now has been told before this answer
        return [
            event["params"]
            for event in self._browser.events
            if event.get("sessionId") == self._session and event["method"] == method
        ]

    @property
    def requests(self) -> list[str]:
        """The address of every request so far."""
        sent = self._events("Network.requestWillBeSent")
        return [event["request"]["url"] for event in sent]

    @property
    def messages(self) -> list[str]:
        """Everything that the console holds so far."""
        logged = [event["entry"]["text"] for event in self._events("Log.entryAdded")]
        thrown = self._events("Runtime.exceptionThrown")
        said = self._events("Runtime.consoleAPICalled")
        return [
            *logged,
            *(json.dumps(event["exceptionDetails"]) for event in thrown),
            *(json.dumps(event["args"]) for event in said),
        ]

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextmanager
def started(profile: Path) -> Iterator[Browser]:
    """A Chromium that ends with the block; skips the test where none is installed."""
    if CHROMIUM is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    its_read, write = os.pipe()
    read, its_write = os.pipe()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", START, str(its_read), str(its_write), CHROMIUM),
            *(*FLAGS, f"--user-data-dir={profile}", "about:blank"),
        ],
        pass_fds=(its_read, its_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_read)
    os.close(its_write)
    browser = Browser(read, write)
    try:
        yield browser
        browser.call("Browser.close")
    finally:
        os.close(read)
        os.close(write)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
