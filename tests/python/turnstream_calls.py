"""Verifies that a call comes from a process that holds Turnstream's key: spec/README.md, "Signed calls".

TURNSTREAM_CALL_KEYS names a file with one or more public keys in PEM (`turnstream nats key` makes them); `unsigned` turns the
check off.
"""

import base64
import hashlib
import os
import re
import sys
from datetime import datetime, timezone

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

SIGNATURE = "Turnstream-Signature"
PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class Verifier:
    def __init__(self, pem):
        self.keys = [load_pem_public_key(key) for key in PEM.findall(pem)]
        self.seen = {}

    @classmethod
    def from_environment(cls):
        path = os.environ.get("TURNSTREAM_CALL_KEYS")
        if path == "unsigned":
            return None
        if not path:
            sys.exit("set TURNSTREAM_CALL_KEYS to the file of Turnstream's public keys")
        with open(path, "rb") as file:
            return cls(file.read())

    def is_genuine(self, subject, headers, payload):
        """Returns true if a call is signed, in time and not repeated."""
        headers = headers or {}
        own = sorted((n, v) for n, v in headers.items() if n.lower().startswith("turnstream-") and n != SIGNATURE)
        lines = ["turnstream call 1", subject, *(f"{name}:{value}" for name, value in own), hashlib.sha256(payload).hexdigest()]
        statement = "".join(f"{line}\n" for line in lines).encode()
        try:
            signature = base64.b64decode(headers[SIGNATURE], validate=True)
            expires = datetime.fromisoformat(headers["Turnstream-Expires"].replace("Z", "+00:00"))
        except (KeyError, ValueError):
            return False
        now = datetime.now(timezone.utc)
        self.seen = {known: until for known, until in self.seen.items() if until > now}
        if expires <= now or signature in self.seen or not any(signed_by(key, signature, statement) for key in self.keys):
            return False
        self.seen[signature] = expires
        return True


def signed_by(key, signature, statement):
    try:
        key.verify(signature, statement)
        return True
    except InvalidSignature:
        return False


def genuine(verifier, handler):
    """A handler of a micro service that answers only genuine calls."""

    async def checked(request):
        if verifier is None or verifier.is_genuine(request.subject, request.headers, request.data):
            await handler(request)
        else:
            await request.respond_error("403", "the call is not signed by Turnstream")

    return checked
