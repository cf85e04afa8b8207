"""A browser that does what it is told: chromium without a window, over a pipe, by its own DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Self

PATIENCE = 60.0
"""Seconds to wait for what a page is to show."""

_CODES = {"Enter": 13, "Escape": 27, "Home": 36, "End": 35}
_CODES |= {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9}


class Browser:
    """One chromium, in a process of its own, and one page at a time in it."""

    def __init__(self, folder: Path) -> None:
        program = shutil.which("chromium")
        assert program is not None, "chromium is not installed: `tools/prepare night` does that"
        reads, self._to = os.pipe()
        self._from, writes = os.pipe()
        # It reads commands from descriptor 3 and answers by 4: a shell puts them there, from higher numbers.
        given = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (reads, writes)]
        words = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += ["--no-first-run", "--disable-background-networking", "--remote-debugging-pipe"]
        words += [f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "${@:3}" 3<&$1 4>&$2', "bash", *map(str, given), *words],
            pass_fds=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (reads, writes, *given):
            os.close(fd)
        self._numbers = count(1)
        self._rest = b""
        self._session: str | None = None
        self._page: str | None = None
        self.events: list[Mapping[str, Any]] = []

    def __call__(self, method: str, **parameters: Any) -> Any:
        """A command of the protocol, and its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            data = os.read(self._from, 1 << 20)
            assert data, "chromium has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """A new page, in a window of this size. The one before is closed, for it would go on asking its server."""
        self._session = None
        if self._page is not None:
            self("Target.closeTarget", targetId=self._page)
        self._page = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=self._page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])
        self("Page.navigate", url=url)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to."""
        told = self("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, (expression, told)
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true."""
        ended = time.monotonic() + PATIENCE
        while not self.value(f"!!({expression})"):
            assert time.monotonic() < ended, (expression, self.problems, self.value("document.body.innerText"))
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Keys, one after the other: their names, or letters."""
        for key in keys:
            code = {"key": key, "windowsVirtualKeyCode": _CODES.get(key, ord(key[0].upper()))}
            text = key if len(key) == 1 else "\r" if key == "Enter" else ""
            self("Input.dispatchKeyEvent", type="keyDown", text=text, **code)
            self("Input.dispatchKeyEvent", type="keyUp", **code)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self("Input.insertText", text=text)

    @property
    def problems(self) -> list[str]:
        """What the page has failed at, or the browser has complained of."""
        bad = ("Runtime.exceptionThrown", "Log.entryAdded")
        own = [event for event in self.events if event.get("sessionId") == self._session]
        return [str(event) for event in own if event["method"] in bad]

    def picture(self, path: Path) -> None:
        """What is seen, as a PNG."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
