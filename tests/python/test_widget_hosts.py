"""What hosts of the widget rely on: files and their caches, frames, policies, tokens."""

import gzip
import json
import time
import urllib.error
import urllib.request

import jwt
import pytest

from browser import open_page
from product import start_product
from widget_page import IDLE, Widget, widget_on


def test_files_are_cached_by_release(product):
    def get(path, **headers):
        request = urllib.request.Request(product.http + path, headers=headers)
        try:
            with urllib.request.urlopen(request) as reply:
                return reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers, b""

    status, headers, loader = get("/widget/v1/widget.js")
    assert status == 200 and headers["access-control-allow-origin"] == "*" and headers["cache-control"] == "public, no-cache"
    assert get("/widget/v1/widget.js", **{"if-none-match": headers["etag"]})[0] == 304
    release = loader.decode().split("RELEASE = '")[1].split("'")[0]
    status, headers, packed = get(f"/widget/v1/{release}/main.js", **{"accept-encoding": "gzip"})
    assert status == 200 and "immutable" in headers["cache-control"] and headers["content-encoding"] == "gzip"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert gzip.decompress(packed) == get(f"/widget/v1/{release}/main.js")[2]
    # Another release's files are missing, so that the loader asks another edge.
    assert get("/widget/v1/0000000000000000/main.js")[0] == 404 and get("/widget/v1/main.js")[0] == 404


def test_pages_are_compressed_and_not_sent_twice(product):
    for path in ("/", "/audit", "/embed?agent=support"):
        request = urllib.request.Request(product.http + path, headers={"accept-encoding": "gzip"})
        with urllib.request.urlopen(request) as reply:
            etag = reply.headers["etag"]
            assert b"</html>" in gzip.decompress(reply.read()) and "frame-ancestors" in reply.headers["content-security-policy"]
        with pytest.raises(urllib.error.HTTPError) as known:
            urllib.request.urlopen(urllib.request.Request(product.http + path, headers={"if-none-match": etag}))
        assert known.value.code == 304


def test_the_embedded_page_is_for_the_origins_of_the_policy(guarded, product, tmp_path):
    with urllib.request.urlopen(f"{guarded.http}/embed?agent=closed") as reply:
        assert reply.headers["content-security-policy"].endswith("frame-ancestors 'self' https://shop.example")
    with open_page(tmp_path) as page:
        page.navigate("Page.navigate", "document.body", url=f"{product.http}/embed?agent=support&theme=dark&title=Help")
        widget = Widget(page)
        widget.wait("$('textarea') && !$('.panel').hidden && $('.status').textContent === ''")
        assert widget.text("h2") == "Help" and not widget.look("$('.launcher').checkVisibility()")
        widget.say("How long is your return window?")
        widget.wait("$('.sources') && " + IDLE)


# Counts the connections that the page opens.
COUNT_SOCKETS = """window.opened = 0;
window.WebSocket = class extends WebSocket { constructor(...given) { super(...given); window.opened++; } }"""
SECRET = "a secret of thirty-two bytes or so"


def token(expires_in_s):
    claims = {"sub": "u1", "org": "reference-org", "role": "basic", "email": "ada@example.com", "exp": int(time.time()) + expires_in_s}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@pytest.fixture(scope="module")
def guarded(binary, tmp_path_factory):
    """A product with tokens, and a policy that admits another page than ours."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "policies.json").write_text(json.dumps({"closed": {"allowed_origins": ["https://shop.example"]}}))
    more = {"AUTH_JWT_HS256_SECRET": SECRET, "WIDGET_AUTH_FILE": str(folder / "policies.json")}
    with start_product(binary, store=folder / "store", log=folder / "log", more=more) as running:
        yield running


def test_a_refusal_is_said_once_and_not_tried_again(guarded, tmp_path):
    with widget_on(guarded, tmp_path, 'data-agent="closed"', opened=False) as widget:
        widget.wait("$('.launcher')")
        widget.page.evaluate(COUNT_SOCKETS)
        widget.look("$('.launcher').click()")
        widget.wait("$('.status').textContent.includes('not available on this page')")
        widget.page.evaluate("dispatchEvent(new Event('online'))")
        assert widget.page.evaluate("window.opened") == 1 and widget.count(".notice") == 0


def test_an_expired_token_is_renewed_and_never_a_stranger(guarded, tmp_path):
    with widget_on(guarded, tmp_path, opened=False) as widget:
        widget.wait("$('.launcher')")
        ask = "Turnstream.configure({ getToken: async ({ renew }) => (asked.push(renew), renew ? %s : %s) })"
        expired = json.dumps(token(-3600))
        widget.page.evaluate("window.asked = []")
        widget.page.evaluate(ask % (json.dumps(token(600)), expired))
        widget.open()
        assert widget.page.evaluate("window.asked") == [False, True] and widget.count(".notice") == 0
        widget.say("How long is your return window?")
        widget.wait(IDLE)
        # No further token: the widget asks for a sign-in, and does not go on without one.
        widget.page.evaluate(ask % ("null", expired))
        widget.page.evaluate(COUNT_SOCKETS)
        widget.page.evaluate("dispatchEvent(new Event('offline'))")
        widget.wait("$('.status').textContent.includes('Sign in again')")
        assert widget.page.evaluate("window.opened") == 1 and widget.count(".message") == 2
        widget.page.evaluate(ask % (json.dumps(token(600)), expired))
        widget.wait("$('.status').textContent === ''")
        widget.say("How long is your return window?")
        widget.wait("$$('.assistant').length === 2 && " + IDLE)
