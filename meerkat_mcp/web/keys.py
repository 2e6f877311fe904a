"""The public keys of an OAuth issuer: found by its metadata, kept for a while, fetched anew when one is missing.

Metadata: RFC 8414 and OpenID Connect Discovery 1.0. Keys: RFC 7517.
"""

import json
import logging
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import httpx2
import jwt

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.web.auth import IssuerAway
from meerkat_mcp.web.options import is_loopback

log = logging.getLogger(__name__)

FETCH_S = 5.0
FETCH_BYTES_MAX = 1_000_000
AGAIN_S = 10.0
"""Between two fetches: whoever sends tokens with made-up key ids makes us ask the issuer no more often."""

FRESH_S, FRESH_S_MIN, FRESH_S_MAX = 600.0, 60.0, 86_400.0
KEPT_S = 86_400.0
"""How long keys are good when the issuer cannot be reached."""

RSA_BITS_MIN = 2048

_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_FITTING = {
    "RSA": frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    "P-256": frozenset({"ES256"}),
    "P-384": frozenset({"ES384"}),
    "P-521": frozenset({"ES512"}),
    "Ed25519": frozenset({"EdDSA"}),
}
ALGORITHMS = frozenset[str]().union(*_FITTING.values())
"""The signatures that are taken: with public keys only, so never `none` or HS256."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, and the algorithms that it may be used with."""

    kid: str | None
    algorithms: frozenset[str]
    public: Any


def keys_of(document: Any) -> tuple[Key, ...]:
    """The keys of a JWK set that signatures can be checked with; others are passed over."""
    listed: Any = cast(Mapping[str, Any], document).get("keys") if isinstance(document, dict) else None
    entries = cast(list[Any], listed) if isinstance(listed, list) else []
    return tuple(key for entry in entries if isinstance(entry, dict) and (key := _key(cast(dict[str, Any], entry))))


def _key(entry: Mapping[str, Any]) -> Key | None:
    kty, kid, use, does, alg = (entry.get(name) for name in ("kty", "kid", "use", "key_ops", "alg"))
    parts = _PARTS.get(kty) if isinstance(kty, str) else None
    if parts is None or use not in (None, "sig") or (isinstance(does, list) and "verify" not in does):
        return None
    curve = entry.get("crv") if "crv" in parts else kty
    fitting = _FITTING.get(curve, frozenset()) if isinstance(curve, str) else frozenset[str]()
    algorithms = fitting if alg is None else fitting & {alg} if isinstance(alg, str) else frozenset[str]()
    if not algorithms:
        return None
    try:  # of its public parts alone: an issuer that publishes more should not be
        public: Any = jwt.PyJWK({"kty": kty, **{part: entry[part] for part in parts}}, min(algorithms)).key
    except (jwt.PyJWTError, KeyError, ValueError, TypeError, AttributeError):
        return None
    if kty == "RSA" and public.key_size < RSA_BITS_MIN:
        return None
    return Key(kid if isinstance(kid, str) else None, algorithms, public)


class IssuerKeys:
    """The keys of one issuer, at `jwks_url` or where its metadata says.

    `http` makes a client for one fetch. `clock` gives seconds that only grow. Raises InvalidRequest for an address
    that is none, or that anybody on the way could answer for.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        http: Callable[[], httpx2.AsyncClient] = httpx2.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._local = is_loopback(_host(issuer))
        for what, url in (("issuer", issuer), ("JWKS", jwks_url)):
            if url is not None and not self._trusted(url):
                raise InvalidRequest(
                    f"The OAuth {what} {url[:200]!r} is no address that can be trusted.",
                    hint="It begins with https://, or with http:// if the issuer is on this machine.",
                )
        self._given_url = self._url = jwks_url
        self._http = http
        self._clock = clock
        self._fetching = anyio.Lock()
        self._keys: tuple[Key, ...] = ()
        self._loaded_at = self._fresh_until = self._tried_at = -math.inf
        self._failed = False

    async def find(self, kid: str | None, algorithm: str) -> Key | None:
        """The key of that id; without an id the only one that fits. None: the issuer has no such key.

        Raises:
            IssuerAway: the issuer could not be asked whether it has such a key.
        """
        found = self._held(kid, algorithm)
        if found is None or self._clock() >= self._fresh_until:
            await self._refresh(needed=found is None)
            found = self._held(kid, algorithm)
        if found is None and self._failed:
            raise IssuerAway
        return found

    def _held(self, kid: str | None, algorithm: str) -> Key | None:
        if self._clock() >= self._loaded_at + KEPT_S:
            self._keys = ()
        fitting = [key for key in self._keys if algorithm in key.algorithms and kid in (None, key.kid)]
        return fitting[0] if fitting and (kid is not None or len(fitting) == 1) else None

    async def _refresh(self, *, needed: bool) -> None:
        """Fetch the keys, unless that was just tried. All who need them wait for one fetch; others go on meanwhile."""
        if self._fetching.locked() and not needed:
            return
        async with self._fetching:
            if self._clock() < self._tried_at + AGAIN_S:
                return
            try:
                keys, fresh_s = await self._fetched()
            except (IssuerAway, httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as exc:
                log.warning("The keys of %s could not be fetched: %s.", self._issuer, exc or type(exc).__name__)
                self._url, self._failed = self._given_url, True
            else:
                now = self._clock()
                self._keys, self._loaded_at, self._fresh_until, self._failed = keys, now, now + fresh_s, False
            self._tried_at = self._clock()

    async def _fetched(self) -> tuple[tuple[Key, ...], float]:
        """The keys, and for how many seconds they are fresh."""
        client = await anyio.to_thread.run_sync(self._http)  # in a thread: setting up TLS takes tens of milliseconds
        async with client:
            if self._url is None:
                self._url = await self._discovered(client)
            status, document, fresh_s = await self._get(client, self._url)
        keys = keys_of(document)
        if not keys:
            raise IssuerAway(f"there is no key that can be used at {self._url} (status {status})")
        return keys, fresh_s

    async def _discovered(self, client: httpx2.AsyncClient) -> str:
        """Where the metadata says that the keys are."""
        unfit = "there is no metadata"
        for url in metadata_urls(self._issuer):
            status, document, _ = await self._get(client, url)
            if status >= 500:
                raise IssuerAway(f"{url} answers with status {status}")
            if not isinstance(document, dict):
                continue
            metadata = cast(dict[str, Any], document)
            found: Any = metadata.get("jwks_uri")
            if metadata.get("issuer") != self._issuer:  # RFC 8414, 3.3
                unfit = f"the metadata at {url} is of the issuer {str(metadata.get('issuer'))[:200]!r}"
            elif isinstance(found, str) and self._trusted(found):
                return found
            else:
                unfit = f"the metadata at {url} names no jwks_uri that can be trusted"
        raise IssuerAway(unfit)

    async def _get(self, client: httpx2.AsyncClient, url: str) -> tuple[int, Any, float]:
        """The status, the document (None without one), and for how many seconds it is fresh. Follows no redirect."""
        body = bytearray()
        with anyio.fail_after(FETCH_S):
            async with client.stream(
                "GET", url, headers={"Accept": "application/json"}, follow_redirects=False, timeout=FETCH_S
            ) as response:
                if response.status_code != 200:
                    return response.status_code, None, 0
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > FETCH_BYTES_MAX:
                        raise IssuerAway(f"{url} answers with more than {FETCH_BYTES_MAX} bytes")
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        return 200, document, _fresh_s(response.headers.get("cache-control", ""))

    def _trusted(self, url: str) -> bool:
        """Whether nobody on the way can answer in the issuer's place."""
        host = _host(url)
        if not host or re.search(r"[^!-~]", url):
            return False
        return url.startswith("https://") or (url.startswith("http://") and self._local and is_loopback(host))


def _host(url: str) -> str:
    """The host of a URL; empty if it is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def metadata_urls(issuer: str) -> Iterator[str]:
    """Where the metadata of an issuer may be: RFC 8414, 3.1 first, then as OpenID Connect has it."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    yield f"{origin}/.well-known/oauth-authorization-server{path}"
    yield f"{origin}/.well-known/openid-configuration{path}"
    if path:
        yield f"{origin}{path}/.well-known/openid-configuration"


def _fresh_s(cache_control: str) -> float:
    """For how long keys are used before they are fetched anew, as far as Cache-Control says it (RFC 9111)."""
    said = cache_control.lower()
    found = re.search(r"(?:^|[,\s])max-age=\"?(\d{1,10})", said)
    seconds = 0.0 if re.search(r"no-store|no-cache", said) else float(found[1]) if found else FRESH_S
    return min(max(seconds, FRESH_S_MIN), FRESH_S_MAX)
