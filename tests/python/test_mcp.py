"""MCP against the reference implementation: its client asks our agents, and its server's tools are ours to call."""

import json

import pytest
from mcp import Client
from mcp_types import ElicitResult

CHOICES = {
    "questions": [
        {"question": "Which size?", "header": "Size", "options": [{"label": "S"}, {"label": "M"}], "multiSelect": False},
        {"question": "Which extras?", "header": "Extras", "options": [{"label": "Box"}, {"label": "Bow"}], "multiSelect": True},
    ]
}
# The handshake of the revisions until 2025-11-25, and the one without a handshake.
MODES = ("legacy", "auto")


def told(result):
    """The text of an answer, and what it says beside."""
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
