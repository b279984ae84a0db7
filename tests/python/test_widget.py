"""The widget on a page of another origin under a strict Content-Security-Policy, in a real Chromium."""

import json
import os
import re
import select
import subprocess
import urllib.request
from contextlib import contextmanager
from importlib.resources import files
from urllib.parse import urlsplit

import pytest

from browser import open_page
from widget_page import IDLE, Widget, host_page, widget_on

CARD = "$('.card:not(.settled) button:enabled')"


@pytest.fixture
def widget(product, tmp_path):
    with widget_on(product, tmp_path) as widget:
        yield widget


def test_an_answer_streams_and_shows_its_sources(widget):
    widget.click("How long is your return window?")
    widget.wait("$('.sources li') && " + IDLE)
    assert "17 days" in widget.text(".assistant .text")
    assert widget.count(".user") == 1 and widget.count("time") == 2
    assert "17 days" in widget.text("[role=status][aria-live=polite]"), "a screen reader is told the answer once"


def test_an_approved_refund_is_done(widget):
    widget.click("Refund my order ORD-1234")
    widget.wait(CARD)
    assert "ORD-1234" in widget.text(".card p")
    assert widget.count(".tool.done") == 0, "no tool is called before the approval"
    widget.click("Approve")
    widget.wait(IDLE)
    assert widget.text(".card.settled h3") == "You approved this."
    assert widget.text(".tool.done") == "✓ Done: issue refund", "a tool's work is told in words"
    assert "refund" in widget.text(".assistant .text").lower()


def test_a_card_outlives_a_reload(widget):
    widget.click("Refund my order ORD-1234")
    widget.wait(CARD)
    widget.page.navigate("Page.reload", "document.body")
    widget.open()
    widget.wait(CARD)
    assert widget.count(".card") == 1 and widget.count(".user") == 1 and widget.count(".assistant") == 1
    widget.click("Reject")
    widget.wait(IDLE)
    assert widget.text(".card.settled h3") == "You rejected this."
    assert widget.count(".tool.bad") == 1 and widget.count(".tool.done") == 0


def test_a_reload_shows_the_conversation(widget):
    widget.say("How long is your return window?")
    widget.wait(IDLE + " && $('.sources')")
    answer = widget.text(".assistant .text")
    widget.page.navigate("Page.reload", "document.body")
    widget.open()
    widget.wait("$('.assistant')")
    assert widget.text(".user .bubble") == "How long is your return window?" and widget.text(".assistant .text") == answer
    assert widget.count(".message") == 2


def test_an_identity_form_names_its_faults(widget):
    fields = {"fields": [{"key": "email"}, {"key": "phone", "required": False}], "reason": "to send the receipt"}
    widget.say(f"call request_identity_intake {json.dumps(fields)}")
    widget.wait("$('.card input[type=email]')")
    assert widget.text(".card p") is not None and "receipt" in widget.look("$('.card').textContent")
    widget.look("$('.card input[type=email]').focus()")
    widget.page.write("nobody")
    widget.wait("$('.card label .error').textContent")
    assert widget.text(".card label:first-child .error") or "valid" in widget.look("$('.card').textContent")
    assert widget.look("$('.card input[type=email]').getAttribute('aria-invalid')") == "true"
    widget.look("($('.card input[type=email]').value = '', $('.card input[type=email]').focus())")
    widget.page.write("ada@example.com")
    widget.wait(IDLE)
    assert widget.text(".card h3") == "Thank you."


def test_choices_are_picked(widget):
    question = {"question": "Which size?", "header": "Size", "options": [{"label": "Small"}, {"label": "Large"}]}
    widget.say(f"call request_choices {json.dumps({'questions': [question], 'reason': 'to order'})}")
    widget.wait("$('.card input[type=radio]')")
    widget.look("$('.card input[value=Large]').click()")
    widget.click("Submit")
    widget.wait(IDLE)
    assert widget.text(".card h3") == "Thank you."
    assert "Large" in widget.text(".assistant .text")


def test_a_form_can_be_skipped(widget):
    widget.say('call request_identity_intake {"fields": [{"key": "name"}], "reason": ""}')
    widget.wait("$('.card input')")
    widget.click("Skip")
    widget.wait(IDLE)
    assert widget.text(".card h3") == "Skipped."


def test_a_parked_turn_can_be_stopped(widget):
    widget.click("Refund my order ORD-1234")
    widget.wait(CARD)
    widget.click("Stop")
    widget.wait("$('.note.ended')")
    assert widget.text(".note.ended") == "You stopped this answer." and widget.count(".live") == 0
    widget.say("How long is your return window?")
    widget.wait("$$('.assistant').length === 2 && " + IDLE)


def test_a_message_that_is_written_offline_is_sent_once(widget):
    widget.page.call("Network.enable")
    offline = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    widget.page.call("Network.emulateNetworkConditions", offline=True, **offline)
    widget.page.evaluate("dispatchEvent(new Event('offline'))")
    widget.wait("$('.status').textContent")
    widget.say("How long is your return window?")
    widget.wait("$('.notice')")
    widget.page.call("Network.emulateNetworkConditions", offline=False, **offline)
    widget.page.evaluate("dispatchEvent(new Event('online'))")
    widget.wait("$('.sources') && " + IDLE)
    assert widget.count(".user") == 1 and widget.count(".assistant") == 1 and widget.count(".notice") == 0
    # The browser reports the connections that failed.
    widget.page.complaints = [found for found in widget.page.complaints if "ERR_INTERNET_DISCONNECTED" not in str(found)]


def test_a_lost_connection_loses_no_part_of_an_answer(widget):
    # Each answer is cut in its stream, some while it is parked; the text must be whole and there once.
    widget.page.evaluate("window.Sockets = []")
    for turn in range(1, 4):
        widget.say("How long is your return window?")
        widget.wait(f"$$('.assistant').length === {turn}")
        widget.page.evaluate("dispatchEvent(new Event('offline'))")
        widget.wait(f"$$('.sources').length === {turn} && " + IDLE)
    texts = widget.look("$$('.assistant .text').map(node => node.textContent)")
    assert len(texts) == 3 and len(set(texts)) == 1 and "17 days" in texts[0], texts
    assert widget.count(".user") == 3


def test_a_new_conversation_is_empty_and_the_old_one_is_found_again(widget):
    widget.say("How long is your return window?")
    widget.wait(IDLE)
    widget.click("New conversation")
    widget.wait("!$('.message') && $('.status').textContent === '' && !$('.welcome').hidden")
    widget.click("Your conversations")
    widget.click("How long is your return window?")
    widget.wait("$('.assistant')")
    assert widget.count(".message") == 2


def test_files_are_sent_with_a_message(widget):
    widget.look("""$('input[type=file]').dispatchEvent(new Event('change'))""")
    widget.page.evaluate(
        """(() => { const root = document.querySelector('turnstream-widget').shadowRoot, data = new DataTransfer();
        data.items.add(new File(['a,b'], 'list.csv', { type: 'text/csv' }));
        root.querySelector('.panel').dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true })); })()"""
    )
    widget.wait("$('.files button')")
    widget.say("What is in it?")
    widget.wait(IDLE)
    assert "list.csv" in widget.text(".user .bubble") and widget.count(".files button") == 0


def test_the_page_drives_the_widget(product, tmp_path):
    with widget_on(product, tmp_path, opened=False) as widget:
        widget.wait("$('.launcher')")
        widget.page.evaluate("(window.heard = [], Turnstream.on('answer', ({ text }) => heard.push(text)).on('open', () => heard.push('open')))")
        widget.page.evaluate("Turnstream.send('How long is your return window?')")
        widget.wait("$('.sources') && " + IDLE)
        heard = widget.page.evaluate("window.heard")
        assert heard[0] == "open" and "17 days" in heard[1] and len(heard) == 2
        globals_ = "Object.keys(window).filter(name => /turnstream/i.test(name))"
        assert widget.page.evaluate(globals_) == ["Turnstream"]
        widget.page.evaluate("Turnstream.destroy()")
        assert widget.page.evaluate("document.querySelector('turnstream-widget') === null && !window.Turnstream")


def test_a_closed_widget_counts_answers(widget):
    widget.click("Refund my order ORD-1234")
    widget.wait(CARD)
    widget.click("Close chat")
    widget.wait("$('.panel').hidden")
    widget.look("$$('.card button').find(b => b.textContent === 'Reject').click()")
    widget.wait("!$('.badge').hidden")
    assert widget.text(".badge [aria-hidden]") == "1"
    widget.open()
    assert widget.look("$('.badge').hidden")


def test_arabic_is_written_from_right_to_left_and_fits_a_small_screen(product, tmp_path):
    with widget_on(product, tmp_path, 'data-agent="support" data-lang="ar"') as widget:
        small = {"width": 320, "height": 560, "deviceScaleFactor": 1, "mobile": False}
        widget.page.call("Emulation.setDeviceMetricsOverride", **small)
        assert widget.look("getComputedStyle($('.panel')).direction") == "rtl"
        widget.say("Refund my order ORD-1234")
        widget.wait(CARD)
        assert widget.text(".card h3") == "موافقتك مطلوبة"
        assert widget.look("$('.panel').getBoundingClientRect().width") == 320
        overflowing = "$$('.panel *').filter(n => n.checkVisibility() && n.getBoundingClientRect().width > 320).length"
        assert widget.look(overflowing) == 0


def test_markdown_is_never_read_as_html(widget):
    text = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) **<b>bold</b>**"
    widget.say(text)
    widget.wait(IDLE)
    assert widget.text(".user .bubble") == text
    assert widget.count("img") == 0 and widget.count("a[href^=javascript]") == 0


MARKDOWN = """# Title

A *slanted* and **bold** `code` with [a link](https://example.com/a) and [none](javascript:alert(1)).

- one
  - nested
- two

3. three
4. four

> quoted
> more

| a | b |
|---|--:|
| 1 | <b>2</b> |

```js
let a = "<script>";
```"""


def test_markdown_grows_into_the_same_elements(product, tmp_path):
    # The text arrives a character at a time and all at once: the elements are the same, and earlier ones are not made anew.
    with open_page(tmp_path) as page, host_page(product.http, 'data-agent="support"') as url:
        page.navigate("Page.navigate", "document.body", url=url)
        Widget(page).wait("$('.launcher')")
        loader = urllib.request.urlopen(f"{product.http}/widget/v1/widget.js").read().decode()
        release = loader.split("RELEASE = '")[1].split("'")[0]
        found = page.evaluate(
            f"""import('{product.http}/widget/v1/{release}/markdown.js').then(({{ Markdown }}) => {{
              const text = {json.dumps(MARKDOWN)}, labels = {{ copy: 'Copy' }}, make = () => new Markdown(document.createElement('div'), labels);
              const [slow, fast] = [make(), make()];
              let first = null, kept = true;
              for (let end = 1; end <= text.length; end++) {{
                slow.show(text.slice(0, end));
                if (end === 40) first = slow.parent.firstChild;
                if (end > 40) kept &&= slow.parent.firstChild === first;
              }}
              fast.show(text);
              return {{ slow: slow.parent.innerHTML, fast: fast.parent.innerHTML, kept }};
            }})"""
        )
    assert found["slow"] == found["fast"] and found["kept"]
    for part in (
        '<h3 dir="auto">Title</h3>',
        "<em>slanted</em>",
        "<strong>bold</strong>",
        '<li>one<ul dir="auto"><li>nested</li></ul></li>',
        '<ol start="3" dir="auto"><li>three</li><li>four</li></ol>',
        "<blockquote",
        "<td dir=\"auto\">&lt;b&gt;2&lt;/b&gt;</td>",
        "let a = \"&lt;script&gt;\";",
        "[none](javascript:alert(1))",
    ):
        assert part in found["fast"], f"{part} is not in {found['fast']}"


@contextmanager
def edge_of(binary, product):
    """A further edge in a process of its own; yields the process and its address."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SMOOTH_", "AUTH_", "WIDGET_", "NATS_"))}
    process = subprocess.Popen(
        [binary, "edge", "--port", "0"], env={**kept, "NATS_URL": product.nats}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        readable, _, _ = select.select([process.stdout], [], [], 30)
        found = re.search(r"http://\S+", process.stdout.readline() if readable else "")
        assert found, "the edge did not get ready"
        yield process, found[0].rstrip("/")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_edge_that_dies_costs_nothing(binary, product, tmp_path):
    with edge_of(binary, product) as (first, near), edge_of(binary, product) as (_, far):
        sockets = " ".join(f"ws://{urlsplit(edge).netloc}" for edge in (near, far))
        policy = f"default-src 'none'; script-src {product.http}; connect-src {sockets}"
        attributes = f'data-agent="support" data-edges="{near},{far}"'
        with host_page(product.http, attributes, policy=policy) as url, open_page(tmp_path) as page:
            page.navigate("Page.navigate", "document.body", url=url)
            widget = Widget(page)
            widget.open()
            widget.say("Refund my order ORD-1234")
            widget.wait(CARD)
            first.kill()
            first.wait()
            widget.wait("$('.status').textContent")
            widget.wait("$('.status').textContent === ''")
            assert widget.count(".card") == 1, "the prompt is there once"
            widget.click("Approve")
            widget.wait(IDLE)
            assert widget.count(".user") == 1 and widget.count(".assistant") == 1 and widget.count(".tool.done") == 1
            # The browser reports connections that fail.
            page.complaints = [found for found in page.complaints if "WebSocket" not in str(found)]


def test_two_tabs_stay_in_step(product, tmp_path):
    policy = f"default-src 'none'; script-src {product.http}; connect-src {product.ws}; frame-src 'self'"
    with host_page(product.http, 'data-agent="support"', policy=policy) as url, open_page(tmp_path) as page:
        page.navigate("Page.navigate", "document.body", url=url)
        widget = Widget(page)
        widget.open()
        widget.say("Refund my order ORD-1234")
        widget.wait(CARD)
        # The second tab is a frame of the same page: it shares the storage, and has a widget and a connection of its own.
        page.evaluate(f"(() => {{ const frame = document.createElement('iframe'); frame.src = {json.dumps(url)}; document.body.append(frame); }})()")
        other = "document.querySelector('iframe').contentDocument.querySelector('turnstream-widget')?.shadowRoot"
        poll = "new Promise(done => {{ const look = () => {{ try {{ if ({0}) return done(true); }} catch {{}} setTimeout(look, 50); }}; look(); }})"
        widget.page.evaluate(poll.format(f"{other}.querySelector('.launcher')"))
        widget.page.evaluate(f"{other}.querySelector('.launcher').click()")
        widget.page.evaluate(poll.format(f"{other}.querySelector('.card button:enabled')"))
        widget.page.evaluate(f"[...{other}.querySelectorAll('.card button')].find(b => b.textContent === 'Approve').click()")
        widget.wait(IDLE)
        assert widget.count(".assistant") == 1 and widget.count(".tool.done") == 1
        widget.say("How long is your return window?")
        widget.page.evaluate(poll.format(f"{other}.querySelectorAll('.assistant:not(.live)').length === 2"))
        shown = widget.page.evaluate(f"[...{other}.querySelectorAll('.user .bubble')].map(node => node.textContent)")
        assert shown == ["Refund my order ORD-1234", "How long is your return window?"]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_fault(product, tmp_path, theme):
    axe = (files("axe_core_python") / "axe.min.js").read_text()
    with widget_on(product, tmp_path, f'data-agent="support" data-theme="{theme}"') as widget:
        widget.page.evaluate(f"{axe}; undefined")

        def faults():
            found = widget.page.evaluate("axe.run(document).then(({ violations }) => violations)")
            return [(fault["id"], [node["html"][:200] for node in fault["nodes"]]) for fault in found]

        assert faults() == [], "empty"
        widget.say("Refund my order ORD-1234")
        widget.wait(CARD)
        assert faults() == [], "with an approval"
        widget.click("Approve")
        widget.wait(IDLE)
        widget.say('call request_identity_intake {"fields": [{"key": "email"}, {"key": "name", "required": false}], "reason": "to help"}')
        widget.wait("$('.card input')")
        assert faults() == [], "with a form"
        widget.click("Skip")
        widget.wait(IDLE)
        widget.say("How long is your return window?")
        widget.wait("$('.sources') && " + IDLE)
        assert faults() == [], "with sources"
        widget.click("Your conversations")
        widget.wait("!$('.chats').hidden")
        assert faults() == [], "with a list"


def test_every_flow_works_by_keyboard(product, tmp_path):
    with widget_on(product, tmp_path) as widget:

        def press(key, code):
            for kind in ("rawKeyDown", "keyUp"):
                widget.page.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

        def tab_to(selector):
            for _ in range(30):
                if widget.look(f"root.activeElement?.matches({json.dumps(selector)})"):
                    return
                press("Tab", 9)
            raise AssertionError(f"Tab never reaches {selector}")

        widget.say("Refund my order ORD-1234")
        widget.wait("root.activeElement?.matches('.card')")
        tab_to(".card button.primary")
        widget.page.press("Enter")
        widget.wait(IDLE)
        assert widget.text(".card.settled h3") == "You approved this."
        tab_to("textarea")
        press("Escape", 27)
        widget.wait("$('.panel').hidden && root.activeElement?.matches('.launcher')")
        widget.page.press("Enter")
        widget.wait("root.activeElement?.matches('textarea')")


def test_a_log_of_a_thousand_answers_can_be_used(product, tmp_path):
    with widget_on(product, tmp_path) as widget:
        widget.say("How long is your return window?")
        widget.wait("$('.sources') && " + IDLE)
        widget.look(
            """(() => { const last = $('.assistant'); for (let i = 0; i < 1000; i++) $('.log').append(last.cloneNode(true)); })()"""
        )
        widget.say("How long is your return window?")
        widget.wait("$$('.user').length === 2 && !$('.live')")
        at_end = "$('.scroll').scrollHeight - $('.scroll').scrollTop - $('.scroll').clientHeight"
        widget.wait(f"{at_end} < 80 || !$('.to-end').hidden")
        widget.look("($('.scroll').scrollTop = 0)")
        widget.wait("!$('.to-end').hidden")
        widget.click("Jump to the end")
        widget.wait("$('.to-end').hidden")
