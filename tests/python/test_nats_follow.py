"""A conversation can be followed and read with a plain NATS client, without any of our code."""

import json
from datetime import datetime

import nats

from published import RETURN_QUESTION, connected, final_text, open_session

EVENT_TIMEOUT_S = 10


async def test_a_conversation_is_followed_by_subject(product):
    connection = await nats.connect(product.nats)
    try:
        async with connected(product) as client:
            session, conversation = await open_session(client)
            final = await client.send_message(session_id=session, message=RETURN_QUESTION)
        events = await follow(connection, conversation)
    finally:
        await connection.close()

    names = [".".join(event.subject.split(".")[4:6]) for event in events]
    assert names == ["session.opened", "turn.requested", "turn.started", "turn.completed"]
    assert events[1].subject.split(".")[6:] == ["default"], "a work item names its worker pool"
    previous = 0
    for name, event in zip(names, events, strict=True):
        headers = event.headers
        assert headers["ce-specversion"] == "1.0"
        assert headers["ce-type"] == f"turnstream.{name}"
        assert headers["ce-source"]
        assert headers["ce-subject"] == conversation
        assert headers["ce-id"] == headers["Nats-Msg-Id"]
        assert datetime.fromisoformat(headers["ce-time"]).tzinfo is not None
        assert int(headers["ce-prev"]) == previous, "the events are one chain"
        previous = event.metadata.sequence.stream
    assert len({event.headers["ce-id"] for event in events}) == len(events)
    payloads = [json.loads(event.data) for event in events]
    assert all(isinstance(payload, dict) for payload in payloads)
    assert RETURN_QUESTION in texts(payloads[1])
    assert final_text(final) in texts(payloads[3])


async def follow(connection, conversation):
    """The conversation's events from its first to the end of its first turn."""
    subject = f"chat.local.*.{conversation}.>"
    subscription = await connection.jetstream().subscribe(subject, stream="CHAT_local", ordered_consumer=True)
    events = []
    while not events or ".turn.completed" not in events[-1].subject:
        events.append(await subscription.next_msg(timeout=EVENT_TIMEOUT_S))
    await subscription.unsubscribe()
    return events


def texts(value):
    """All strings inside a JSON value."""
    if isinstance(value, str):
        return [value]
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for child in children for text in texts(child)]
