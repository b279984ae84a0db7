"""MCP against the reference implementation: its client asks our agents, and its server's tools are ours to call."""

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp_types import ElicitResult
from product import start_product
from published import connected, tool_chunks
from test_tools import ask_until, offered

CHOICES = {
    "questions": [
        {"question": "Which size?", "header": "Size", "options": [{"label": "S"}, {"label": "M"}], "multiSelect": False},
        {"question": "Which extras?", "header": "Extras", "options": [{"label": "Box"}, {"label": "Bow"}], "multiSelect": True},
    ]
}
# The handshake of the revisions until 2025-11-25, and the one without a handshake.
MODES = ("legacy", "auto")


def told(result):
    """Returns the text of an answer, and its structured content."""
    assert json.loads(result.content[1].text) == result.structured_content
    return result.content[0].text, result.structured_content


@pytest.mark.parametrize("mode", MODES)
async def test_the_reference_client_asks_an_agent(product, mode):
    async with Client(f"{product.http}/mcp", mode=mode) as client:
        assert client.server_info.name == "turnstream"
        assert client.protocol_version == ("2025-11-25" if mode == "legacy" else "2026-07-28")
        [tool] = (await client.list_tools()).tools
        assert tool.name == "default" and tool.description
        assert tool.input_schema["required"] == ["message"]
        text, first = told(await client.call_tool(tool.name, {"message": "hello"}))
        assert text and first["status"] == "answered"
        more = {"message": "and again", "conversationId": first["conversationId"]}
        _, second = told(await client.call_tool(tool.name, more))
        assert second["conversationId"] == first["conversationId"]
        refused = await client.call_tool(tool.name, {"message": " "})
        assert refused.is_error and "`message`" in told(refused)[0]
        elsewhere = {"message": "hello", "conversationId": "00c1f0a4-6f2e-8d1b-9c55-3f6a2be0d771"}
        refused = await client.call_tool(tool.name, elsewhere)
        assert refused.is_error and told(refused)[1]["code"] == "CONVERSATION_NOT_FOUND"


async def test_a_form_of_an_agent_is_an_elicitation_of_the_current_revision(product):
    asked = []

    async def fill_in(context, params):
        asked.append(params)
        return ElicitResult(action="accept", content={"Size": "M", "Extras": ["Box", "Bow"]})

    async with Client(f"{product.http}/mcp", elicitation_callback=fill_in) as client:
        message = f"call request_choices {json.dumps(CHOICES)}"
        _, answer = told(await client.call_tool("default", {"message": message}))
        assert answer["status"] == "answered"
    [params] = asked
    assert params.requested_schema["properties"]["Size"]["enum"] == ["S", "M"]
    assert params.requested_schema["required"] == ["Size", "Extras"]


SERVER = Path(__file__).with_name("mcp_reference_server.py")
START_TIMEOUT_S = 30


@contextmanager
def reference_server(transport):
    """The declaration of a server; the one over HTTP runs until the end, the other is our worker's child."""
    if transport == "stdio":
        yield {"command": sys.executable, "args": [str(SERVER)]}
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, SERVER, str(port)], stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, "the server did not get ready"
                time.sleep(0.05)
        yield {"url": f"http://127.0.0.1:{port}/mcp"}
    finally:
        process.terminate()
        process.wait()


@pytest.mark.parametrize("transport", ("stdio", "http"))
async def test_tools_of_a_reference_server_are_called(binary, tmp_path, transport):
    with reference_server(transport) as declaration:
        config = tmp_path / "mcp.json"
        config.write_text(json.dumps({"mcpServers": {"ref": declaration}}))
        more = {"SMOOTH_AGENT_MCP_CONFIG": str(config)}
        with start_product(binary, store=tmp_path / "store", log=tmp_path / "log", more=more) as product:
            async with connected(product) as client:

                async def result(tool, arguments):
                    events = await ask_until(client, f"ref__{tool}", arguments, offered, "the tool was not offered")
                    [(_, chunk)] = tool_chunks(events, "toolResult")
                    text = chunk["result"]
                    return chunk["isError"], text if isinstance(text, str) else json.dumps(text)

                is_error, text = await result("add", {"a": 20, "b": 22})
                assert not is_error and json.loads(text) == {"total": 42}
                is_error, text = await result("fails", {})
                assert is_error and "fails" in text
                assert await result("asks", {"case": "ping"}) == (False, "ping: answered")
                for case in ("sampling", "roots", "elicitation"):
                    assert await result("asks", {"case": case}) == (False, f"{case}: refused with -32601")
