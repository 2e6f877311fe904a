"""A real issuer of access tokens on a real socket: metadata, keys, a token endpoint. And how a test serves an app."""

import json
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

METADATA = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
JWKS = "/keys"
PATIENCE_S = 20.0
CURVES = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
AUDIENCE = "https://den.example.com/mcp"


def made(algorithm: str) -> Any:
    """A new private key for an algorithm."""
    match algorithm[:2]:
        case "RS" | "PS":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ES":
            return ec.generate_private_key(
                {"256": ec.SECP256R1, "384": ec.SECP384R1, "512": ec.SECP521R1}[algorithm[2:]]()
            )
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def public(private: Any, algorithm: str, **more: Any) -> dict[str, Any]:
    """The JWK of a private key's public half."""
    return jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True) | more


class Issuer:
    """Tells its keys, and counts how often it is asked what."""

    def __init__(self, path: str = "", algorithm: str = "ES256") -> None:
        self.origin = ""
        self.path = path
        self.asked: Counter[str] = Counter()
        self._asked = anyio.Event()
        self.status = 200
        self.cache_control = ""
        self.metadata: dict[str, Any] = {}
        self.metadata_at = METADATA + path
        self.keys_at = JWKS
        self.redirects: dict[str, str] = {}
        self.document: Any = None
        self.held: anyio.Event | None = None
        self.private: dict[str, tuple[Any, str]] = {}
        self.published: list[dict[str, Any]] = []
        self.rotate("first", algorithm)
        self.app = Starlette(
            routes=[
                Route("/token", self._token, methods=["POST"]),
                Route("/{path:path}", self._answer, methods=["GET"]),
            ]
        )

    @property
    def url(self) -> str:
        """What tokens call it."""
        return self.origin + self.path

    def rotate(self, kid: str, algorithm: str = "ES256", *, keep: bool = False) -> None:
        """Sign with a new key from now on, and publish it: alone, or beside those of before."""
        self.private[kid] = (made(algorithm), algorithm)
        entry = public(self.private[kid][0], algorithm, kid=kid, use="sig", alg=algorithm)
        self.published = [*(self.published if keep else []), entry]
        self.kid = kid

    def token(self, *, drop: tuple[str, ...] = (), headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token that is good, but for what a test changes."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, "client_id": "a-host"}
        payload = {key: value for key, value in (good | claims).items() if key not in drop}
        private, algorithm = self.private[self.kid]
        names = {"kid": self.kid, "typ": "at+jwt"} | (headers or {})
        # As JWS: PyJWT's own `encode` makes no token whose claims are of a wrong type.
        return jwt.PyJWS().encode(json.dumps(payload).encode(), private, algorithm, headers=names)

    async def until_asked(self, path: str, times: int) -> None:
        """Wait until it was asked so often."""
        with anyio.fail_after(PATIENCE_S):
            while self.asked[path] < times:
                await self._asked.wait()

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked[path] += 1
        self._asked.set()
        self._asked = anyio.Event()
        if self.held is not None:
            await self.held.wait()
        if path in self.redirects:
            return Response(status_code=302, headers={"Location": self.redirects[path]})
        if self.status != 200:
            return Response(status_code=self.status)
        if path == self.metadata_at:
            return JSONResponse(self._metadata() | self.metadata)
        if path == self.keys_at:
            headers = {"Cache-Control": self.cache_control} if self.cache_control else {}
            return JSONResponse({"keys": self.published} if self.document is None else self.document, headers=headers)
        return Response(status_code=404)

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": self.origin + self.keys_at,
            "token_endpoint": f"{self.origin}/token",
            "authorization_endpoint": f"{self.origin}/authorize",
            "response_types_supported": ["code"],
            "grant_types_supported": ["client_credentials"],
        }

    async def _token(self, request: Request) -> Response:
        """The client-credentials grant: a token for what the client says that it wants to use (RFC 8707)."""
        form = await request.form()
        token = self.token(aud=str(form["resource"]), scope=str(form.get("scope", "")), drop=("sub",))
        return JSONResponse({"access_token": token, "token_type": "Bearer", "expires_in": 300, "scope": form["scope"]})


@asynccontextmanager
async def running(issuer: Issuer, port: int = 0) -> AsyncGenerator[Issuer]:
    """The issuer, listening."""
    async with served(issuer.app, port) as url:
        issuer.origin = url
        yield issuer


@asynccontextmanager
async def served(app: Any, port: int = 0, **config: Any) -> AsyncGenerator[str]:
    """An app on a port of 127.0.0.1, in this event loop; gives its origin."""
    # The protocol must be named, or asyncio leaves Nagle's algorithm on: 40 ms for each small answer.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        server = _Uvicorn(
            uvicorn.Config(app, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1, **config)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            with anyio.fail_after(20):
                await server.listens.wait()
            try:
                yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Says when it listens, and leaves the test's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listens = anyio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listens.set()
