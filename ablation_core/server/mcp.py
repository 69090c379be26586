"""The explorer for agents: a server of the Model Context Protocol. What it offers is in `agent_tools.py`.

ablation-explorer serve --mcp       # speaks on standard input and output
"""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ablation_core.errors import AblationError, EngineError
from ablation_core.server.access import Access, decide
from ablation_core.server.agent_arguments import fit_arguments, unknown_tool
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
        from mcp.server.mcpserver import Context, MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise EngineError(
            "Agents are served through the package mcp, which is not installed: pip install ablation-explorer[mcp]"
        ) from error

    offered = Tools(access or decide({**os.environ, "ABLATION_SHARED": "1"}, CACHE))
    tools: dict[str, Callable[..., dict[str, Any]]] = {
        tool.__name__: tool
        for tool in (
            offered.models,
            offered.statistics,
            offered.ablate,
            offered.estimate,
            offered.head,
            offered.sweep,
        )
    }

    def in_sentences(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
        @functools.wraps(tool)
        def call(*args: Any, **arguments: Any) -> dict[str, Any]:
            try:
                return tool(*args, **arguments)
            except AblationError as error:
                raise ToolError(str(error)) from error

        return call

    class Server(MCPServer):
        async def call_tool(
            self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
        ) -> Any:
            try:
                if name not in tools:
                    raise unknown_tool(name, tools)
                arguments = fit_arguments(name, tools[name], arguments)
            except AblationError as error:
                raise ToolError(str(error)) from error
            return await super().call_tool(name, arguments, context)

    server = Server("ablation-explorer", instructions=(__doc__ or "").partition("\n")[0])
    for tool in tools.values():
        server.add_tool(in_sentences(tool))
    return server
