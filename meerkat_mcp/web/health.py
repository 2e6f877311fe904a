"""Whether this process lives, and whether it is ready for work: what a supervisor and a load balancer ask."""

from collections.abc import Sequence

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from meerkat_mcp.domain.errors import MeerkatError
from meerkat_mcp.realms import Realm

STORE_WAIT_S = 2.0

LIVE_PATH, READY_PATH = "/healthz", "/readyz"


def health_routes(realm: Realm) -> Sequence[BaseRoute]:
    """`/healthz`: the process answers. `/readyz`: 200 when it can take work, else 503; each check by its name."""

    async def live(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(_: Request) -> Response:
        checks = {
            "accepting": realm.turns.accepting,
            "lease": realm.turns.leased,
            "store": await _reaches_store(realm),
        }
        well = all(checks.values())
        return JSONResponse({"status": "ok" if well else "unavailable", "checks": checks}, 200 if well else 503)

    return [Route(LIVE_PATH, live), Route(READY_PATH, ready)]


async def _reaches_store(realm: Realm) -> bool:
    with anyio.move_on_after(STORE_WAIT_S):
        try:
            await realm.store.config()
            return True
        except MeerkatError:
            return False
    return False
