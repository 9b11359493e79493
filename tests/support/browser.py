"""A headless Chromium for tests of pages, spoken to through two pipes (its DevTools protocol): no network, no port, no driver."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def chromium() -> str | None:
    """Return the browser: BIASKIT_CHROMIUM, or one that is installed."""
    return os.environ.get("BIASKIT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def axe() -> Path | None:
    """Return axe-core's script, from BIASKIT_AXE (the file axe.min.js of the npm package axe-core)."""
    path = Path(os.environ.get("BIASKIT_AXE", "nowhere"))
    return path if path.is_file() else None


class Browser:
    """One page of a browser. Use it as a context manager; `requests` are the addresses that the page asked for."""

    def __init__(self, program: str, profile: Path) -> None:
        inward, outward = os.pipe(), os.pipe()
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (inward[0], outward[1])]
        command = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            "--no-first-run", "--hide-scrollbars", "--force-color-profile=srgb", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, pass_fds=(3, 4), preexec_fn=lambda: [os.dup2(fd, at) for fd, at in zip(theirs, (3, 4), strict=True)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for fd in (inward[0], outward[1], *theirs):
            os.close(fd)
        self.write, self.read = os.fdopen(inward[1], "wb", buffering=0), os.fdopen(outward[0], "rb", buffering=0)
        self.rest, self.number, self.session = b"", 0, ""
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.write.close()
        self.process.terminate()
        self.process.wait(20)
        self.read.close()

    def call(self, method: str, **arguments: Any) -> Any:
        """Send one command and return its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": arguments, **({"sessionId": self.session} if self.session else {})}
        self.write.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _next(self) -> Any:
        while b"\0" not in self.rest:
            more = self.read.read(1 << 20)
            assert more, "the browser is gone"
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\0")
        return json.loads(line)

    def _note(self, event: Any) -> None:
        given = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            details = given["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event["method"] == "Log.entryAdded" and given["entry"]["level"] == "error":
            self.errors.append(given["entry"]["text"])

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page, awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, path: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Open a file at a size and in a colour scheme, and wait until it is loaded."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.run(
            "new Promise((done) => { const look = () => document.readyState === 'complete' ? done() : setTimeout(look, 20); look(); })"
        )

    def press(self, key: str) -> None:
        """Press and release one key, as a person would."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind, more in (("keyDown", text), ("keyUp", {})):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **more)

    def point(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a screenshot: of the whole page, or of what is in view."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def violations(self, script: Path) -> list[str]:
        """Return what axe-core finds wrong with the page, by rule and place."""
        self.run(script.read_text(encoding="utf-8") + "; 0")
        where = "one.nodes.map((n) => n.target + ' ' + n.failureSummary).join(' | ')"
        return list(self.run(f"axe.run().then((all) => all.violations.map((one) => one.id + ': ' + {where}))"))
