"""The page of a replay as a person uses it, in a real Chromium; skipped where there is none."""

import json
import os
import queue
import signal
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from browser import WAIT_TIMEOUT_S, open_page
from conftest import DEBUG_BUILD

# An injection attempt.
EVIL = "<img src=x onerror=\"window.hacked=true\"><script>window.hacked=true</script>"


@pytest.fixture(scope="module")
def conversation(product):
    """A refund that is approved, asked for in hostile words. Returns the conversation's id."""
    with connect(product.ws, proxy=None) as socket:

        def until(wanted, **action):
            socket.send(json.dumps(action))
            while True:
                frame = json.loads(socket.recv(timeout=WAIT_TIMEOUT_S))
                assert frame["type"] != "error", frame
                if frame["type"] == wanted:
                    return frame

        created = until("immediate_response", action="create_conversation_session", requestId="s", userName="Ada")
        session = created["data"]["sessionId"]
        message = "Refund my order ORD-1234 " + EVIL
        asked = {"action": "send_message", "requestId": "r1", "sessionId": session, "message": message}
        until("write_confirmation_required", **asked)
        until("eventual_response", action="confirm_tool_action", requestId="c", sessionId=session, approved=True)
    return created["data"]["conversationId"]


@contextmanager
def replay(product, conversation, speed):
    """A running replay: yields the address of its page."""
    binary = Path(os.environ.get("TURNSTREAM_BIN", DEBUG_BUILD))
    process = subprocess.Popen(
        [binary, "replay", conversation, "--serve", "127.0.0.1:0", "--speed", speed],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "NATS_URL": product.nats},
    )
    try:
        lines = queue.Queue()
        threading.Thread(target=lambda: lines.put(process.stdout.readline()), daemon=True).start()
        line = lines.get(timeout=WAIT_TIMEOUT_S)
        assert line.startswith("showing the replay on "), line
        yield line.removeprefix("showing the replay on ").strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()


def test_a_conversation_is_replayed_as_it_was_shown(product, conversation, tmp_path):
    # At this speed nearly every wait takes the page's maximum.
    with replay(product, conversation, "0.001") as address, open_page(tmp_path) as page:
        page.navigate("Page.navigate", "document.querySelector('#log .user')", url=address)
        page.click("Pause")
        page.wait("document.getElementById('play').textContent === 'Play'")
        assert page.text("#speed option") == "0.001×"
        while page.text("#status") != "the end":
            before = page.evaluate("document.getElementById('progress').value")
            page.press("ArrowRight")
            page.wait(f"document.getElementById('progress').value === {before + 1}")
        assert page.evaluate("document.getElementById('step').disabled")
        shown = page.text("#log")
        assert EVIL in page.text(".user") and page.text(".user b") == "Ada"
        assert "May this be done?" in page.text(".card") and "Approved" in shown
        assert "issue_refund is called" in shown and "issue_refund returned" in shown
        assert page.text(".text").strip() != ""
        assert page.evaluate("window.hacked") is None and page.count("#log script, #log img") == 0

        # Again, at full speed.
        page.evaluate("document.getElementById('speed').value = 'full'")
        page.evaluate("document.getElementById('speed').dispatchEvent(new Event('change'))")
        page.evaluate("document.querySelector('#log .user').dataset.first = 'true'")
        page.click("Restart")
        page.wait("!document.querySelector('[data-first]') && document.getElementById('status').textContent === 'the end'")
        assert page.text("#log") == shown
