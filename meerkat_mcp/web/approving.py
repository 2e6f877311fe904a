"""A person's yes or no on the watch page to what a waiting turn wants to do.

It does not come through MCP, where the calling model could say it: it is a request of its own, from a page of this very
server, by somebody with a scope of its own; what `meerkat-mcp session approve` is on the command line.
"""

import logging
from collections.abc import Sequence
from urllib.parse import urlsplit

import pydantic
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from meerkat_mcp.domain.config import explain
from meerkat_mcp.domain.errors import Internal, InvalidRequest, LimitExceeded, MeerkatError, PermissionDenied
from meerkat_mcp.realms import Realm
from meerkat_mcp.server.callers import CALLER_KEY, LOCAL, Caller
from meerkat_mcp.server.inputs import Response as Verdict
from meerkat_mcp.server.scopes import APPROVE
from meerkat_mcp.web.statuses import refused

BODY_BYTES_MAX = 256 * 1024

log = logging.getLogger(__name__)


class TooLarge(LimitExceeded):
    """A body that nobody could have meant."""


class Verdicts(pydantic.BaseModel):
    """What was said, to every call that waits for a yes."""

    model_config = pydantic.ConfigDict(extra="forbid")

    responses: list[Verdict] = pydantic.Field(min_length=1, max_length=1000)


def approving_routes(realm: Realm) -> Sequence[BaseRoute]:
    """POST `/sessions/{session_id}/approvals` with `{responses: [{tool_use_id, decision, reason?}]}`; 202 and the ids
    of session and turn when it is recorded.
    """

    async def approvals(request: Request) -> Response:
        try:
            return JSONResponse(await _decided(realm, request), 202)
        except ClientDisconnect:
            raise
        except TooLarge as exc:
            return JSONResponse({"error": exc.as_dict()}, 413)
        except MeerkatError as exc:
            return refused(exc)
        except Exception:
            log.exception("An approval failed by a bug.")
            return refused(Internal())

    return [Route("/sessions/{session_id}/approvals", approvals, methods=["POST"])]


async def _decided(realm: Realm, request: Request) -> dict[str, str | None]:
    caller: Caller = request.scope.get(CALLER_KEY, LOCAL)
    if APPROVE not in caller.scopes:
        raise PermissionDenied(
            f"Approving needs the scope {APPROVE}.", hint=f"Use a token that has {APPROVE}.", scope=APPROVE
        )
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc != request.headers.get("host", "").lower():
        raise PermissionDenied(
            "Approvals are taken from this server's own page only.",
            hint="Open the session in a browser, or use `meerkat-mcp session approve`.",
        )
    verdicts = await _verdicts(request)
    session_id = await realm.reading.resolve(request.path_params["session_id"], sees=caller.sees)
    started = await realm.sessions.resume(
        session_id,
        approvals=[one.approval() for one in verdicts.responses],
        approved_by="operator",
        by=caller.principal,
    )
    return {"session_id": started.session_id, "turn_id": started.turn_id}


async def _verdicts(request: Request) -> Verdicts:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise TooLarge("The body is too large.", limit="body_bytes", maximum=BODY_BYTES_MAX)
    try:
        return Verdicts.model_validate_json(body)
    except pydantic.ValidationError as exc:
        raise InvalidRequest(f"Invalid approvals: {explain(exc, Verdicts)}.") from None
