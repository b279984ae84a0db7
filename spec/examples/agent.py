#!/usr/bin/env python3
"""An agent in plain Python, one process for each step:

    turnstream worker --agent "exec:python3 spec/examples/agent.py"

It reads one request from its input and writes its reply to its output, a line of JSON at a time.
"""

import json
import sys
import threading
import time


def say(message):
    with LOCK:
        print(json.dumps(message), flush=True)


def at_work():
    """Three seconds of silence end a step, so a thread says every second that it goes on."""
    while True:
        say({})
        time.sleep(1)


def answer(request):
    """Calls a tool for a refund, and repeats everything else. A real agent asks a model here."""
    offered = {tool["name"] for tool in request["tools"]}
    if request["steps"]:
        last = request["steps"][-1]["calls"][-1]
        asked = (request["memo"] or {}).get("order", "?")
        yield {"text": f"The tool says about {asked}: "}
        yield {"text": last["result"]}
    elif "refund" in request["message"] and "issue_refund" in offered:
        order = request["message"].split()[-1]
        yield {"text": "Let me see. "}
        yield {"memo": {"order": order}}
        yield {"call": {"name": "issue_refund", "arguments": {"order_id": order}, "confirm": True}}
    else:
        for word in request["message"].split():
            yield {"text": word + " "}
        yield {"text": f"(after {len(request['history'])} earlier messages)"}


LOCK = threading.Lock()

if __name__ == "__main__":
    step = json.loads(sys.stdin.readline())
    threading.Thread(target=at_work, daemon=True).start()
    try:
        for message in answer(step):
            say(message)
        say({"done": True})
    except Exception as error:  # The text goes to the operator's log, never to a visitor.
        say({"error": repr(error)})
