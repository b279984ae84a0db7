"""Fills a log with made-up conversations in their stored form, to measure on: fill_log.py NATS_URL EVENTS"""

import asyncio
import hashlib
import json
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import nats

SAMPLES = Path(__file__).resolve().parents[2] / "spec" / "samples" / "events"
COVERED = ("ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "ce-schemaversion", "ce-prev", "ce-prevdigest")
TURN = ("turn.requested", "turn.started", "turn.completed")
CONVERSATIONS_AT_ONCE = 200
TURNS = 10
BATCH = 2_000
WORDS = [f"{stem}{ending}" for stem in ("ord", "ship", "refund", "retur", "custom", "deliv") for ending in ("er", "ing", "s")]


async def main(url, wanted):
    connection = await nats.connect(url, pending_size=64 * 1024 * 1024)
    stream = connection.jetstream()
    samples = {name: json.loads((SAMPLES / f"{name}.json").read_text()) for name in ("session.opened", *TURN)}
    seq = (await stream.stream_info("CHAT_local")).state.last_seq
    chance, running, written = random.Random(seq), [], 0
    while written < wanted:
        if len(running) < CONVERSATIONS_AT_ONCE:
            running.append(conversation(chance, samples))
        one = chance.choice(running)
        message = next(one, None)
        if message is None:
            running.remove(one)
            continue
        subject, headers, payload, tail = message
        seq, written = seq + 1, written + 1
        tail["seq"] = seq
        # A round trip from time to time: the server may drop messages of a client that never waits.
        if written % BATCH == 0 or written == wanted:
            ack = await stream.publish(subject, payload, headers=headers, timeout=30)
            assert ack.seq == seq, f"event {seq} was stored as {ack.seq}"
        else:
            await connection.publish(subject, payload, headers=headers)
    await connection.drain()
    print(f"{written} events, the last is {seq}")


def conversation(chance, samples):
    """Yields the messages of a conversation in order; the caller sends back each one's sequence."""
    own = str(UUID(int=chance.getrandbits(128), version=4))
    tail = {"seq": 0, "digest": "0" * 64}
    for name in ("session.opened", *TURN * TURNS):
        payload = json.dumps(with_words(chance, samples[name]["payload"]), separators=(",", ":")).encode()
        kind = name + (".default" if name == "turn.requested" else "")
        subject = f"chat.local.acme-{own[0]}.{own}.{kind}"
        event = f"{chance.getrandbits(128):032x}"
        headers = {
            "Nats-Msg-Id": event,
            "ce-specversion": "1.0",
            "ce-id": event,
            "ce-type": f"turnstream.{name}",
            "ce-source": "/turnstream/worker/fill",
            "ce-time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ce-subject": own,
            "ce-schemaversion": "1",
            "ce-prev": str(tail["seq"]),
            "ce-prevdigest": tail["digest"],
            "content-type": "application/json",
        }
        covered = "".join(f"{headers[name]}\n" for name in COVERED)
        tail["digest"] = hashlib.sha256(f"{subject}\n{covered}\n".encode() + payload).hexdigest()
        yield subject, headers, payload, tail


def with_words(chance, payload):
    """A payload with some text."""
    said = " ".join(chance.choices(WORDS, k=40))
    return {name: f"{value} {said}" if name in ("message", "reply", "text") else value for name, value in payload.items()}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
