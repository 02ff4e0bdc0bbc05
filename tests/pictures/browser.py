"""A headless Chromium, driven over its debugging pipe with nothing but the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SWITCHES = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


def find() -> str | None:
    """The path of a Chromium or Chrome, if this machine has one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page at a time. `problems` gathers what went wrong in it; `requests` what it asked for."""

    def __init__(self, binary: str, patience: float = 60) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._patience = patience
        self._folder = tempfile.TemporaryDirectory(prefix="patterncc-browser-", ignore_cleanup_errors=True)
        here_in, there_out = map(_high, os.pipe())
        there_in, here_out = map(_high, os.pipe())
        command = [binary, *SWITCHES, f"--user-data-dir={self._folder.name}", "about:blank"]
        quiet = os.open(os.devnull, os.O_RDWR)
        places = ((quiet, 0), (quiet, 1), (quiet, 2), (there_in, 3), (there_out, 4))  # it reads from 3, answers on 4
        actions = [(os.POSIX_SPAWN_DUP2, ours, its) for ours, its in places]
        self._process = os.posix_spawn(binary, command, os.environ, file_actions=actions, setpgroup=0)
        for file in (quiet, there_in, there_out):
            os.close(file)
        self._out, self._in = os.fdopen(here_out, "wb", buffering=0), os.fdopen(here_in, "rb", buffering=0)
        self._number, self._rest, self._session = 0, b"", ""
        try:
            self._attach()
        except (OSError, AssertionError):
            self.close()
            raise

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file and wait until its scripts have run."""
        self.call("Page.navigate", url=f"about:blank?{time.monotonic()}")
        self.call("Page.navigate", url=page.as_uri() + (f"#{fragment}" if fragment else ""))
        end = time.monotonic() + self._patience
        while self.value("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < end, "the page did not load"
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        """What an expression is worth in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def size(self, width: int, height: int, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def pixel(self, x: float, y: float) -> list[int]:
        """The colour of one point of the window, as [red, green, blue]."""
        area = {"x": int(x), "y": int(y), "width": 1, "height": 1, "scale": 1}
        data = base64.b64decode(self.call("Page.captureScreenshot", clip=area)["data"])
        body, at = b"", 8
        while at < len(data):
            (length,) = struct.unpack(">I", data[at : at + 4])
            body += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
            at += 12 + length
        return list(zlib.decompress(body)[1:4])  # a PNG of one pixel: its filter has nothing to refer to

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the DevTools protocol, and its answer; events before it are noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def close(self) -> None:
        self._kill()
        os.waitpid(self._process, 0)
        self._out.close()
        self._in.close()
        self._folder.cleanup()

    def _kill(self) -> None:
        os.killpg(self._process, signal.SIGKILL)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], self._patience)
            assert ready, "the browser does not answer"
            more = self._in.read(1 << 16)
            assert more, "the browser is gone"
            self._rest += more
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, content = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(content["exceptionDetails"]))
        elif method == "Log.entryAdded" or (method == "Runtime.consoleAPICalled" and content["type"] != "log"):
            self.problems.append(json.dumps(content))


def _high(file: int) -> int:
    """The same open file under a number that no place of the browser's has."""
    moved = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(file)
    return moved
