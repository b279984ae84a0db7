"""A tool that reads the files that came with the message: each under a subject that the call names."""

import asyncio
import hashlib
import json
import os
import signal

import nats
from nats.micro import add_service

from turnstream_calls import Verifier, genuine

METADATA = {"tool": "true", "description": "Describes the files of the message", "idempotent": "true"}


async def read(connection, subject):
    content = b""
    while True:
        piece = await connection.request(subject, json.dumps({"offset": len(content)}).encode(), timeout=5)
        headers = piece.headers or {}
        if "Nats-Service-Error" in headers:
            raise RuntimeError(headers["Nats-Service-Error"])
        content += piece.data
        if len(content) >= int(headers["Turnstream-Size"]):
            return content


async def main():
    verifier = Verifier.from_environment()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with await nats.connect(os.environ["NATS_URL"], inbox_prefix=b"_INBOX.tool_provider") as connection:

        async def describe_files(request):
            found = []
            for file in json.loads(request.headers.get("Turnstream-Files", "[]")):
                content = await read(connection, file["object"]["read"])
                found.append({"name": file["name"], "sha256": hashlib.sha256(content).hexdigest()})
            await request.respond(json.dumps(found).encode())

        async with await add_service(connection, name="files", version="1.0.0") as service:
            handler = genuine(verifier, describe_files)
            await service.add_endpoint(
                name="describe_files", subject="tool.describe_files", handler=handler, metadata=METADATA
            )
            await connection.flush()
            print("ready", flush=True)
            await stopped.wait()


asyncio.run(main())
