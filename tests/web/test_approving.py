"""A yes or a no from the watch page: by people with the scope for it, from this very page, recorded as theirs."""

import json
import sys
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from web.conftest import PATIENCE_S, QUICK, OpenServer, Server

from meerkat_mcp.realms import choose, open_realm

pytestmark = pytest.mark.anyio

NOTES_SERVER = Path(__file__).parents[2] / "docs" / "examples" / "notes_server.py"
ANN, BOB = "ann-token-0123456789", "bob-token-0123456789"


@pytest.fixture
async def notes(tmp_path: Path) -> Path:
    """The file that a tool writes to, when it is allowed to."""
    file = tmp_path / "notes.txt"
    server = {"command": sys.executable, "args": [str(NOTES_SERVER), str(file)]}
    async with open_realm(choose("den", state_root=tmp_path / "realms")) as realm:
        await realm.set_config({"mcp_servers": {"notes": server}})
    return file


async def waiting(server: Server, token: str | None = None) -> dict:
    """A session whose turn waits for a yes, and the call."""
    http = httpx2.AsyncClient(headers={"authorization": f"Bearer {token}"} if token else {}, timeout=PATIENCE_S)
    async with http, Client(streamable_http_client(f"{server.url}/mcp", http_client=http)) as client:
        given = {"prompt": '[[call notes__add {"text": "Buy milk."}]]', "mcp_servers": {"notes": {}}}
        return (await client.call_tool("meerkat_run", given | {"provider_params": QUICK})).structured_content


def yes(run: dict, decision: str = "approve") -> dict:
    return {"responses": [{"tool_use_id": run["pending_approvals"][0]["tool_use_id"], "decision": decision}]}


async def post(server: Server, run: dict, body: object, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
        where = f"{server.url}/sessions/{run['session_id']}/approvals"
        return await client.post(where, content=json.dumps(body), headers={"origin": server.url} | headers)


async def test_a_yes_from_the_page_lets_the_call_run_and_says_whose_it_was(open_server: OpenServer, notes, tmp_path):
    (tmp_path / "tokens").write_text(f"ann {ANN}\n")
    (tmp_path / "tokens").chmod(0o600)
    async with open_server("--token-file", str(tmp_path / "tokens")) as server:
        run = await waiting(server, ANN)
        answer = await post(server, run, yes(run), authorization=f"Bearer {ANN}")
        assert (answer.status_code, answer.json()) == (202, {key: run[key] for key in ("session_id", "turn_id")})
        async with open_realm(choose("den", state_root=tmp_path / "realms"), turns=False) as realm:
            assert await realm.sessions.wait(run["session_id"], run["turn_id"], PATIENCE_S)
            log = [recorded.event async for recorded in realm.journal.log(run["session_id"])]
    (resolved,) = [event for event in log if event.type == "approval_resolved"]
    assert (resolved.by, resolved.principal) == ("operator", "ann")
    assert "Buy milk." in notes.read_text(encoding="utf-8")


@pytest.mark.parametrize("origin", ["", "http://localhost:1", "http://127.0.0.1:1"])
async def test_no_other_page_and_no_program_that_does_not_claim_to_be_one_can_say_it(
    open_server: OpenServer, notes, origin: str
):
    async with open_server() as server:
        run = await waiting(server)
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            where = f"{server.url}/sessions/{run['session_id']}/approvals"
            refused = await client.post(where, json=yes(run), headers={"origin": origin} if origin else {})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    assert not notes.exists()


async def test_without_the_scope_for_it_nobody_can(open_server: OpenServer, notes, tmp_path):
    (tmp_path / "tokens").write_text(f"bob {BOB} sessions:run config:write sessions:delete\n")
    (tmp_path / "tokens").chmod(0o600)
    async with open_server("--token-file", str(tmp_path / "tokens")) as server:
        run = await waiting(server, BOB)
        refused = await post(server, run, yes(run), authorization=f"Bearer {BOB}")
        assert (refused.status_code, refused.json()["error"]["scope"]) == (403, "sessions:approve")
        assert (await post(server, run, yes(run))).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"responses": []}, 400),
        ({"responses": [{"tool_use_id": "x", "decision": "maybe"}]}, 400),
        ({"answers": []}, 400),
        ([], 400),
        ({"responses": [{"tool_use_id": "another", "decision": "approve"}]}, 400),
        ({"responses": [{"tool_use_id": "x" * 200, "decision": "deny", "reason": "r" * 300_000}]}, 413),
    ],
)
async def test_what_answers_nothing_is_refused_and_changes_nothing(open_server: OpenServer, notes, body, status: int):
    async with open_server() as server:
        run = await waiting(server)
        refused = await post(server, run, body)
        assert refused.status_code == status, refused.text
        assert refused.json()["error"]["message"]
        assert (await post(server, run, yes(run, "deny"))).status_code == 202
        late = await post(server, run, yes(run))
        assert late.json()["error"]["code"] == "not_waiting"
    assert not notes.exists()
