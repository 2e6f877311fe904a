"""Requests that are no tool calls: how they are answered, and how an error of ours leaves in a JSON-RPC error.

They are registered on the SDK's low-level server, for only there a request says who sent it. What is not ours goes on
to whoever answered before, so that a program which embeds us can add resources and prompts of its own.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from mcp import MCPError
from mcp.server import MCPServer, Server, ServerRequestContext
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS
from pydantic import BaseModel

from meerkat_mcp.domain.errors import Corrupt, Internal, MeerkatError, Unavailable

P = TypeVar("P", bound=BaseModel)
R = TypeVar("R", bound=BaseModel)

Answer = Callable[[ServerRequestContext[Any, Any], P], Awaitable[R]]

log = logging.getLogger(__name__)


def lowlevel(server: MCPServer[Any]) -> Server[Any]:
    """The SDK's low-level server inside; there is no public way to it."""
    return server._lowlevel_server  # pyright: ignore[reportPrivateUsage]


def answer_with(server: MCPServer[Any], method: str, params_type: type[P], answer: Answer[P, R]) -> None:
    """Let `answer` answer a method; its errors reach the client with their text, a bug as an internal error."""

    async def answered(ctx: ServerRequestContext[Any, Any], params: P) -> R:
        try:
            return await answer(ctx, params)
        except MCPError:
            raise
        except MeerkatError as exc:
            raise refusal(exc, uri=getattr(params, "uri", None)) from None
        except Exception:
            log.exception("%s failed by a bug.", method)
            raise refusal(Internal()) from None

    lowlevel(server).add_request_handler(method, params_type, answered)


def before(server: MCPServer[Any], method: str) -> Callable[[ServerRequestContext[Any, Any], Any], Awaitable[Any]]:
    """Who has answered a method so far."""
    entry = lowlevel(server).get_request_handler(method)
    assert entry is not None, f"the SDK answers {method}"
    return entry.handler


def refusal(error: MeerkatError, *, uri: str | None = None) -> MCPError:
    """The error as the protocol says it: -32602 when another request can help, -32603 when only time or we can.

    The message holds the hint; `data` holds the code, and what else is known.
    """
    ours = isinstance(error, Unavailable | Corrupt | Internal)
    data = {"uri": uri} | error.as_dict() if uri is not None else error.as_dict()
    text = f"{error.message} {error.hint}" if error.hint else error.message
    return MCPError(code=INTERNAL_ERROR if ours else INVALID_PARAMS, message=text, data=data)
