"""`meerkat-mcp serve --http`: the flags, and what they make."""

import argparse
import logging
import re
import sys
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meerkat_mcp.cli import exits, values
from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.domain.version import VERSION

if TYPE_CHECKING:
    from meerkat_mcp.realms import Realm
    from meerkat_mcp.web.auth import Authenticator
    from meerkat_mcp.web.options import HttpOptions

log = logging.getLogger(__name__)

_AUTHENTICATION = ("token_env", "token_file", "oauth_issuer", "oauth_audience", "oauth_jwks_url")
_LOGGING = ("no_access_log",)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that go with `--http`. They have no defaults here: `HttpOptions` has them."""
    parser.add_argument("--http", action="store_true", help="serve MCP over HTTP, and a page to watch sessions")
    group = parser.add_argument_group("with --http")

    def add(name: str, dest: str, help_: str, **more: Any) -> None:
        group.add_argument(name, dest=dest, default=SUPPRESS, help=help_, **more)

    number = values.between
    add("--host", "host", "the address to listen on (127.0.0.1)", metavar="HOST")
    add("--port", "port", "the port (9111); 0 takes any free one", metavar="N", type=number(0, 65535))
    add("--public-url", "public_url", "how clients reach this server, if not so", metavar="URL", type=_origin)
    add("--replica-url", "replica_url", "how other replicas reach this one", metavar="URL", type=_replica_url)
    add("--root-path", "root_path", "the prefix that a proxy takes off", metavar="PATH", type=_root_path)
    add(
        "--trust-proxy", "trusted_proxies", "believe X-Forwarded headers of this address", metavar="IP", action="append"
    )
    add("--allow-host", "allowed_hosts", "a further Host to serve", metavar="NAME", action="append")
    add("--allow-origin", "allowed_origins", "whose pages may use this server", metavar="ORIGIN", action="append")
    add("--token-env", "token_env", "the variable with the bearer token", metavar="NAME")
    add("--token-file", "token_file", "a file of tokens, one a line: TOKEN, or NAME TOKEN SCOPE…", metavar="FILE")
    add("--oauth-issuer", "oauth_issuer", "take access tokens of this OAuth issuer", metavar="URL")
    add("--oauth-audience", "oauth_audience", "whom they must be for (--public-url and /mcp)", metavar="URL")
    add("--oauth-jwks-url", "oauth_jwks_url", "where its keys are, if it does not say", metavar="URL")
    add("--own-sessions-only", "own_sessions_only", "callers see only what they began", action="store_true")
    add("--insecure", "insecure", "serve other machines without asking who they are", action="store_true")
    add("--max-body", "body_bytes_max", "bytes of a request (4 MiB)", metavar="N", type=number(1024, 2**30))
    add("--max-sessions", "sessions_max", "MCP sessions of 2025 clients (1000)", metavar="N", type=number(1, 10**6))
    add("--max-requests", "requests_max", "requests at a time (4096)", metavar="N", type=number(1, 10**6))
    add(
        "--rate-limit", "rate_max", "requests a second of one address (200); 0: any", metavar="N", type=number(0, 10**6)
    )
    add("--drain", "drain_s", "seconds that turns may go on at the end (2)", metavar="N", type=number(0, 3600))
    add("--no-access-log", "no_access_log", "no line for each request", action="store_true")


def given(args: Namespace) -> dict[str, Any]:
    """The flags for HTTP that were said, by the names of `HttpOptions`. Raises InvalidRequest: without --http."""
    from meerkat_mcp.web.options import HttpOptions

    names = (*(name for name in HttpOptions.__dataclass_fields__ if name != "auth"), *_AUTHENTICATION, *_LOGGING)
    said = {name: getattr(args, name) for name in names if hasattr(args, name)}
    if said and not args.http:
        raise InvalidRequest(
            f"{', '.join(sorted(said))}: these flags are for HTTP.", hint="Add --http, or leave them out."
        )
    several = ("trusted_proxies", "allowed_hosts", "allowed_origins")
    return {name: tuple(value) if name in several else value for name, value in said.items()}


async def serve(realm: "Realm", args: Namespace, options: "HttpOptions", started: Callable[[str], None]) -> None:
    """Serve an open realm until a signal. Raises InvalidRequest."""
    from meerkat_mcp.web.app import build_app
    from meerkat_mcp.web.serving import serve_http

    app = build_app(realm, options, trust_caller=args.trust_caller, expose_paths=args.expose_paths)
    quiet = hasattr(args, "no_access_log")
    logging.getLogger("meerkat_mcp.access").setLevel(logging.WARNING if quiet else logging.INFO)
    exits.settle_in()

    def ready(where: str) -> None:
        app.listens_at(where)
        started(where)
        if realm.manifest.backend == "postgres" and not app.reachable:
            log.warning(
                "Other replicas do not know where this one is, and cannot send on what is for its MCP sessions (of "
                "clients of 2025-11-25). Say --replica-url."
            )

    await serve_http(app, options, on_ready=ready, before_end=app.end)


def chosen(said: dict[str, Any]) -> "HttpOptions":
    """What the flags come to. Raises InvalidRequest."""
    from meerkat_mcp.web.options import HttpOptions

    plain = {name: value for name, value in said.items() if name not in (*_AUTHENTICATION, *_LOGGING)}
    options = HttpOptions(**plain)
    ways = _ways(said, options)
    if not ways:
        return options
    from meerkat_mcp.web.auth import AnyOf

    return HttpOptions(**plain, auth=ways[0] if len(ways) == 1 else AnyOf(*ways))


def _ways(said: dict[str, Any], options: "HttpOptions") -> "list[Authenticator]":
    """The ways in which callers may say who they are."""
    from meerkat_mcp.realms import environment
    from meerkat_mcp.web.tokens import StaticTokens, token_file

    ways: list[Authenticator] = []
    if (name := said.get("token_env")) is not None:
        token = environment(name)
        if not token:
            raise InvalidRequest(
                f"--token-env {name}: that variable is not set.", hint="Export it, or use --token-file."
            )
        ways.append(StaticTokens(lambda: token, source=f"--token-env {name}"))
    if (path := said.get("token_file")) is not None:
        ways.append(token_file(Path(path).expanduser()))
    issuer = said.get("oauth_issuer")
    if issuer is not None:
        ways.append(_oauth(issuer, said, options))
    elif said.keys() & {"oauth_audience", "oauth_jwks_url"}:
        raise InvalidRequest("--oauth-audience and --oauth-jwks-url go with --oauth-issuer.")
    return ways


def _oauth(issuer: str, said: dict[str, Any], options: "HttpOptions") -> "Authenticator":
    from meerkat_mcp.web.app import MCP_PATH
    from meerkat_mcp.web.oauth import OAuth

    own = f"{options.public_url}{options.root_path}{MCP_PATH}" if options.public_url else None
    audience = said.get("oauth_audience") or own
    if audience is None:
        raise InvalidRequest(
            "Tokens of an issuer must be meant for this server, and it does not know its own address.",
            hint="Give --public-url (or --oauth-audience).",
        )
    return OAuth(issuer, audience, jwks_url=said.get("oauth_jwks_url"))


def say_started(realm: "Realm", where: str, options: dict[str, Any]) -> None:
    """One line on stderr: the address for a browser, and that of MCP."""
    known = options.get("public_url", where) + options.get("root_path", "")
    listening = f"; listening on {where}" if known != where else ""
    sys.stderr.write(
        f"meerkat-mcp {VERSION}: serving realm {realm.id} ({realm.manifest.backend}) at {known}/ "
        f"(MCP: {known}/mcp){listening}\n"
    )
    if options.get("host") in ("0.0.0.0", "::") and not options.keys() & {"public_url", "allowed_hosts"}:
        sys.stderr.write(
            "Other machines are answered only by a name that is known: say --public-url or --allow-host.\n"
        )
    sys.stderr.flush()


def _origin(text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s?#@]+/?", text):
        raise ArgumentTypeError(f"{text[:100]!r} is no address like https://agents.example.org")
    return text.rstrip("/").lower()


def _replica_url(text: str) -> str:
    from meerkat_mcp.web.options import checked_replica_url

    try:
        return checked_replica_url(text)
    except InvalidRequest as exc:
        raise ArgumentTypeError(f"{exc.message} {exc.hint}") from None


def _root_path(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text):
        raise ArgumentTypeError(f"{text[:100]!r} is no path like /agents")
    return text.rstrip("/")
