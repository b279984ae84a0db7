"""A server of the reference implementation of MCP: on standard input and output, or with a port over HTTP."""

import sys
from typing import Annotated

from mcp.server.elicitation import AcceptedElicitation, ElicitationResult
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.request_state import RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import SamplingMessage, TextContent, ToolAnnotations
from pydantic import BaseModel

# The state that goes over the client has to be understood after a restart.
security = RequestStateSecurity(keys=["a key of thirty-two bytes, or more"])
server = MCPServer("reference", request_state_security=security)


class Name(BaseModel):
    name: str


async def ask_name(who: str) -> Elicit[Name]:
    """Asks in the form of the revision that was agreed on."""
    return Elicit(f"The name of {who}?", Name)


@server.tool()
def add(a: int, b: int) -> dict[str, int]:
    """Adds two numbers."""
    return {"total": a + b}


@server.tool()
def fails() -> str:
    """Fails."""
    raise ValueError("it went wrong")


@server.tool()
async def asks(case: str, context: Context) -> str:
    """Sends a request to the client."""
    session = context.session
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Who is there?"))
    try:
        if case == "ping":
            await session.send_ping()
        elif case == "sampling":
            await session.create_message([question], max_tokens=10)
        elif case == "roots":
            await session.list_roots()
        else:
            await context.elicit("Your name?", Name)
    except MCPError as error:
        return f"{case}: refused with {error.code}"
    return f"{case}: answered"


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def greets(who: str, name: Annotated[ElicitationResult[Name], Resolve(ask_name)]) -> str:
    """Greets somebody whose name it asks for."""
    match name:
        case AcceptedElicitation(data=Name(name=given)):
            return f"Hello {given}"
        case other:
            return f"No name: {other.action}"


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run()
