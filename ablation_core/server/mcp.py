"""The explorer for agents: a server of the Model Context Protocol. What it offers is in `agent_tools.py`.

ablation-explorer serve --mcp       # speaks on standard input and output
"""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ablation_core.errors import AblationError, EngineError
from ablation_core.server.access import Access, decide
from ablation_core.server.agent_tools import Tools
from ablation_core.storage import CACHE

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer


def build_server(access: Access | None = None) -> "MCPServer":
    """The server with its tools; `ABLATION_MODELS` and `ABLATION_DATA` say what is offered, as on a shared server.

    Raises:
        EngineError: the package `mcp` is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise EngineError(
            "Agents are served through the package mcp, which is not installed: pip install ablation-explorer[mcp]"
        ) from error

    def in_sentences(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(tool)
        def call(*args: Any, **arguments: Any) -> dict[str, Any]:
            try:
                return tool(*args, **arguments)
            except AblationError as error:
                raise ToolError(str(error)) from error

        return call

    tools = Tools(access or decide({**os.environ, "ABLATION_SHARED": "1"}, CACHE))
    server = MCPServer("ablation-explorer", instructions=(__doc__ or "").partition("\n")[0])
    for tool in (tools.models, tools.statistics, tools.ablate, tools.estimate, tools.head, tools.sweep):
        server.add_tool(in_sentences(tool))
    return server
