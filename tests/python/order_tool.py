"""A tool provider: a NATS micro service with an endpoint that is declared as a tool."""

import asyncio
import json
import os
import signal

import nats
from nats.micro import add_service
from nats.micro.request import ServiceError

from turnstream_calls import Verifier, genuine

ORDERS = {"ORD-7": "on its way", "ORD-8": "being packed"}
PARAMETERS = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
METADATA = {
    "tool": "true",
    "description": "Tells where an order is",
    "parameters": json.dumps(PARAMETERS),
    "idempotent": "true",
}


async def order_status(request):
    order = json.loads(request.data)["order_id"]
    if order not in ORDERS:
        raise ServiceError("404", f"there is no order {order}")
    call = request.headers["Turnstream-Call-Id"]
    await request.respond(json.dumps({"order_id": order, "status": ORDERS[order], "call": call}).encode())


async def main():
    verifier = Verifier.from_environment()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with await nats.connect(os.environ["NATS_URL"], inbox_prefix=b"_INBOX.tool_provider") as connection:
        async with await add_service(connection, name="orders", version="1.0.0") as service:
            await service.add_endpoint(
                name="order_status", subject="tool.order_status", handler=genuine(verifier, order_status), metadata=METADATA
            )
            await connection.flush()
            print("ready", flush=True)
            await stopped.wait()


asyncio.run(main())
