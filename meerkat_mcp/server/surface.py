"""One MCP tool: a function from a closed input model to an output model; and how errors reach a caller's model.

An error that a caller could act on is a tool error: `isError`, one text block of compact JSON, no structured
content (hosts differ in which of the two they show, and some validate what is structured). Only a malformed
request is a JSON-RPC error. We validate the arguments ourselves: the SDK ignores unknown ones, reads strings
as JSON, and shows values and addresses in its messages.
"""

import inspect
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast, get_type_hints

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.tools import Tool
from mcp.server.mcpserver.utilities.func_metadata import ArgModelBase, FuncMetadata
from mcp.types import CallToolResult, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from meerkat_mcp.domain.config import explain
from meerkat_mcp.domain.errors import Internal, InvalidRequest, MeerkatError
from meerkat_mcp.domain.messages import JsonObject

log = logging.getLogger(__name__)

Body = Callable[[Any, Context[Any, Any]], Awaitable[BaseModel]]


class Rejected(MeerkatError):
    """A turn that failed: the error a caller gets, with where to go on."""

    def __init__(self, error: JsonObject, session_id: str, turn_id: str | None) -> None:
        super().__init__(str(error.get("message", "The turn failed.")))
        self._error = error | {"session_id": session_id, "turn_id": turn_id}

    def as_dict(self) -> JsonObject:
        """The recorded error, and the ids."""
        return self._error


class InputNeeded(Exception):
    """A call that cannot end before its host has asked somebody: it gets the questions, and calls again."""

    def __init__(self, questions: InputRequiredResult) -> None:
        super().__init__()
        self.questions = questions


class SurfaceTool(Tool):
    """A tool of our surface, as the SDK's server takes it."""

    body: Body = Field(exclude=True)
    input_model: type[BaseModel] = Field(exclude=True)

    async def run(self, arguments: JsonObject, context: Context[Any, Any], convert_result: bool = False) -> Any:
        """Decode, do, encode."""
        try:
            return succeeded(await self.body(self._decoded(arguments), context))
        except MCPError:
            raise
        except InputNeeded as needed:
            return needed.questions
        except MeerkatError as exc:
            return failed(exc)
        except Exception:
            log.exception("Tool %s failed by a bug.", self.name)
            return failed(Internal())

    def _decoded(self, arguments: JsonObject) -> BaseModel:
        try:
            return self.input_model.model_validate(arguments)
        except ValidationError as exc:
            raise InvalidRequest(
                f"Invalid arguments for {self.name}: {explain(exc, self.input_model)}.",
                hint="Correct the arguments and call again; the tool's input schema says what it takes.",
            ) from None
        except RecursionError:
            raise InvalidRequest(f"The arguments for {self.name} are nested too deeply.") from None


def tool(body: Body, title: str, annotations: ToolAnnotations, meta: JsonObject | None = None) -> SurfaceTool:
    """A function as a tool: its name, its docstring as the description, and what its signature takes and gives."""
    hints = get_type_hints(body)
    takes, gives = hints["given"], hints["return"]
    return SurfaceTool(
        fn=body,
        body=body,
        input_model=takes,
        name=cast(Any, body).__name__,
        title=title,
        description=" ".join((inspect.getdoc(body) or "").split()),
        parameters=compact(takes),
        fn_metadata=FuncMetadata(arg_model=ArgModelBase, output_schema=compact(gives, gives=True)),
        is_async=True,
        context_kwarg=None,
        annotations=annotations,
        meta=meta,
    )


def succeeded(result: BaseModel) -> CallToolResult:
    """A result: structured, and the same JSON as text for hosts that only read text."""
    body = result.model_dump(mode="json", exclude_none=True)
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=body)


def failed(error: MeerkatError) -> CallToolResult:
    """A tool error that a model can act on."""
    text = json.dumps({"error": error.as_dict()}, ensure_ascii=False, separators=(",", ":"), default=str)
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=True)


_UNSAID = ("title", "minLength", "maxLength", "maxItems", "maxProperties", "propertyNames")
"""What a caller's model need not read: lengths are generous, and an error says which one was exceeded."""


def compact(model: type[BaseModel], *, gives: bool = False) -> JsonObject:
    """The model's JSON Schema, short enough to be read on every request of a host: its own fields first.

    With `gives` it describes what we give, which may grow by new fields, not what we take.
    """
    schema = _slim(model.model_json_schema(mode="serialization" if gives else "validation"), closed=not gives)
    own = model.__annotations__
    described = getattr(model, "DESCRIBED_BY", None)
    for name in described.model_fields if described is not None else ():
        if name not in own:
            schema["properties"][name].pop("description", None)
    schema["properties"] = dict(sorted(schema.get("properties", {}).items(), key=lambda item: item[0] not in own))
    if gives:
        schema["required"] = [name for name, field in model.model_fields.items() if field.is_required()]
    return schema


def _slim(schema: JsonObject, *, closed: bool) -> JsonObject:
    slim = {key: value for key, value in schema.items() if key not in _UNSAID}
    if slim.get("type") == "object" and "properties" in slim:
        slim.pop("description", None)  # a model's docstring is for who reads the code
    if not slim.get("default", True):
        del slim["default"]
    if slim.get("maximum", 0) >= 100_000:
        del slim["maximum"]
    if slim.get("additionalProperties") is True or not closed:
        slim.pop("additionalProperties", None)
    options = [option for option in slim.pop("anyOf", []) if option != {"type": "null"}]
    if len(options) == 1:
        slim = _slim(options[0], closed=closed) | slim
    elif options:
        slim["anyOf"] = [_slim(option, closed=closed) for option in options]
    for key, value in slim.items():
        if key in ("properties", "$defs"):
            slim[key] = {name: _slim(inner, closed=closed) for name, inner in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            slim[key] = _slim(cast(JsonObject, value), closed=closed)
    return slim
