"""An MCP server over pipes whose tools ask the visitor and make tasks, with nothing but the standard library.

It speaks one revision alone: the current one, or with REVISION=earlier the last one with a handshake. What it is doing it says on
standard error. Its state is in what it gives its client and in files of the folder STATE: it may be replaced at any time.
"""

import json
import os
import sys
import threading
from pathlib import Path
from queue import Queue

EARLIER = os.environ.get("REVISION") == "earlier"
STATE = Path(os.environ.get("STATE", "."))
READS = {"readOnlyHint": True}
NAMES = {
    "book": None,  # Asks for a day, then for a size and an area at once; must not be called twice.
    "look_up": READS,  # Asks for a name, without a state, and may be repeated.
    "order": None,  # Asks without a state, though it must not be repeated.
    "odd": READS,  # Asks in a way that no form can show, by `case`.
    "endless": READS,  # Asks again and again.
    "fails": READS,  # Asks, then fails with an error of the protocol.
    "work": None,  # A task, which is over when the file `done` is there.
    "work_asks": None,  # A task that asks.
    "work_fails": None,  # A task that fails.
    "add": READS,
}
OBJECT = {"type": "object"}
DAY = {**OBJECT, "properties": {"day": {"type": "string", "format": "date", "title": "Day"}}, "required": ["day"]}
SIZE = {**OBJECT, "properties": {"size": {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]}}}
AREA = {**OBJECT, "properties": {"outside": {"type": "boolean"}}}
NAME = {**OBJECT, "properties": {"name": {"type": "string"}}, "required": ["name"]}
ODD = {
    "huge_message": {"message": "x" * 100_000, "requestedSchema": NAME},
    "huge_schema": {
        "message": "m",
        "requestedSchema": {**OBJECT, "properties": {f"f{n}": {"type": "string"} for n in range(3_000)}},
    },
    "nested": {"message": "m", "requestedSchema": {**OBJECT, "properties": {"a": {"type": "object", "properties": {}}}}},
    "list": {"message": "m", "requestedSchema": {**OBJECT, "properties": {"a": {"type": "array", "items": {}}}}},
    "no_schema": {"message": "m"},
    "null_schema": {"message": "m", "requestedSchema": None},
    "no_message": {"requestedSchema": NAME},
    "url": {"mode": "url", "message": "Sign in", "url": "https://example.com", "elicitationId": "1"},
    "text": "not even an object",
}
out = threading.Lock()
replies = {}


def say(*words):
    print(*words, file=sys.stderr, flush=True)


def send(message):
    with out:
        print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def text(words, is_error=False):
    return {"resultType": "complete", "content": [{"type": "text", "text": words}], "isError": is_error}


class Asks(Exception):
    """The call can't go on without answers."""

    def __init__(self, requests, state):
        self.requests, self.state = requests, state


def elicit(requests, given, state=None):
    """The answers to requests by key, as the revision has it."""
    if EARLIER:
        return {key: ask_client(params) for key, params in requests.items()}
    if given is None or set(given) != set(requests):
        raise Asks(requests, state)
    return given


def ask_client(params):
    key = f"of the server {threading.get_ident()} {len(replies)}"
    replies[key] = Queue()
    send({"id": key, "method": "elicitation/create", "params": params})
    reply = replies[key].get()
    return reply.get("result") or {"action": f"error {reply['error']['code']}"}


def form(message, schema):
    return {"message": message, "requestedSchema": schema}


def said(answer):
    return answer["action"] + (" " + json.dumps(answer["content"], sort_keys=True) if "content" in answer else "")


def call(name, arguments, given, state):
    """The result of a call."""
    past = json.loads(state) if state else {}
    if name == "book":
        day = {"day": form("Which day?", DAY)}
        if "day" in past:
            answer = past["day"]
        else:
            answer = said(elicit(day, given, "{}")["day"])
            given = None
        two = {"area": form("Where?", AREA), "size": form("Which size?", SIZE)}
        rest = elicit(two, given, json.dumps({"day": answer}))
        return text(f"booked: {answer}; {said(rest['area'])}; {said(rest['size'])}")
    if name == "look_up":
        who = arguments.get("who", "you")
        return text(f"found for {who}: " + said(elicit({"name": form(f"The name of {who}?", NAME)}, given)["name"]))
    if name == "order":
        return text("ordered: " + said(elicit({"name": form("Your name?", NAME)}, given)["name"]))
    if name == "odd":
        case = arguments["case"]
        if case in ("sampling", "roots"):
            method = {"sampling": "sampling/createMessage", "roots": "roots/list"}[case]
            raise Asks({"a": {"method": method, "params": {"messages": [], "maxTokens": 1}}}, "s")
        if case == "many":
            requests = {f"k{n}": form(f"Question {n}?", NAME) for n in range(50)}
        elif case == "huge_state":
            raise Asks({"a": form("m", NAME)}, "s" * 100_000)
        elif case == "only_state" and "tries" not in past:
            raise Asks(None, '{"tries": 1}')
        elif case == "only_state":
            return text("odd: at last")
        elif case == "nothing_but_state":
            raise Asks(None, "{}")
        else:
            requests = {"a": ODD[case]}
        return text("odd: " + " ".join(sorted({said(answer) for answer in elicit(requests, given, "{}").values()})))
    if name == "endless":
        for n in range(past.get("n", 0), 1_000):
            answer = elicit({"same key": form(f"And now {n}?", AREA)}, given, json.dumps({"n": n}))["same key"]
            given = None
            if EARLIER and answer["action"] == "decline":
                return text(f"endless: declined after {n}")
        return text("endless: over")
    if name == "fails":
        elicit({"name": form("Your name?", NAME)}, given, "{}")
        raise ValueError("secret internals of the provider")
    if name == "add":
        return text(str(arguments["a"] + arguments["b"]))
    if name.startswith("work"):
        (STATE / name).write_text("working")
        return {"resultType": "task", **task(name)}
    raise KeyError(name)


def task(name):
    """A task as it is, without its payload."""
    status = (STATE / name).read_text()
    at = "2026-11-27T00:00:00Z"
    times = {"createdAt": at, "lastUpdatedAt": at, "ttlMs": None, "pollIntervalMs": 250}
    return {"taskId": name, "status": status, **times}


def look_at(name):
    say("looked at", name, os.getpid())
    mark = STATE / name
    if not mark.exists():
        raise ValueError("no such task")
    if mark.read_text() == "working":
        if name == "work_fails":
            return {**task(name), "status": "failed", "error": {"code": 1, "message": "secret internals"}}
        if name == "work_asks":
            answer = STATE / "answer"
            if not answer.exists():
                requests = {"name": {"method": "elicitation/create", "params": form("Your name?", NAME)}}
                return {**task(name), "status": "input_required", "inputRequests": requests}
            return {**task(name), "status": "completed", "result": text("worked: " + answer.read_text())}
        if (STATE / "done").exists():
            return {**task(name), "status": "completed", "result": text("worked")}
    return task(name)


def answer(message):
    method, params = message["method"], message.get("params") or {}
    if method == "initialize" and EARLIER:
        server = {"name": "asks", "version": "1"}
        return {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "server/discover" and not EARLIER:
        meta = params["_meta"]
        assert meta["io.modelcontextprotocol/clientCapabilities"]["elicitation"] == {"form": {}}, meta
        versions = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        return {"resultType": "complete", **versions, "ttlMs": 0, "cacheScope": "private"}
    if method == "tools/list":
        schema = {"type": "object", "additionalProperties": True}
        tools = [{"name": name, "description": name, "inputSchema": schema} for name in NAMES]
        return {"resultType": "complete", "tools": [{**tool, "annotations": NAMES[tool["name"]] or {}} for tool in tools]}
    if method == "tools/call":
        given, state = params.get("inputResponses"), params.get("requestState")
        name = params["name"]
        say("called", name, json.dumps(params.get("arguments")), "with", json.dumps(given), state, os.getpid())
        try:
            return call(name, params.get("arguments") or {}, given, state)
        except Asks as asks:
            requests = asks.requests and {
                key: params if isinstance(params, dict) and "method" in params else {"method": "elicitation/create", "params": params}
                for key, params in asks.requests.items()
            }
            result = {"resultType": "input_required", "inputRequests": requests, "requestState": asks.state}
            return {key: value for key, value in result.items() if value is not None}
    if method == "tasks/get":
        return {"resultType": "complete", **look_at(params["taskId"])}
    if method == "tasks/update":
        (STATE / "answer").write_text(said(params["inputResponses"]["name"]))
        return {"resultType": "complete"}
    if method == "tasks/cancel":
        say("cancelled task", params["taskId"])
        (STATE / params["taskId"]).write_text("cancelled")
        return {"resultType": "complete"}
    if method == "ping":
        return {}
    raise LookupError(method)


def serve(message):
    try:
        send({"id": message["id"], "result": answer(message)})
    except LookupError as error:
        send({"id": message["id"], "error": {"code": -32601, "message": f"no such method {error}"}})
    except Exception as error:
        send({"id": message["id"], "error": {"code": -32603, "message": str(error)}})


say("started", os.getpid())
for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        replies[message["id"]].put(message)
    elif "id" in message:
        threading.Thread(target=serve, args=(message,), daemon=True).start()
    elif message["method"] == "notifications/cancelled":
        say("cancelled", message["params"]["requestId"])
