"""The chat page as a person uses it, in a real Chromium; skipped where there is none."""

import pytest

from browser import open_page

# Notes how long the text of the running turn is, each time it changes.
RECORD_STREAM = """window.streamed = [];
new MutationObserver(() => {
  const length = document.querySelector('.live .text')?.textContent.length;
  if (length && length !== window.streamed.at(-1)) window.streamed.push(length);
}).observe(document.getElementById('log'), { subtree: true, childList: true, characterData: true })"""
READY = "document.body?.classList.contains('ready')"
CARD = "document.querySelector('.card button:enabled')"
IDLE = "document.querySelector('.assistant.ended') && !document.querySelector('.live')"


@pytest.fixture
def page(product, tmp_path):
    """The product's chat page in a browser of its own, with an empty conversation."""
    with open_page(tmp_path) as page:
        page.navigate("Page.navigate", READY, url=f"{product.http}/")
        yield page


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
    assert page.count(".tool.done") == 0, "no tool is called before the approval"
    page.click("Approve")
    page.wait(IDLE)
    assert page.text(".card.settled h3") == "You approved this"
    assert page.count(".tool.done") == 1 and page.count(".tool.error") == 0
    assert "refund" in page.text(".assistant .text").lower()


def test_a_card_outlives_a_reload(page):
    page.click("Refund my order ORD-1234")
    page.wait(CARD)
    page.navigate("Page.reload", READY)
    page.wait(CARD)
    assert page.count(".card") == 1 and page.count(".user") == 1
    assert "ORD-1234" in page.text(".card p") and page.text(".user") == "Refund my order ORD-1234"
    page.click("Reject")
    page.wait(IDLE)
    assert page.text(".card.settled h3") == "You rejected this"
    assert page.count(".tool.error") == 1 and page.count(".tool.done") == 0
    assert page.text(".assistant .text")
