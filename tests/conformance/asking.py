"""Fixtures that need something of the client before they can answer, in the way of each protocol era.

Of a client with a handshake they ask by a request of their own, in the middle of the call. In 2026-07-28 the answer is
what they need (an InputRequiredResult), and the call comes again with it.
"""

from collections.abc import Mapping
from typing import Any

from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.message import ServerMessageMetadata
from mcp.types import (
    INVALID_PARAMS,
    ClientCapabilities,
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

JsonObject = dict[str, Any]


def add(server: MCPServer[Any]) -> None:
    """Add all of them to a server."""
    _add_requests(server)
    _add_rounds(server)
    _add_states(server)


def form(question: str, **fields: JsonObject) -> ElicitRequest:
    """A question to a person; every field has to be filled in."""
    schema = {"type": "object", "properties": fields, "required": list(fields)}
    return ElicitRequest(params=ElicitRequestFormParams(message=question, requested_schema=schema))


def named(question: str = "What is your name?") -> ElicitRequest:
    """The question for a name."""
    return form(question, name={"type": "string"})


def sampling(question: str) -> CreateMessageRequest:
    """A question to the client's model."""
    asked = SamplingMessage(role="user", content=TextContent(type="text", text=question))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[asked], max_tokens=100))


def answered(ctx: Context[Any], *keys: str) -> bool:
    """Whether the client sent all of these answers."""
    return set(keys) <= set(ctx.input_responses or {})


# ── by a request of the server, within the call ──


def _add_requests(server: MCPServer[Any]) -> None:
    @server.tool()
    async def test_sampling(prompt: str, ctx: Context[Any]) -> str:
        """Asks the client's model."""
        within = ServerMessageMetadata(related_request_id=ctx.request_id)
        said = await ctx.session.send_request(sampling(prompt), CreateMessageResult, metadata=within)
        return f"It says: {said.content}"

    @server.tool()
    async def test_elicitation(message: str, ctx: Context[Any]) -> str:
        """Asks a person for a user name and an address."""
        return await _ask(ctx, message, username={"type": "string"}, email={"type": "string"})

    @server.tool()
    async def test_elicitation_sep1034_defaults(ctx: Context[Any]) -> str:
        """Asks a person with a default in each field."""
        return await _ask(
            ctx,
            "Is this right?",
            name={"type": "string", "default": "John Doe"},
            age={"type": "integer", "default": 30},
            score={"type": "number", "default": 95.5},
            status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            verified={"type": "boolean", "default": True},
        )

    @server.tool()
    async def test_elicitation_sep1330_enums(ctx: Context[Any]) -> str:
        """Asks a person to choose, in the five ways that there are."""
        plain = ["option1", "option2", "option3"]
        titled = [{"const": f"value{number}", "title": f"Choice {number}"} for number in (1, 2, 3)]
        return await _ask(
            ctx,
            "Which?",
            untitledSingle={"type": "string", "enum": plain},
            titledSingle={"type": "string", "oneOf": titled},
            legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["One", "Two"]},
            untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
            titledMulti={"type": "array", "items": {"anyOf": titled}},
        )


async def _ask(ctx: Context[Any], question: str, **fields: JsonObject) -> str:
    schema = {"type": "object", "properties": fields}
    said = await ctx.session.elicit_form(question, schema, related_request_id=ctx.request_id)
    return f"{said.action}: {said.content}"


# ── by an answer that says what is needed ──


def _add_rounds(server: MCPServer[Any]) -> None:
    def ask(name: str, key: str, request: InputRequest) -> None:
        async def asks(ctx: Context[Any]) -> str | InputRequiredResult:
            if not answered(ctx, key):
                return InputRequiredResult(input_requests={key: request})
            return f"Thank you: {ctx.input_responses}"

        server.add_tool(asks, name=name, description=f"Needs {request.method}.", structured_output=False)

    ask("test_input_required_result_elicitation", "user_name", named())
    ask("test_streaming_elicitation", "user_name", named())
    ask("test_input_required_result_sampling", "capital_question", sampling("What is the capital of France?"))
    ask("test_input_required_result_list_roots", "client_roots", ListRootsRequest())

    @server.tool(structured_output=False)
    async def test_input_required_result_capabilities(ctx: Context[Any]) -> str | InputRequiredResult:
        """Needs what the client can give, and nothing else."""
        can = ctx.client_capabilities or ClientCapabilities()
        possible: Mapping[str, tuple[Any, InputRequest]] = {
            "user_name": (can.elicitation, named()),
            "greeting": (can.sampling, sampling("How does one greet?")),
            "client_roots": (can.roots, ListRootsRequest()),
        }
        needs = {key: request for key, (declared, request) in possible.items() if declared is not None}
        return InputRequiredResult(input_requests=needs) if needs and not ctx.input_responses else "done"

    @server.prompt()
    async def test_input_required_result_prompt(ctx: Context[Any]) -> list[UserMessage] | InputRequiredResult:
        """A prompt that needs to know what about."""
        if not answered(ctx, "user_context"):
            return InputRequiredResult(input_requests={"user_context": form("About what?", context={"type": "string"})})
        return [UserMessage(f"Begin with {ctx.input_responses}.")]


def _add_states(server: MCPServer[Any]) -> None:
    def keep(name: str, **requests: InputRequest) -> None:
        async def keeps(ctx: Context[Any]) -> str | InputRequiredResult:
            if not answered(ctx, *requests):
                return InputRequiredResult(input_requests=requests, request_state="asked")
            if ctx.request_state != "asked":
                raise MCPError(INVALID_PARAMS, "The state is not the one that was given.")
            return "state-ok"

        server.add_tool(keeps, name=name, description="Needs answers and its state.", structured_output=False)

    confirm = form("Is it so?", ok={"type": "boolean"})
    keep("test_input_required_result_request_state", confirm=confirm)
    keep("test_input_required_result_tampered_state", confirm=confirm)
    keep(
        "test_input_required_result_multiple_inputs",
        user_name=named(),
        greeting=sampling("How does one greet?"),
        client_roots=ListRootsRequest(),
    )

    @server.tool(structured_output=False)
    async def test_input_required_result_multi_round(ctx: Context[Any]) -> str | InputRequiredResult:
        """Needs two answers, one after the other."""
        if ctx.request_state is None:
            return InputRequiredResult(input_requests={"step1": named()}, request_state="first")
        if ctx.request_state == "first" and answered(ctx, "step1"):
            colour = form("Which colour do you like?", color={"type": "string"})
            return InputRequiredResult(input_requests={"step2": colour}, request_state="second")
        return f"Thank you: {ctx.input_responses}"
