"""OAuth 2.1: access tokens that are JWTs of one issuer, and the metadata by which clients find that issuer.

Rules: RFC 9068 (JWT access tokens), RFC 8725 (how to check a JWT), RFC 9728 (protected resource metadata), and MCP
2026-07-28, "Authorization". A token for another server is refused whoever signed it.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import httpx2
import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.server.callers import Caller
from meerkat_mcp.server.scopes import APPROVE, SCOPES, granted
from meerkat_mcp.web.keys import ALGORITHMS, IssuerKeys

log = logging.getLogger(__name__)

LEEWAY_S = 30
PRINCIPAL_CHARS_MAX = 255
WELL_KNOWN = "/.well-known/oauth-protected-resource"

_TYPES = ("at+jwt", "application/at+jwt", "jwt", "application/jwt")
"""Types of JWT that can be access tokens; many issuers say only that theirs is a JWT."""

_RESOURCE = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:\d{1,5})?(/[A-Za-z0-9._~-]+)*/?")
_REQUIRED: Any = {"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True}


class OAuth:
    """Knows its callers by access tokens of `issuer` for `audience`: our public MCP URL, then any other names of us.

    The keys are at `jwks_url`, or where the issuer's metadata says. Raises InvalidRequest for addresses that are none.
    """

    def __init__(
        self,
        issuer: str,
        audience: str | Sequence[str],
        *,
        jwks_url: str | None = None,
        http: Callable[[], httpx2.AsyncClient] = httpx2.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._audiences = [audience] if isinstance(audience, str) else list(audience)
        self._resource = self._audiences[0] if self._audiences else ""
        if _RESOURCE.fullmatch(self._resource) is None or not all(self._audiences):
            raise InvalidRequest(
                f"The OAuth audience {self._resource[:200]!r} is no URL of this server.",
                hint="Give --oauth-audience, or --public-url: https://HOST/mcp as clients write it.",
            )
        if "?" in issuer or "#" in issuer:  # RFC 8414, 2
            raise InvalidRequest("The OAuth issuer is a URL without query and fragment.", hint="See --oauth-issuer.")
        self._issuer = issuer
        parts = urlsplit(self._resource)
        self._path = WELL_KNOWN + parts.path.rstrip("/")
        self._metadata_url = f"{parts.scheme}://{parts.netloc}{self._path}"
        self._keys = IssuerKeys(issuer, jwks_url, http=http, clock=clock)

    async def authenticate(self, token: str) -> Caller | None:
        """Whose token it is. Raises IssuerAway while the issuer's keys cannot be had."""
        try:
            header = jwt.get_unverified_header(token)
            kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
            if algorithm not in ALGORITHMS or not isinstance(kind, str) or kind.lower() not in _TYPES:
                log.info("An access token is refused: it is a %.20r signed with %.20r.", kind, algorithm)
                return None
            key = await self._keys.find(kid, algorithm)
            if key is None:
                log.info("An access token is refused: the issuer has no key for it.")
                return None
            claims = jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],  # one of ours, and of those that the key is for
                audience=self._audiences,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options=_REQUIRED,
            )
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as exc:
            log.info("An access token is refused: %s.", type(exc).__name__)  # the text could repeat parts of it
            return None
        return _caller(claims)

    def challenge(self) -> str:
        """Where the metadata is (RFC 9728, 5.1)."""
        return f'resource_metadata="{self._metadata_url}"'

    def routes(self) -> Sequence[BaseRoute]:
        """The metadata: where RFC 9728 has it for our URL, at the root, and where a proxy that cuts a path leads."""
        paths = dict.fromkeys((self._path, WELL_KNOWN, f"{WELL_KNOWN}/mcp"))
        return [Route(path, self._metadata, methods=["GET", "OPTIONS"]) for path in paths]

    async def _metadata(self, request: Request) -> Response:
        """Open to the pages of all origins, which may send headers of their own: MCP clients in browsers do."""
        cors = {"Access-Control-Allow-Origin": "*"}
        if request.method == "OPTIONS":
            more = {"Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "*"}
            return Response(status_code=204, headers=cors | more)
        document = {
            "resource": self._resource,
            "authorization_servers": [self._issuer],
            "scopes_supported": [scope for scope in SCOPES if scope != APPROVE],  # hosts ask for what stands here
            "bearer_methods_supported": ["header"],
            "resource_name": "Meerkat sessions",
        }
        return JSONResponse(document, headers=cors | {"Cache-Control": "public, max-age=3600"})


def _caller(claims: Mapping[str, Any]) -> Caller | None:
    """Who a token's claims are about; None: nobody in particular."""
    subject, client = claims.get("sub"), claims.get("client_id")
    if isinstance(subject, str) and subject:
        principal = subject
    elif subject is None and isinstance(client, str) and client:
        principal = f"client:{client}"
    else:
        principal = ""
    if not principal or len(principal) > PRINCIPAL_CHARS_MAX or not principal.isprintable():
        log.info("An access token is refused: it has no usable sub or client_id.")
        return None
    return Caller(principal=principal, scopes=granted(_scopes(claims.get("scope", claims.get("scp")))))


def _scopes(claim: Any) -> list[str]:
    """The scopes of a token: words (RFC 9068), or a list, as some issuers have it."""
    if isinstance(claim, str):
        return claim.split(" ")
    return [scope for scope in cast(list[Any], claim) if isinstance(scope, str)] if isinstance(claim, list) else []
