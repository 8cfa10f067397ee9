"""Pages as a reader sees them: headless Chromium, driven over a pipe, without any other dependency."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import write_whole

__all__ = ["Browser", "browsing", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",  # surfaces, without a GPU
)  # fmt: skip
PIPED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads commands from descriptor 3 and answers on 4."""
PATIENCE = 180.0  # seconds for an answer or a page
DEEP = """
const deep = (selector, root = document) => [...root.querySelectorAll(selector),
  ...[...root.querySelectorAll("*")].flatMap((node) => node.shadowRoot ? deep(selector, node.shadowRoot) : [])];
"""
"""Finds elements through the shadow roots that TensorBoard's pages are nested in."""


class Browser:
    """A tab of a running browser; see :func:`browsing`."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers, self._buffer, self._number = commands, answers, b"", 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the DevTools protocol; returns its result.

        Raises:
            InputError: The browser refuses, or does not answer in time.
        """
        self._number += 1
        session = {"sessionId": self._session} if hasattr(self, "_session") else {}
        message = {"id": self._number, "method": method, "params": parameters, **session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._read(method))
            if answer.get("id") != self._number:
                continue  # an event
            if "error" in answer:
                raise InputError(f"Chromium failed to run {method}: {answer['error'].get('message')}.")
            return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression on the page; `deep(selector)` finds elements in shadow roots, too."""
        result = self.ask(
            "Runtime.evaluate", expression=f"(() => {{ {DEEP} return {script}; }})()", returnByValue=True,
            awaitPromise=True,
        )  # fmt: skip
        if "exceptionDetails" in result:
            raise InputError(f"The page failed to evaluate {script}: {result['exceptionDetails'].get('text')}.")
        return result["result"].get("value")

    def wait(self, condition: str) -> None:
        """Waits until a JavaScript expression is true. Raises :class:`InputError` when that takes too long."""
        start = time.monotonic()
        while not self.evaluate(condition):
            if time.monotonic() - start > PATIENCE:
                raise InputError(f"The page did not reach {condition} within {PATIENCE:g} s.")
            time.sleep(0.2)

    def open(self, address: str, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Opens a page in a window of the given size in CSS pixels, in light or dark mode."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url="about:blank")  # so that a page that differs only in its anchor is loaded again
        self.ask("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def resize(self, width: int, height: int) -> None:
        """Resizes the window, in CSS pixels."""
        size = {"width": width, "height": height}
        self.ask("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def overflow(self) -> int:
        """By how many CSS pixels the page is wider than its window."""
        return self.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def shoot(self, path: Path) -> None:
        """Writes a screenshot of the window as PNG, with a palette to keep it small."""
        from PIL import Image

        data = base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"])
        image, encoded = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
        image.quantize(256, dither=Image.Dither.NONE).save(encoded, "PNG", optimize=True)
        write_whole(path, encoded.getvalue())

    def _read(self, method: str) -> bytes:
        """The next message."""
        while b"\0" not in self._buffer:
            if not select.select([self._answers], [], [], PATIENCE)[0]:
                raise InputError(f"Chromium did not answer {method} within {PATIENCE:g} s.")
            if not (more := os.read(self._answers, 1 << 20)):
                raise InputError(f"Chromium ended without answering {method}.")
            self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return message


def find_chromium() -> str:
    """The browser's path. Raises :class:`InputError` if there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise InputError(
        f"Chromium is needed for pictures of pages, but there is no {', '.join(NAMES)} on the path. Install it, on "
        "Debian by `apt-get install chromium`."
    )


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser with a fresh profile, which is deleted afterwards.

    Raises:
        InputError: Chromium is missing, or does not start.
    """
    chromium = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]  # none is 3 or 4 already
        command = [chromium, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            [sys.executable, "-c", PIPED, *map(str, high), *command], pass_fds=high, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (theirs_in, theirs_out, *high):
            os.close(end)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            os.close(ours_out)  # it ends with its pipe
            os.close(ours_in)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait(timeout=20)
