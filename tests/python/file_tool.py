"""A tool that reads the files that came with the message, out of the object store."""

import asyncio
import hashlib
import json
import os
import signal

import nats
from nats.micro import add_service

METADATA = {"tool": "true", "description": "Describes the files of the message", "idempotent": "true"}


async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with await nats.connect(os.environ["NATS_URL"]) as connection:
        streams = connection.jetstream()

        async def describe_files(request):
            found = []
            for file in json.loads(request.headers.get("Turnstream-Files", "[]")):
                store = await streams.object_store(file["object"]["bucket"])
                content = (await store.get(file["object"]["name"])).data
                found.append({"name": file["name"], "sha256": hashlib.sha256(content).hexdigest()})
            await request.respond(json.dumps(found).encode())

        async with await add_service(connection, name="files", version="1.0.0") as service:
            await service.add_endpoint(
                name="describe_files", subject="tool.describe_files", handler=describe_files, metadata=METADATA
            )
            await connection.flush()
            print("ready", flush=True)
            await stopped.wait()


asyncio.run(main())
