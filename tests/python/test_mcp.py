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
from published import connected, open_session, play, tool_chunks
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


def declared(tmp_path, declaration, handshake):
    """The settings of a product with this server, which it greets in one way or the other."""
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"ref": {**declaration, "handshake": handshake}}}))
    return {"SMOOTH_AGENT_MCP_CONFIG": str(config)}


def result_of(events):
    """The one tool result of a turn: whether it is an error, and its text."""
    [(_, chunk)] = tool_chunks(events, "toolResult")
    text = chunk["result"]
    return chunk["isError"], text if isinstance(text, str) else json.dumps(text)


@pytest.mark.parametrize("handshake", (True, False))
@pytest.mark.parametrize("transport", ("stdio", "http"))
async def test_tools_of_a_reference_server_are_called(binary, tmp_path, transport, handshake):
    with reference_server(transport) as declaration:
        more = declared(tmp_path, declaration, handshake)
        with start_product(binary, store=tmp_path / "store", log=tmp_path / "log", more=more) as product:
            async with connected(product) as client:

                async def result(tool, arguments):
                    return result_of(await ask_until(client, f"ref__{tool}", arguments, offered, "the tool was not offered"))

                is_error, text = await result("add", {"a": 20, "b": 22})
                assert not is_error and json.loads(text) == {"total": 42}
                is_error, text = await result("fails", {})
                assert is_error and "fails" in text
                if handshake:
                    assert await result("asks", {"case": "ping"}) == (False, "ping: answered")
                    for case in ("sampling", "roots"):
                        assert await result("asks", {"case": case}) == (False, f"{case}: refused with -32601")
                    # It must not be repeated, and so the visitor can't be asked.
                    is_error, text = await result("asks", {"case": "elicitation"})
                    assert not is_error and text.startswith("elicitation: answered") and "declined" in text


@pytest.mark.parametrize("handshake", (True, False))
@pytest.mark.parametrize("transport", ("stdio", "http"))
async def test_a_question_of_a_reference_server_is_answered_after_all_processes_were_replaced(
    binary, tmp_path, transport, handshake
):
    """The published client shows no such forms, so the model asks in words."""
    with reference_server(transport) as declaration:
        more = declared(tmp_path, declaration, handshake)
        start = {"store": tmp_path / "store", "more": more}
        with start_product(binary, log=tmp_path / "log", **start) as product:
            async with connected(product) as client:
                session, _ = await open_session(client)
                asked = {"status": None}
                while asked["status"] != "not_done_yet":
                    turn = client.send_message(session_id=session, message='call ref__greets {"who": "you"}')
                    events = await play(turn)
                    if offered(events):
                        asked = json.loads(result_of(events)[1])
                assert asked["message"] == "The name of you?" and asked["spec"]["fields"][0]["key"] == "name"
        with start_product(binary, log=tmp_path / "second-log", **start) as product:
            async with connected(product) as client:
                answer = 'call submit_interaction {"values": {"name": "Ada"}}'
                events = await play(client.send_message(session_id=session, message=answer))
                assert result_of(events) == (False, "Hello Ada")
