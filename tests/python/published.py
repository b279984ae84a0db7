"""The published Python client, unchanged, with a strict eye on every frame that it receives.

The client drops a frame that its models refuse without a word; here such a frame fails the test.
"""

import json
import uuid
from contextlib import asynccontextmanager

from smooth_operator import SmoothAgentClient, WebSocketTransport
from smooth_operator.types import parse_event

TERMINAL = {"eventual_response", "error", "cancelled"}
RETURN_QUESTION = "how long is your return window?"
REFUND_REQUEST = "refund my order ORD-1234"


class Recorder:
    """All frames of one connection, and their faults."""

    def __init__(self):
        self.frames = []
        self.faults = []

    def __call__(self, text):
        try:
            frame = json.loads(text)
            parse_event(frame)
        except Exception as error:
            self.faults.append(f"{error}\nin {text}")
            return
        self.frames.append(frame)

    def check(self):
        assert not self.faults, "frames that the client refuses:\n" + "\n".join(self.faults)
        for frame in self.frames:
            assert isinstance(frame.get("timestamp"), int), f"no timestamp: {frame}"
        turns = {frame["requestId"] for frame in self.frames if frame.get("status") == 202}
        for turn in turns:
            check_order(turn, [frame for frame in self.frames if frame.get("requestId") == turn])


def check_order(turn, frames):
    """The 202 comes before every other frame of its turn, and nothing after its one terminal frame."""
    assert frames[0].get("status") == 202, f"turn {turn} begins with {frames[0]}"
    terminals = [index for index, frame in enumerate(frames) if frame["type"] in TERMINAL]
    assert len(terminals) <= 1, f"turn {turn} ends {len(terminals)} times"
    if terminals:
        assert terminals[0] == len(frames) - 1, f"turn {turn} goes on after its end: {frames[terminals[0] + 1 :]}"


@asynccontextmanager
async def connected(product):
    """A connected client; on leaving, every frame that it received is checked."""
    recorder = Recorder()
    transport = WebSocketTransport(product.ws)
    transport.on_message(recorder)
    client = SmoothAgentClient(product.ws, transport=transport, turn_timeout=30.0)
    await client.connect()
    try:
        yield client
        # Frames keep their order, so all earlier frames have arrived with this answer.
        await client.ping()
    finally:
        await client.disconnect()
    recorder.check()


async def open_session(client):
    """A new session, with its ids as text (the client's models hold UUIDs, its actions take text)."""
    session = await client.create_conversation_session(agent_id=str(uuid.uuid4()), user_name="Test")
    return str(session.session_id), str(session.conversation_id)


async def play(turn, at_prompt=None):
    """All events of a turn; `at_prompt` is called when the turn asks for approval."""
    events = []
    async for event in turn:
        events.append(event)
        if event.type == "write_confirmation_required" and at_prompt:
            at_prompt()
    return events


def kinds(events):
    return [event.type for event in events]


def final_text(event):
    """The text of an `eventual_response`."""
    return "".join(event.data.data.response["responseParts"])


def streamed_text(events):
    return "".join(event.token for event in events if event.type == "stream_token")


def tool_chunks(events, key):
    """The `toolCall` or `toolResult` objects among the events, each with its place."""
    chunks = []
    for index, event in enumerate(events):
        if event.type == "stream_chunk" and key in (event.data.state.raw_response or {}):
            chunks.append((index, event.data.state.raw_response[key]))
    return chunks


async def whole_history(client, session, page):
    """All messages of a session's conversation, newest first, read page by page."""
    messages, before = [], None
    while True:
        got = await client.get_messages(session_id=session, limit=page, before=before)
        assert len(got.messages) <= page
        messages += got.messages
        assert got.has_more == (got.next_cursor is not None)
        if not got.has_more:
            return messages
        before = got.next_cursor
