"""A host page of another origin under a strict Content-Security-Policy, with the widget on it."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from browser import WAIT_TIMEOUT_S, open_page

ROOT = "document.querySelector('turnstream-widget')?.shadowRoot"
# Resolves as soon as the widget's shadow tree makes the expression true; `$` and `$$` look into it.
LOOK = """const root = %s, $ = (s) => root?.querySelector(s), $$ = (s) => [...(root?.querySelectorAll(s) ?? [])];"""
WAIT = """new Promise((resolve) => {
  const look = () => { %s try { if (%s) { seen.forEach((o) => o.disconnect()); resolve(true); } } catch (e) { if (!(e instanceof TypeError)) throw e; }
    if (root && !watched) { watched = true; watch(root); } };
  let watched = false;
  const seen = [];
  const watch = (node) => { const o = new MutationObserver(look); seen.push(o); o.observe(node, { subtree: true, childList: true, characterData: true, attributes: true }); };
  watch(document);
  look();
})"""
IDLE = "$('.assistant') && !$('.live')"
EXAMPLES = "How long is your return window?|Refund my order ORD-1234"


@contextmanager
def host_page(edge, attributes="", policy=None, body=""):
    """Serves a page that embeds the widget; yields its URL."""
    socket = f"ws://{urlsplit(edge).netloc}"
    policy = policy or f"default-src 'none'; script-src {edge}; connect-src {socket}; base-uri 'none'; form-action 'none'"
    html = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>A shop</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"></head><body><main><h1>A shop</h1>'
        f'<p>Welcome.</p></main><script async src="{edge}/widget/v1/widget.js" {attributes}></script>{body}</body></html>'
    ).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-security-policy", f"{policy}; img-src data:")
            self.send_header("content-length", str(len(html)))
            self.end_headers()
            self.wfile.write(html)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class Widget:
    """The widget of a page, driven as a visitor would."""

    def __init__(self, page):
        self.page = page

    def look(self, expression):
        return self.page.evaluate(f"(() => {{ {LOOK % ROOT} return {expression}; }})()")

    def wait(self, condition):
        try:
            self.page.evaluate(WAIT % (LOOK % ROOT, condition))
        except TimeoutError:
            shown = self.look("$('.panel')?.innerText")
            raise AssertionError(f"did not come true within {WAIT_TIMEOUT_S} s: {condition}; the panel: {shown}") from None

    def text(self, selector):
        """The text of the last element that matches."""
        return self.look(f"$$({json.dumps(selector)}).at(-1)?.textContent")

    def count(self, selector):
        return self.look(f"$$({json.dumps(selector)}).length")

    def click(self, label):
        """Clicks the button with that text or label, which must be there, visible and enabled."""
        names = json.dumps(label)
        find = f"$$('button:enabled').find(b => b.checkVisibility() && [b.textContent, b.ariaLabel].includes({names}))"
        self.wait(find)
        self.look(f"{find}.click()")

    def say(self, text):
        self.look("$('textarea').focus()")
        self.page.write(text)

    def open(self):
        self.wait("$('.launcher')")
        self.look("$('.panel').hidden && $('.launcher').click()")
        self.wait("!$('.panel').hidden && $('.status').textContent === ''")


@contextmanager
def widget_on(product, folder, attributes='data-agent="support"', body="", opened=True):
    """The widget on a host page in a browser of its own, with an empty conversation."""
    attributes = f'{attributes} data-examples="{EXAMPLES}"'
    with host_page(product.http, attributes, body=body) as url, open_page(folder) as page:
        page.navigate("Page.navigate", "document.body", url=url)
        widget = Widget(page)
        if opened:
            widget.open()
        yield widget
