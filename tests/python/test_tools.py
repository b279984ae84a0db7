"""Tools are NATS micro services in any language: here order_tool.py, in Python."""

import json
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import nats
from published import connected, final_text, open_session, play, streamed_text, tool_chunks
from turnstream_calls import Verifier

START_TIMEOUT_S = 20
STOP_TIMEOUT_S = 10
# Discovery promises a second; slow machines get some more.
DISCOVERY_DEADLINE_S = 10


@contextmanager
def serving(provider, product):
    """A provider, serving; it is stopped on leaving, or earlier by `terminate()`."""
    environment = {**os.environ, "NATS_URL": product.nats, "TURNSTREAM_CALL_KEYS": product.call_key}
    command = [sys.executable, Path(__file__).with_name(provider)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        assert readable and process.stdout.readline() == "ready\n", "the provider did not get ready"
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


async def ask(client, tool, arguments):
    """One turn in a new conversation, in which the demo model calls the tool if it is offered."""
    session, _ = await open_session(client)
    message = f"call {tool} {json.dumps(arguments)}"
    events = await play(client.send_message(session_id=session, message=message))
    assert events[-1].type == "eventual_response", f"the turn ended with {events[-1]}"
    return events


async def ask_until(client, tool, arguments, wanted, what):
    """Repeats the message until the events match: discovery is quick, not instant."""
    deadline = time.monotonic() + DISCOVERY_DEADLINE_S
    while True:
        events = await ask(client, tool, arguments)
        if wanted(events):
            return events
        assert time.monotonic() < deadline, f"{what} within {DISCOVERY_DEADLINE_S} s"


def offered(events):
    return bool(tool_chunks(events, "toolCall"))


async def test_a_tool_is_offered_and_called_while_its_provider_runs(product):
    async with connected(product) as client:
        with serving("order_tool.py", product) as provider:
            tool, order = "order_status", {"order_id": "ORD-7"}
            events = await ask_until(client, tool, order, offered, "the tool was not offered")
            check_result(events)
            check_error_result(await ask(client, tool, {"order_id": "ORD-0"}))
            provider.terminate()
            provider.wait(STOP_TIMEOUT_S)
            # A call before discovery notices is an error result, and its turn ends well too.
            await ask_until(client, tool, order, lambda events: not offered(events), "the tool was still offered")


async def test_an_unsigned_call_is_refused(product):
    with serving("order_tool.py", product):
        async with await nats.connect(product.nats) as connection:
            forged = {"Turnstream-Call-Id": "x", "Turnstream-Expires": "2999-01-01T00:00:00.000Z"}
            for headers in (None, forged, {**forged, "Turnstream-Signature": "AAAA"}):
                answer = await connection.request("tool.order_status", b'{"order_id": "ORD-7"}', headers=headers)
                assert answer.headers["Nats-Service-Error-Code"] == "403"


async def test_a_signature_counts_for_one_call_once(product):
    seen = []

    async def keep(message):
        seen.append(message)

    with serving("order_tool.py", product):
        async with await nats.connect(product.nats) as connection:
            listener = await connection.subscribe("tool.order_status", cb=keep)
            async with connected(product) as client:
                await ask_until(client, "order_status", {"order_id": "ORD-7"}, offered, "the tool was not offered")
            call = seen[-1]
            verifier = Verifier(Path(product.call_key).read_bytes())
            assert verifier.is_genuine(call.subject, call.headers, call.data)
            assert not verifier.is_genuine(call.subject, call.headers, call.data)
            for subject, headers, payload in (
                ("tool.other", call.headers, call.data),
                (call.subject, {**call.headers, "Turnstream-Org": "other"}, call.data),
                (call.subject, {**call.headers, "turnstream-org": "other"}, call.data),
                (call.subject, call.headers, b"{}"),
            ):
                verifier = Verifier(Path(product.call_key).read_bytes())
                assert not verifier.is_genuine(subject, headers, payload)
            again = await connection.request(call.subject, call.data, headers=call.headers)
            assert again.headers["Nats-Service-Error-Code"] == "403"
            await listener.unsubscribe()


def check_result(events):
    [(called, call)] = tool_chunks(events, "toolCall")
    [(returned, result)] = tool_chunks(events, "toolResult")
    assert called < returned
    assert events[called].node == events[returned].node == call["name"] == result["name"] == "order_status"
    assert json.loads(call["arguments"]) == {"order_id": "ORD-7"}
    assert result["isError"] is False
    answer = result["result"] if isinstance(result["result"], dict) else json.loads(result["result"])
    assert (answer["order_id"], answer["status"]) == ("ORD-7", "on its way")
    assert answer["call"], "the provider got no call id"
    assert final_text(events[-1]) and streamed_text(events[returned:]) == final_text(events[-1])


def check_error_result(events):
    [(_, result)] = tool_chunks(events, "toolResult")
    assert result["isError"] is True
    assert "there is no order ORD-0" in str(result["result"])
    assert final_text(events[-1])
