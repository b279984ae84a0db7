"""A real Chromium, driven over its DevTools protocol: one from PATH, or the one inside Qt that PySide6 brings.

Without either, tests that need a browser are skipped.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)
QT_BROWSER = Path(__file__).with_name("qt_browser.py")
QT_ENVIRONMENT = {
    "QT_QPA_PLATFORM": "offscreen",
    "QTWEBENGINE_DISABLE_SANDBOX": "1",
    "QTWEBENGINE_CHROMIUM_FLAGS": "--disable-gpu --disable-dev-shm-usage --no-proxy-server",
}
LISTENING = re.compile(r"DevTools listening on ws://([^/\s]+)/")
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 10
WAIT_TIMEOUT_S = 30
MAX_FRAME_BYTES = 16 << 20

# Resolves as soon as the document makes the expression true; woken by changes of the document, not by a clock.
WAIT_UNTIL = """new Promise((resolve) => {
  const look = () => { if (%s) { observer.disconnect(); resolve(true); } };
  const observer = new MutationObserver(look);
  observer.observe(document, { subtree: true, childList: true, characterData: true, attributes: true });
  look();
})"""
KEYS = {"Enter": (13, "\r"), "ArrowLeft": (37, None), "ArrowRight": (39, None), "Home": (36, None), "End": (35, None)}


class Page:
    """One page of a browser, driven through its DevTools socket."""

    def __init__(self, socket):
        self._socket = socket
        self._ids = itertools.count(1)
        self.complaints = []

    def call(self, method, **params):
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        reply = self._receive(lambda message: message.get("id") == number)
        assert "error" not in reply, f"{method}: {reply['error']}"
        return reply["result"]

    def navigate(self, method, ready, **params):
        """Opens a URL and waits until the page has loaded and the expression `ready` is true."""
        self.call(method, **params)
        self._receive(lambda message: message.get("method") == "Page.loadEventFired")
        self.wait(ready)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, f"{expression}: {result['exceptionDetails']}"
        return result["result"].get("value")

    def wait(self, condition):
        try:
            self.evaluate(WAIT_UNTIL % condition)
        except TimeoutError:
            pytest.fail(f"did not come true within {WAIT_TIMEOUT_S} s: {condition}")

    def text(self, selector):
        """The text of the last element that matches."""
        return self.evaluate(f"[...document.querySelectorAll({json.dumps(selector)})].at(-1)?.textContent")

    def count(self, selector):
        return self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, label):
        """Clicks the button with that label, which must be there, visible and enabled."""
        find = "[...document.querySelectorAll('button:enabled')].find(b => b.checkVisibility() && b.textContent === %s).click()"
        self.evaluate(find % json.dumps(label))

    def write(self, text):
        """Types into the focused element, and presses Enter."""
        self.call("Input.insertText", text=text)
        self.press("Enter")

    def press(self, key):
        number, text = KEYS[key]
        more = {"text": text} if text else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=number, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=number)

    def _receive(self, wanted):
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0)))
            self._note_complaint(message)
            if wanted(message):
                return message

    def _note_complaint(self, message):
        """Records the browser's complaints: uncaught exceptions, and refusals by a content security policy."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(message["params"]["exceptionDetails"])
        elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(message["params"]["entry"])


@contextmanager
def open_page(folder):
    """An empty page in a browser of its own, which ends with it. A complaint of the browser fails the test."""
    command, more = _command(folder)
    log_file = folder / "browser.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **more}, start_new_session=True
        )
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{_address(process, log_file)}/json/list", timeout=START_TIMEOUT_S) as reply:
            target = next(target for target in json.load(reply) if target["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=MAX_FRAME_BYTES, proxy=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
            assert page.complaints == []
    finally:
        _stop(process)


def _command(folder):
    """Returns the browser's command and environment."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found:
        return [found, *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"], {}
    # The libraries of the system that Qt needs may be missing, which an import tells.
    known = subprocess.run([sys.executable, QT_BROWSER, "--check"], capture_output=True, text=True)
    if known.returncode == 0:
        return [sys.executable, QT_BROWSER], QT_ENVIRONMENT
    why = (known.stderr.strip().splitlines() or ["?"])[-1]
    pytest.skip(f"no Chromium on PATH (looked for {', '.join(BROWSERS)}), and none of Qt: {why}")


def _address(process, log_file):
    """Returns the port that the browser chose."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (said := LISTENING.search(log_file.read_text(errors="replace"))):
        assert process.poll() is None, f"the browser ended at once, see {log_file}"
        assert time.monotonic() < deadline, f"the browser did not start, see {log_file}"
        time.sleep(0.05)
    return said[1]


def _stop(process):
    """Ends the browser and its helpers: the session is its own."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
