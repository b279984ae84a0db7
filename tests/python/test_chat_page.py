"""The chat page as a person uses it, in a real Chromium over the DevTools protocol; skipped where there is no Chromium."""

import itertools
import json
import os
import shutil
import subprocess
import time
import urllib.request

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
# Notes how long the text of the running turn is, each time it changes.
RECORD_STREAM = """window.streamed = [];
new MutationObserver(() => {
  const length = document.querySelector('.live .text')?.textContent.length;
  if (length && length !== window.streamed.at(-1)) window.streamed.push(length);
}).observe(document.getElementById('log'), { subtree: true, childList: true, characterData: true })"""
READY = "document.body?.classList.contains('ready')"
CARD = "document.querySelector('.card button:enabled')"
IDLE = "document.querySelector('.assistant.ended') && !document.querySelector('.live')"


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

    def navigate(self, method, **params):
        """Goes somewhere and waits until that page has loaded and is connected to the server."""
        self.call(method, **params)
        self._receive(lambda message: message.get("method") == "Page.loadEventFired")
        self.wait(READY)

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
        """Types into whatever has the focus, and presses Enter."""
        self.call("Input.insertText", text=text)
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13)

    def _receive(self, wanted):
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while True:
            message = json.loads(self._socket.recv(timeout=max(deadline - time.monotonic(), 0)))
            self._note_complaint(message)
            if wanted(message):
                return message

    def _note_complaint(self, message):
        """Keeps what the browser complains about: uncaught exceptions, and what a content security policy refused."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(message["params"]["exceptionDetails"])
        elif message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.complaints.append(message["params"]["entry"])


def debugging_address(process, profile):
    """Chromium writes the port it chose, and the path of the browser's own socket, into a file of its profile."""
    port_file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + START_TIMEOUT_S
    while not (port_file.exists() and port_file.read_text().count("\n")):
        assert process.poll() is None, f"the browser ended at once, see {profile.parent}/browser.log"
        assert time.monotonic() < deadline, f"the browser did not start, see {profile.parent}/browser.log"
        time.sleep(0.05)
    return f"127.0.0.1:{port_file.read_text().splitlines()[0]}"


@pytest.fixture
def page(product, tmp_path):
    """The product's chat page in a browser of its own, with an empty conversation."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no Chromium on PATH (looked for {', '.join(BROWSERS)})")
    profile = tmp_path / "profile"
    with (tmp_path / "browser.log").open("wb") as log:
        command = [found, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    try:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(f"http://{debugging_address(process, profile)}/json/list", timeout=START_TIMEOUT_S) as reply:
            target = next(target for target in json.load(reply) if target["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=MAX_FRAME_BYTES, proxy=None) as socket:
            driven = Page(socket)
            for domain in ("Page", "Runtime", "Log"):
                driven.call(f"{domain}.enable")
            driven.navigate("Page.navigate", url=f"{product.http}/")
            yield driven
            assert driven.complaints == []
    finally:
        stop(process)


def stop(process):
    """Ends the browser and its helpers: the session is its own."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()


def test_an_answer_streams_and_shows_its_sources(page):
    page.evaluate(RECORD_STREAM)
    page.write("How long is your return window?")
    page.wait("document.querySelector('.citations li') && " + IDLE)
    assert "17 days" in page.text(".assistant .text")
    assert page.text(".citations li .title")
    streamed = page.evaluate("window.streamed")
    assert len(streamed) >= 3 and streamed == sorted(streamed), f"the text did not grow step by step: {streamed}"


def test_an_approved_refund_is_done(page):
    page.click("Refund my order ORD-1234")
    page.wait(CARD)
    assert "ORD-1234" in page.text(".card p")
    assert page.evaluate("document.activeElement.matches('.card')"), "the card takes the focus"
    assert page.count(".tool.done") == 0, "nothing is done before the approval"
    page.click("Approve")
    page.wait(IDLE)
    assert page.text(".card.settled h3") == "You approved this"
    assert page.count(".tool.done") == 1 and page.count(".tool.error") == 0
    assert "refund" in page.text(".assistant .text").lower()


def test_a_card_outlives_a_reload(page):
    page.click("Refund my order ORD-1234")
    page.wait(CARD)
    page.navigate("Page.reload")
    page.wait(CARD)
    assert page.count(".card") == 1 and page.count(".user") == 1
    assert "ORD-1234" in page.text(".card p") and page.text(".user") == "Refund my order ORD-1234"
    page.click("Reject")
    page.wait(IDLE)
    assert page.text(".card.settled h3") == "You rejected this"
    assert page.count(".tool.error") == 1 and page.count(".tool.done") == 0
    assert page.text(".assistant .text")
