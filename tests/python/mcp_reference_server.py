"""A server of the reference implementation of MCP: on standard input and output, or with a port over HTTP."""

import sys

from mcp.server.mcpserver import Context, MCPServer
from mcp.shared.exceptions import MCPError
from mcp_types import SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("reference")


class Name(BaseModel):
    name: str


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


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run()
