"""Files of a message, read by a tool with the object store of its client library."""

import base64
import hashlib
import json
import random

from published import connected
from test_tools import ask_until, offered, serving
from websockets.asyncio.client import connect

CONTENT = random.Random(7).randbytes(5 * 1024 * 1024)


async def answer_to(socket, action, wanted):
    """Sends an action; returns the first frame of this type, with the frames before it."""
    await socket.send(json.dumps(action))
    frames = []
    while not frames or frames[-1]["type"] != wanted:
        frames.append(json.loads(await socket.recv()))
        assert frames[-1]["type"] != "error", frames[-1]
    return frames


async def test_a_tool_in_python_reads_a_file_of_5_mib(product):
    with serving("file_tool.py", product):
        async with connected(product) as client:
            await ask_until(client, "describe_files", {}, offered, "the tool was not offered")
        async with connect(product.ws, max_size=None) as socket:
            opening = {"action": "create_conversation_session", "requestId": "c"}
            created = await answer_to(socket, opening, "immediate_response")
            data = base64.b64encode(CONTENT).decode()
            message = {
                "action": "send_message",
                "requestId": "m",
                "sessionId": created[-1]["data"]["sessionId"],
                "message": "call describe_files {}",
                "files": [{"name": "Prüfung.pdf", "url": f"data:application/pdf;base64,{data}"}],
            }
            frames = await answer_to(socket, message, "eventual_response")
    chunks = [frame["data"]["state"]["rawResponse"] for frame in frames if frame["type"] == "stream_chunk"]
    [result] = [chunk["toolResult"] for chunk in chunks if "toolResult" in chunk]
    found = result["result"] if isinstance(result["result"], list) else json.loads(result["result"])
    assert found == [{"name": "Prüfung.pdf", "sha256": hashlib.sha256(CONTENT).hexdigest()}]
