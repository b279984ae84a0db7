"""Verifies an evidence bundle by the instructions in its README, with none of our code."""

import base64
import hashlib
import json
import subprocess
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

COVERED = ("ce-id", "ce-type", "ce-source", "ce-time", "ce-subject", "ce-schemaversion", "ce-prev", "ce-prevdigest")
STATED = ("region", "number", "previous", "covers", "time", "conversations", "events", "root", "key")
ZEROS = "0" * 64


class Forged(Exception):
    """The problem that the verifier found."""


def verify(folder, public_key_pem):
    """Raises Forged, or returns the numbers of verified events and checkpoints."""
    key = load_pem_public_key(public_key_pem)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    _must(manifest["filter"] == {}, "the bundle is of some conversations")
    events = [event for part in manifest["parts"] for event in _events(folder / part["file"])]
    heads_then, count = {}, 0
    checkpoints = list(_checkpoints(folder, key))
    heads_now, last, position = {}, 0, 0
    for checkpoint, changed in checkpoints:
        while position < len(events) and events[position]["seq"] <= checkpoint["covers"]:
            last = _follow(events[position], heads_now, last)
            position += 1
        heads_then.update(changed)
        _must(heads_then == heads_now, f"checkpoint {checkpoint['number']} knows other events")
        _must(_root(heads_then) == checkpoint["root"], f"checkpoint {checkpoint['number']} has another root")
        count = position
    return count, len(checkpoints)


def _events(path):
    content = path.read_bytes()
    if path.suffix == ".zst":
        content = subprocess.run(["zstd", "-d", "-c"], input=content, capture_output=True, check=True).stdout
    return [json.loads(line) for line in content.splitlines()]


def _follow(event, heads, last):
    """Appends an event to its conversation; returns its sequence."""
    headers, seq = event["headers"], event["seq"]
    payload = event["payload"].encode() if "payload" in event else base64.b64decode(event["payloadBase64"])
    covered = "".join(f"{headers.get(name, '')}\n" for name in COVERED)
    digest = hashlib.sha256(f"{event['subject']}\n{covered}\n".encode() + payload).hexdigest()
    prev, before, count = heads.get(headers["ce-subject"], (0, ZEROS, 0))
    _must(headers["ce-subject"] in event["subject"].split("."), f"event {seq} is on another subject")
    _must((int(headers["ce-prev"]), headers["ce-prevdigest"]) == (prev, before), f"event {seq} does not follow")
    _must(seq > last, f"event {seq} is not in its place")
    heads[headers["ce-subject"]] = (seq, digest, count + 1)
    return seq


def _checkpoints(folder, key):
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    previous, number, parts = ZEROS, 0, {}
    for line in (folder / "checkpoints.ndjson").read_bytes().splitlines():
        message = json.loads(line)
        if message["kind"] == "heads":
            parts[hashlib.sha256(line).hexdigest()] = message["heads"]
            continue
        lines = ["turnstream checkpoint 1", *(str(message[name]) for name in STATED), *message["parts"]]
        statement = "".join(f"{line}\n" for line in lines).encode()
        number += 1
        _must((message["number"], message["previous"]) == (number, previous), f"checkpoint {number} does not follow")
        _must(message["key"] == hashlib.sha256(raw).hexdigest(), f"checkpoint {number} is of another key")
        try:
            key.verify(base64.b64decode(message["signature"]), statement)
        except InvalidSignature:
            raise Forged(f"the signature of checkpoint {number} is wrong") from None
        _must(all(part in parts for part in message["parts"]), f"checkpoint {number} lacks heads")
        previous = hashlib.sha256(statement).hexdigest()
        changed = [head for part in message["parts"] for head in parts[part]]
        yield message, {conversation: (seq, digest, events) for conversation, seq, digest, events in changed}


def _root(heads):
    """The root of the tree over all heads."""
    leaves = sorted((UUID(conversation).int, head) for conversation, head in heads.items())
    return _tree(leaves).hex()


def _tree(leaves):
    if len(leaves) == 1:
        conversation, (seq, digest, events) = leaves[0]
        numbers = [seq.to_bytes(8), bytes.fromhex(digest), events.to_bytes(8)]
        return hashlib.sha256(b"\0" + conversation.to_bytes(16) + b"".join(numbers)).digest()
    bit = 1 << ((leaves[0][0] ^ leaves[-1][0]).bit_length() - 1)
    sides = [[leaf for leaf in leaves if bool(leaf[0] & bit) == side] for side in (False, True)]
    return hashlib.sha256(b"\1" + _tree(sides[0]) + _tree(sides[1])).digest()


def _must(holds, what):
    if not holds:
        raise Forged(what)
