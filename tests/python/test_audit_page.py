"""The auditors' page as a person uses it, in a real Chromium; skipped where there is none."""

import json

import pytest
from websockets.sync.client import connect

from browser import WAIT_TIMEOUT_S, open_page

# An injection attempt, and a mark that reverses the text after it.
EVIL = "<img src=x onerror=\"window.hacked='{0}'\"><script>window.hacked='{0}'</script>\u202e"
LOADED = "document.getElementById('names')?.children.length === 5"
LISTED = "document.querySelector('#found button')"
SHOWN = "document.querySelector('#events button[aria-current]')"
# Keeps the page's downloads instead of saving them.
CATCH_FILES = """window.files = [];
URL.createObjectURL = blob => { window.files.push(blob); return 'blob:' + window.files.length; };
HTMLAnchorElement.prototype.click = () => { document.body.dataset.files = window.files.length; };
window.open = () => null"""


def have_a_conversation(product):
    """A refund that is approved, in a conversation with hostile text. Returns the conversation's id."""
    with connect(product.ws, proxy=None) as socket:

        def until(wanted, **action):
            if action:
                socket.send(json.dumps(action))
            while True:
                frame = json.loads(socket.recv(timeout=WAIT_TIMEOUT_S))
                assert frame["type"] != "error", frame
                if frame["type"] == wanted:
                    return frame

        opened = until(
            "immediate_response", action="create_conversation_session", requestId="s", userName=EVIL.format("name")[:60]
        )
        session, conversation = opened["data"]["sessionId"], opened["data"]["conversationId"]
        until(
            "write_confirmation_required",
            action="send_message",
            requestId="r1",
            sessionId=session,
            message="Refund my order ORD-1234 " + EVIL.format("message"),
        )
        until("eventual_response", action="confirm_tool_action", requestId="c", sessionId=session, approved=True)
        title = "Refund " + EVIL.format("title")
        until(
            "immediate_response",
            action="rename_conversation",
            requestId="n",
            conversationId=conversation,
            title=title,
        )
    return conversation


@pytest.fixture(scope="module")
def conversation(product):
    return have_a_conversation(product)


@pytest.fixture
def page(product, conversation, tmp_path):
    """The page, signed in, with the conversation open."""
    with open_page(tmp_path) as page:
        page.navigate("Page.navigate", LOADED, url=f"{product.http}/audit")
        page.evaluate(CATCH_FILES)
        page.evaluate("document.getElementById('token').focus()")
        page.write("any token")
        page.wait(LISTED)
        page.evaluate(f"document.getElementById('q').value = {json.dumps(conversation)}")
        # The lists of conversations follow the log, a little behind it.
        for _ in range(100):
            page.click("Find conversations")
            page.wait("!document.getElementById('find').disabled")
            if page.count(f"#found button[data-id='{conversation}']") == 1:
                break
        page.evaluate(f"document.querySelector(\"#found button[data-id='{conversation}']\").click()")
        page.wait(SHOWN)
        yield page
        assert page.evaluate("window.hacked") is None
        assert page.count("main img") == 0


def at(page):
    """The sequence of the event that is shown."""
    return int(page.evaluate("document.querySelector('#events button[aria-current]').dataset.seq"))


def test_a_conversation_is_browsed_event_by_event(page):
    events = page.count("#events button")
    assert events == page.count("#scroll circle") >= 10
    assert page.count("#scroll rect.span") >= 5
    assert page.evaluate("[...new Set([...document.querySelectorAll('#scroll circle')].map(c => c.classList[0]))].sort().join()") == (
        "edge,model,tools,user,worker"
    )
    last = at(page)
    page.evaluate("document.activeElement.blur()")
    page.press("ArrowLeft")
    before = at(page)
    words = page.evaluate("document.querySelector('#event dd').textContent")
    assert before < last and page.text("#events button[aria-current] .words").startswith(words)
    page.press("Home")
    assert at(page) < before and page.evaluate("document.getElementById('back').disabled")
    page.press("End")
    assert at(page) == last and page.evaluate("document.getElementById('at').value") == str(events - 1)
    # An event leads to the one before it.
    previous = int(page.text("#event dd button").lstrip("#"))
    page.click(f"#{previous}")
    assert at(page) == previous
    assert "Digest" in page.text("#event dl") and page.text("#event pre").startswith("{")


def test_every_event_shows_its_state_and_changes(page):
    page.click("State")
    page.wait("document.getElementById('whole')")
    whole = json.loads(page.text("#whole"))
    assert whole["turn"] is None and whole["finished"][0]["outcome"] == "Completed"
    page.evaluate("document.getElementById('tab-state').blur()")
    seen = set()
    for _ in range(page.count("#events button") - 1):
        page.press("ArrowLeft")
        now = at(page)
        page.wait(f"document.querySelector('#state h3').textContent === 'Changed by event {now}'")
        state = json.loads(page.text("#whole"))
        assert state["last_seq"] == now
        changed = page.evaluate("[...document.querySelectorAll('#changes li > code')].map(c => c.textContent)")
        assert "/last_seq" in changed
        seen.update(changed)
    assert {"/turn", "/turn/park", "/turn/epoch", "/turn/replies/0/calls/0/result"} <= seen, seen
    assert state["turn"] is None and state["message_count"] == 0, "the beginning"


def test_the_record_is_verified_and_downloaded(page):
    page.click("Verify")
    page.wait("!document.getElementById('chain').hidden")
    events = page.count("#events button")
    assert page.text("#chain").startswith(f"Each of {events} events follows from the one before it.")
    page.click("Report")
    page.wait("document.body.dataset.files === '1'")
    report = page.evaluate("window.files[0].text()")
    assert report.startswith("<!doctype html>") and "<script" not in report and "&lt;script&gt;" in report
    page.click("Download events")
    page.wait("document.body.dataset.files === '2'")
    lines = page.evaluate("window.files[1].text()").splitlines()
    assert len(lines) == events
    assert [json.loads(line)["seq"] for line in lines] == sorted(json.loads(line)["seq"] for line in lines)


def test_hidden_characters_are_shown(page):
    for selector in ("#title", "#found b"):
        assert "\u202e" not in page.text(selector)
    page.press("Home")
    payloads = ""
    for _ in range(page.count("#events button")):
        payloads += page.text("#event")
        page.click("▶") if not page.evaluate("document.getElementById('on').disabled") else None
    assert "⟨U+202E⟩" in payloads and "\u202e" not in payloads


def test_the_timeline_is_drawn_to_scale_and_zoomed(page):
    width = "Number(document.querySelector('#scroll svg').getAttribute('width'))"
    page.evaluate("document.getElementById('scale').click()")
    assert page.count("#scroll line.tick") > 5
    plain = page.evaluate(width)
    page.evaluate("zoom = document.getElementById('zoom'); zoom.value = 3; zoom.dispatchEvent(new Event('input'))")
    assert page.evaluate(width) > 4 * plain


def test_signing_out_clears_all_data(page):
    page.click("Sign out")
    assert page.evaluate("sessionStorage.getItem('turnstream.audit')") == ""
    assert page.count("#found button") == 0
    assert page.evaluate("document.getElementById('shown').checkVisibility()") is False
    page.navigate("Page.reload", LOADED)
    assert page.evaluate("document.getElementById('enter').checkVisibility()")
