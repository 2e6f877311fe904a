"""A host that knows tasks, on any transport: it calls, looks how a task stands, answers it and gives it up."""

import json
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
from anyio.abc import Process
from mcp import Client, MCPError
from mcp.client import advertise
from mcp.types import CallToolRequest, CallToolRequestParams, ElicitResult, Request, RequestParams
from pydantic import ConfigDict, TypeAdapter

PATIENCE_S = 20.0
TASKS = "io.modelcontextprotocol/tasks"
MODERN = "2026-07-28"
QUICK = {"delta_ms": 0}
APPROVED: dict[str, Any] = {"action": "accept", "content": {"decision": "approve"}}
CLOSED = {"action": "cancel"}
DECLINED = {"action": "decline"}


def denied(reason: str) -> dict:
    return {"action": "accept", "content": {"decision": "deny", "reason": reason}}


def answered(content: str, **more: Any) -> dict:
    return {"action": "accept", "content": {"content": content, **more}}


class Host:
    """What a host does with tasks. `send` gives a request's result, or raises its MCPError."""

    async def send(self, method: str, **params: Any) -> dict:
        raise NotImplementedError

    async def call(self, tool: str, **arguments: Any) -> dict:
        with anyio.fail_after(PATIENCE_S):
            return await self.send("tools/call", name=tool, arguments=arguments)

    async def begin(self, tool: str, **arguments: Any) -> str:
        """The id of the task that a call becomes."""
        handle = await self.call(tool, **arguments)
        assert (handle["resultType"], handle["status"]) == ("task", "working"), handle
        return handle["taskId"]

    async def run(self, prompt: str, **arguments: Any) -> str:
        return await self.begin("meerkat_run", prompt=prompt, **({"provider_params": QUICK} | arguments))

    async def get(self, task_id: str) -> dict:
        with anyio.fail_after(PATIENCE_S):
            task = await self.send("tasks/get", taskId=task_id)
        assert (task["taskId"], task["resultType"]) == (task_id, "complete")
        assert ("result" in task) == (task["status"] == "completed")
        assert ("inputRequests" in task) == (task["status"] == "input_required")
        return task

    async def when(self, task_id: str, so: Callable[[dict], bool]) -> dict:
        """The task, once that is so."""
        with anyio.fail_after(PATIENCE_S):
            while True:
                task = await self.get(task_id)
                if so(task):
                    return task
                assert task["status"] in ("working", "input_required"), task
                await anyio.sleep(0.01)

    async def until(self, task_id: str, status: str) -> dict:
        """The task, once it has that status."""
        return await self.when(task_id, lambda task: task["status"] == status)

    async def ended(self, task_id: str) -> dict:
        """The structured result of a task that is completed."""
        result = (await self.until(task_id, "completed"))["result"]
        assert result["resultType"] == "complete"
        assert not result["isError"], result
        assert json.loads(result["content"][0]["text"]) == result["structuredContent"]
        return result["structuredContent"]

    async def asked(self, task_id: str) -> dict[str, str]:
        """What a task asks: the key of each question, by its message."""
        questions = (await self.until(task_id, "input_required"))["inputRequests"]
        return {question["params"]["message"]: key for key, question in questions.items()}

    async def update(self, task_id: str, **answers: Any) -> None:
        await self.answer(task_id, answers)

    async def answer(self, task_id: str, answers: dict[str, Any]) -> None:
        with anyio.fail_after(PATIENCE_S):
            said = await self.send("tasks/update", taskId=task_id, inputResponses=answers)
        assert set(said) - {"_meta"} == {"resultType"}
        assert said["resultType"] == "complete"

    async def cancel(self, task_id: str) -> None:
        with anyio.fail_after(PATIENCE_S):
            said = await self.send("tasks/cancel", taskId=task_id)
        assert set(said) - {"_meta"} == {"resultType"}
        assert said["resultType"] == "complete"

    async def refused(self, method: str, **params: Any) -> int:
        """The code of the JSON-RPC error that a request gets."""
        with anyio.fail_after(PATIENCE_S):
            try:
                result = await self.send(method, **params)
            except MCPError as refusal:
                return refusal.error.code
        raise AssertionError(f"{method} was answered: {result}")


class _Params(RequestParams):
    model_config = ConfigDict(extra="allow")


class MemoryHost(Host):
    """A host in this process, with the SDK's client."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def send(self, method: str, **params: Any) -> dict:
        request: Request[Any, Any]
        if method == "tools/call":
            request = CallToolRequest(params=CallToolRequestParams(**params))
        else:
            request = Request[_Params, str](method=method, params=_Params(**params))
        return await self.client.session.send_request(request, TypeAdapter(dict[str, Any]))


async def _nobody(context: Any, params: Any) -> ElicitResult:
    raise AssertionError("a task asks by tasks/get")


@asynccontextmanager
async def in_memory(server: Any, *, person: bool = True, knows_tasks: bool = True, **options: Any) -> Any:
    """A host of a server in this process; with a `person` it says that it can ask somebody."""
    extensions = [advertise(TASKS)] if knows_tasks else []
    async with Client(
        server, extensions=extensions, elicitation_callback=_nobody if person else None, **options
    ) as client:
        yield MemoryHost(client)


def envelope(*, person: bool = True, knows_tasks: bool = True) -> dict[str, Any]:
    """What a modern request says of who sends it."""
    can: dict[str, Any] = {"elicitation": {"form": {}}} if person else {}
    return {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": can | ({"extensions": {TASKS: {}}} if knows_tasks else {}),
    }


def result_of(message: dict[str, Any]) -> dict:
    if "error" in message:
        error = message["error"]
        raise MCPError(code=error["code"], message=error["message"], data=error.get("data"))
    return message["result"]


class PipeHost(Host):
    """A host of a server process, spoken to line by line."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._held = b""
        self._last_id = 0

    async def send(self, method: str, **params: Any) -> dict:
        self._last_id += 1
        sent = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params | {"_meta": envelope()}}
        await self.process.stdin.send(json.dumps(sent).encode() + b"\n")
        while True:
            message = await self._line()
            if message.get("id") == self._last_id:
                return result_of(message)

    async def _line(self) -> dict[str, Any]:
        while b"\n" not in self._held:
            self._held += await self.process.stdout.receive()
        line, _, self._held = self._held.partition(b"\n")
        return json.loads(line)


@asynccontextmanager
async def process(state_root: Path) -> AsyncGenerator[PipeHost]:
    """A server process on the realm `den`."""
    words = [sys.executable, "-m", "meerkat_mcp", "serve", "--realm", "den", "--state-root", str(state_root)]
    served = await anyio.open_process(words, stderr=subprocess.DEVNULL)
    try:
        yield PipeHost(served)
    finally:
        with anyio.CancelScope(shield=True):
            if served.returncode is None:
                served.kill()
            await served.aclose()


class HttpHost(Host):
    """A host over HTTP, that sends what it is told to in the header `Mcp-Name`; without, the right name."""

    def __init__(self, http: httpx2.AsyncClient, url: str, token: str | None = None) -> None:
        self._http = http
        self._url = url
        self._token = token
        self.name: str | None = None

    async def send(self, method: str, **params: Any) -> dict:
        headers = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN,
            "mcp-method": method,
            "mcp-name": self.name or params.get("name") or params.get("taskId", ""),
        } | ({"authorization": f"Bearer {self._token}"} if self._token else {})
        sent = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": envelope()}}
        answer = await self._http.post(self._url, json=sent, headers=headers)
        if answer.status_code == 403:
            raise PermissionError(answer.text)
        return result_of(answer.json())
