"""An MCP server with nothing but the standard library: on standard input and output, or with a port over HTTP.

Its tools do what a test wants to see. What it is doing it says on standard error.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

READS = {"readOnlyHint": True}
TOOLS = [
    {"name": "about_call", "description": "What the server knows of a call", "annotations": READS},
    {"name": "add", "description": "Adds two numbers", "annotations": READS},
    {"name": "fails", "description": "Says that it failed"},
    {"name": "grow", "description": "Makes one tool more"},
    {"name": "picture", "description": "Shows a picture", "annotations": {"idempotentHint": True}},
    {"name": "wait", "description": "Never answers", "annotations": {"destructiveHint": True}},
    {"name": "wait_once", "description": "Answers from the second time on", "annotations": READS},
]
PAGE = 3
# Malformed and unusual tools.
ODD = [
    {"name": "odd_null", "description": "Has a null schema", "inputSchema": None},
    {"name": "odd_list", "description": "Has a list for a schema", "inputSchema": []},
    {"name": "odd_text", "description": "Takes a text", "inputSchema": {"type": "string"}},
    {"name": "odd_hints", "description": "Has odd hints", "annotations": "none"},
    {"name": "odd.name", "description": "Has a name that is made legal"},
    {"name": "odd/name", "description": "Has a name that becomes the same"},
    {"name": "odd_kinds", "description": "Answers in unknown kinds", "annotations": READS},
    {"name": "odd_large", "description": "Answers more than a message holds", "annotations": READS},
]
# The requests of a server to its client, by the name of the case.
ASKED = {
    "ping": ("ping", {}),
    "sampling": (
        "sampling/createMessage",
        {"messages": [{"role": "user", "content": {"type": "text", "text": "Who is there?"}}], "maxTokens": 10},
    ),
    "roots": ("roots/list", {}),
    "unknown": ("no/such", {}),
}
if "ASKS" in os.environ:
    TOOLS.append({"name": "asks", "description": "Asks its client back", "annotations": READS})
if "ODD" in os.environ:
    TOOLS = TOOLS[:2] + ODD


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def text(words):
    return {"content": [{"type": "text", "text": words}]}


def call(name, arguments, meta, notify):
    """Returns the result of a call; None = no answer."""
    mark = Path(os.environ.get("STATE", "")) / "called"
    is_first = name == "wait_once" and not mark.exists()
    if is_first:
        mark.touch()
    # The reader may end the process at once.
    say("called", name, meta.get("turnstream/callId"), os.getpid())
    if name == "about_call":
        return text(json.dumps({"meta": meta, "environment": dict(os.environ)}))
    if name == "add":
        total = {"total": arguments["a"] + arguments["b"]}
        return {**text(json.dumps(total)), "structuredContent": total}
    if name == "asks":
        return text(json.dumps({case: ask(*ASKED[case]) for case in ASKED}))
    if name == "fails":
        return {**text("it went wrong"), "isError": True}
    if name == "grow":
        TOOLS.append({"name": "grown", "description": "New"})
        notify("notifications/tools/list_changed")
        return text("grown")
    if name == "picture":
        image = {"type": "image", "data": "AA==", "mimeType": "image/png"}
        return {"content": [{"type": "text", "text": "look:"}, image], "structuredContent": {"of": "a cat"}}
    if name == "odd_kinds":
        parts = [{"type": "text", "text": "before"}, {"type": "hologram", "depth": 3}, {"type": "text", "text": "after"}]
        return {"content": parts}
    if name == "odd_large":
        return text("x" * (5 * 1024 * 1024))
    if name.startswith("odd"):
        return text("called " + name)
    if name == "wait_once" and not is_first:
        return text("read " + meta["turnstream/callId"])
    return None


def ask(method, params):
    """Sends a request to the client over the pipes; returns the result, or the error's code and message."""
    print(json.dumps({"jsonrpc": "2.0", "id": "of the server", "method": method, "params": params}), flush=True)
    for line in sys.stdin:
        reply = json.loads(line)
        if reply.get("id") == "of the server":
            error = reply.get("error")
            return [error["code"], error["message"]] if error else reply["result"]
    return None


def answer(message, notify):
    """Returns the answer to a message, or None."""
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        if method == "notifications/cancelled":
            say("cancelled", params["requestId"])
        return None
    if method == "initialize":
        tools = {"tools": {"listChanged": True}}
        server = {"name": "test", "version": "1"}
        result = {"protocolVersion": "2025-06-18", "capabilities": tools, "serverInfo": server}
    elif method == "tools/list":
        begin = int(params.get("cursor") or 0)
        page = [{"inputSchema": {"type": "object"}, **tool} for tool in TOOLS[begin : begin + PAGE]]
        result = {"tools": page}
        if begin + PAGE < len(TOOLS):
            result["nextCursor"] = str(begin + PAGE)
    elif method == "tools/call":
        result = call(params["name"], params.get("arguments") or {}, params.get("_meta") or {}, notify)
        if result is None:
            return None
    elif method == "ping":
        result = {}
    else:
        return {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no such method"}}
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def serve_pipes():
    def send(message):
        print(json.dumps(message), flush=True)

    def notify(method):
        send({"jsonrpc": "2.0", "method": method})

    for line in sys.stdin:
        reply = answer(json.loads(line), notify)
        if reply:
            send(reply)
    while os.environ.get("STUBBORN"):
        time.sleep(60)


class OverHttp(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    session = str(os.getpid())

    def log_message(self, *_):
        pass

    def reply(self, status, content_type="text/plain", body=b"", headers=()):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer " + os.environ["TOKEN"]:
            return self.reply(401)
        opens = message.get("method") == "initialize"
        if not opens and self.headers.get("Mcp-Session-Id") != self.session:
            return self.reply(404)
        reply = answer(message, lambda method: None)
        if reply is None and "id" in message:
            threading.Event().wait()
        if reply is None:
            return self.reply(202)
        body = json.dumps(reply).encode()
        session = [("Mcp-Session-Id", self.session)] if opens else []
        if (message.get("params") or {}).get("name") == "picture":
            return self.reply(200, "text/event-stream", b"event: message\ndata: " + body + b"\n\n", session)
        return self.reply(200, "application/json", body, session)

    def do_GET(self):
        self.reply(405)

    def do_DELETE(self):
        self.reply(200)


def main():
    if "NEEDS" in os.environ and not Path(os.environ["NEEDS"]).exists():
        sys.exit("what it needs is not there")
    say("started", os.getpid())
    if len(sys.argv) == 1:
        return serve_pipes()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), OverHttp)
    say("listening on port", server.server_port)
    server.serve_forever()


main()
