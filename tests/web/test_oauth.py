"""OAuth: which access tokens are good, how an issuer's keys are found and kept, and what clients are told of it."""

import base64
import json
import logging
import socket
import time
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as some
from mcp import Client
from mcp.client.auth import TokenStorage
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from web.issuer import AUDIENCE, JWKS, METADATA, OPENID, Issuer, made, public, running, served

from meerkat_mcp.domain.errors import InvalidRequest
from meerkat_mcp.server.callers import Caller, caller_of
from meerkat_mcp.server.scopes import CONFIGURE, DELETE, READ, RUN, SCOPES
from meerkat_mcp.web.auth import Authentication, IssuerAway
from meerkat_mcp.web.keys import ALGORITHMS, keys_of
from meerkat_mcp.web.oauth import OAuth

pytestmark = pytest.mark.anyio

PATIENCE_S = 20.0
LONG_AGO, FAR_AHEAD = 1_000_000_000, 4_000_000_000


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    async with running(Issuer()) as it:
        yield it


@pytest.fixture
def clock() -> Clock:
    return Clock()


def client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(verify=False)  # nothing here is TLS, and reading certificates takes time


@pytest.fixture
def oauth(issuer: Issuer, clock: Clock) -> OAuth:
    return OAuth(issuer.url, AUDIENCE, http=client, clock=clock)


# ── which tokens are good ──


async def test_a_good_token_says_who_calls_and_what_they_may_do(issuer: Issuer, oauth: OAuth):
    caller = await oauth.authenticate(issuer.token(scope=f"openid {RUN} profile {CONFIGURE}"))
    assert caller == Caller(principal="ada", scopes=frozenset({RUN, READ, CONFIGURE}))


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": f"{READ}"}, {READ}),
        ({"scp": f"{READ} {DELETE}"}, {READ, DELETE}),
        ({"scp": [DELETE, 7, "other"]}, {DELETE}),
        ({"scope": [RUN]}, {RUN, READ}),
        ({"scope": "", "scp": RUN}, set()),
        ({"scope": "sessions:*"}, set()),
        ({"scope": READ.upper()}, set()),
        ({"scope": {READ: True}}, set()),
        ({"scope": None}, set()),
        ({}, set()),
    ],
)
async def test_scopes_are_words_or_a_list(issuer: Issuer, oauth: OAuth, claims: dict, scopes: set[str]):
    caller = await oauth.authenticate(issuer.token(**claims))
    assert caller is not None
    assert caller.scopes == scopes


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
async def test_every_algorithm_with_public_keys_is_taken(issuer: Issuer, oauth: OAuth, algorithm: str):
    issuer.rotate("k", algorithm)
    assert await oauth.authenticate(issuer.token())


async def test_a_key_that_does_not_name_its_algorithm_fits_those_of_its_kind(issuer: Issuer, oauth: OAuth):
    issuer.rotate("k", "RS256")
    del issuer.published[0]["alg"]
    for algorithm in ("RS256", "RS512", "PS384"):
        issuer.private["k"] = (issuer.private["k"][0], algorithm)
        assert await oauth.authenticate(issuer.token())


@pytest.mark.parametrize(
    ("claims", "drop"),
    [
        ({"exp": LONG_AGO}, ()),
        ({"exp": "soon"}, ()),
        ({}, ("exp",)),
        ({"exp": None}, ()),
        ({"exp": float("inf")}, ()),
        ({"nbf": FAR_AHEAD}, ()),
        ({"iat": FAR_AHEAD}, ()),
        ({"nbf": "soon"}, ()),
        ({"iat": []}, ()),
        ({}, ("aud",)),
        ({"aud": None}, ()),
        ({"aud": []}, ()),
        ({"aud": ""}, ()),
        ({"aud": "https://other.example.com/mcp"}, ()),
        ({"aud": AUDIENCE + "/"}, ()),
        ({"aud": AUDIENCE.upper()}, ()),
        ({"aud": AUDIENCE[:-1]}, ()),
        ({"aud": ["https://other.example.com/mcp"]}, ()),
        ({"aud": {AUDIENCE: True}}, ()),
        ({"aud": [AUDIENCE, 7]}, ()),
        ({"aud": "a-host"}, ()),
        ({}, ("iss",)),
        ({"iss": "https://other.example.com"}, ()),
        ({"iss": None}, ()),
        ({"iss": ["https://other.example.com"]}, ()),
        ({}, ("sub", "client_id")),
        ({"sub": ""}, ()),
        ({"sub": 7}, ()),
        ({"sub": "a\nb"}, ()),
        ({"sub": "a" * 256}, ()),
        ({"jti": 7}, ()),
    ],
    ids=str,
)
async def test_a_token_with_such_claims_is_refused(issuer: Issuer, oauth: OAuth, claims: dict, drop: tuple[str, ...]):
    assert await oauth.authenticate(issuer.token(drop=drop, **claims)) is None
    assert issuer.asked[JWKS] == 1
    assert await oauth.authenticate(issuer.token())


async def test_clocks_may_differ_by_half_a_minute(issuer: Issuer, oauth: OAuth):
    now = int(time.time())
    for claims in ({"exp": now - 20}, {"nbf": now + 20}, {"iat": now + 20}):
        assert await oauth.authenticate(issuer.token(**claims)), claims
    for claims in ({"exp": now - 60}, {"nbf": now + 60}, {"iat": now + 60}):
        assert await oauth.authenticate(issuer.token(**claims)) is None, claims


async def test_a_token_may_be_for_others_too(issuer: Issuer, oauth: OAuth):
    assert await oauth.authenticate(issuer.token(aud=["https://other.example.com", AUDIENCE]))


async def test_we_may_have_several_names_and_the_first_is_our_address(issuer: Issuer):
    oauth = OAuth(issuer.url, [AUDIENCE, "api://meerkat"], http=client)
    for audience in (AUDIENCE, "api://meerkat"):
        assert await oauth.authenticate(issuer.token(aud=audience))
    assert await oauth.authenticate(issuer.token(aud="api://other")) is None
    assert oauth.challenge() == ('resource_metadata="https://den.example.com/.well-known/oauth-protected-resource/mcp"')


async def test_a_client_without_a_user_is_its_own_principal(issuer: Issuer, oauth: OAuth):
    caller = await oauth.authenticate(issuer.token(drop=("sub",)))
    assert caller is not None
    assert caller.principal == "client:a-host"


@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "AT+JWT", "application/at+jwt", None])
async def test_an_access_token_may_say_so_or_only_that_it_is_a_jwt(issuer: Issuer, oauth: OAuth, kind: str | None):
    assert await oauth.authenticate(issuer.token(headers={"typ": kind}))


@pytest.mark.parametrize("kind", ["logout+jwt", "dpop+jwt", "secevent+jwt", "oauth-authz-req+jwt", 7])
async def test_a_token_of_another_kind_is_refused(issuer: Issuer, oauth: OAuth, kind: Any):
    assert await oauth.authenticate(issuer.token(headers={"typ": kind})) is None


# ── signatures ──


def raw(header: dict, payload: dict, signature: bytes = b"") -> str:
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


async def test_an_unsigned_token_is_refused(issuer: Issuer, oauth: OAuth):
    payload = jwt.decode(issuer.token(), options={"verify_signature": False})
    for algorithm in ("none", "None", "NONE", "", None, ["ES256"], {"ES256": 1}, 7):
        for signature in (b"", b"x"):
            token = raw({"alg": algorithm, "kid": issuer.kid, "typ": "JWT"}, payload, signature)
            assert await oauth.authenticate(token) is None
    assert await oauth.authenticate(raw({"kid": issuer.kid}, payload)) is None
    assert issuer.asked[JWKS] == 0


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_a_public_key_is_no_shared_secret(issuer: Issuer, oauth: OAuth, algorithm: str):
    """The old trick: sign with HMAC, and take for the secret what everybody can read."""
    issuer.rotate("k", "RS256")
    del issuer.published[0]["alg"]
    key = issuer.private["k"][0].public_key()
    payload = jwt.decode(issuer.token(), options={"verify_signature": False})
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    head = {"alg": algorithm, "typ": "JWT", "kid": "k"}
    signing = raw(head, payload).rpartition(".")[0]
    for secret in (pem, pem.strip(), json.dumps(issuer.published[0]).encode()):
        mac = jwt.get_algorithm_by_name(algorithm)
        signature = mac.sign(signing.encode(), secret)
        assert await oauth.authenticate(raw(head, payload, signature)) is None


async def test_a_shared_secret_among_the_keys_is_not_used(issuer: Issuer, oauth: OAuth):
    secret = b"s" * 64
    entry = {"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode(), "kid": "shared", "alg": "HS256"}
    issuer.published.append(entry)
    payload = jwt.decode(issuer.token(), options={"verify_signature": False})
    assert await oauth.authenticate(jwt.encode(payload, secret, "HS256", headers={"kid": "shared"})) is None


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_token_that_was_changed_or_signed_by_another_key_is_refused(
    issuer: Issuer, oauth: OAuth, algorithm: str
):
    issuer.rotate("k", algorithm)
    good = issuer.token(scope=READ)
    assert await oauth.authenticate(good)
    head, _, signature = good.split(".")
    payload = jwt.decode(good, options={"verify_signature": False}) | {"scope": " ".join(SCOPES)}
    changed = raw({}, payload).split(".")[1]
    assert await oauth.authenticate(f"{head}.{changed}.{signature}") is None
    issuer.private["k"] = (made(algorithm), algorithm)  # whose public half is not published
    assert await oauth.authenticate(issuer.token()) is None
    assert await oauth.authenticate(good)


async def test_a_key_in_the_token_itself_is_not_believed(issuer: Issuer, oauth: OAuth):
    thief = made("ES256")
    headers = {
        "jwk": public(thief, "ES256"),
        "jku": "https://thief.example.com/keys",
        "x5u": "https://thief.example.com",
    }
    payload = jwt.decode(issuer.token(), options={"verify_signature": False})
    for kid in ({"kid": issuer.kid}, {"kid": "../../etc/passwd"}, {}):
        assert await oauth.authenticate(jwt.encode(payload, thief, "ES256", headers=headers | kid)) is None


async def test_what_a_token_calls_critical_must_be_understood(issuer: Issuer, oauth: OAuth):
    assert await oauth.authenticate(issuer.token(headers={"crit": ["exp"], "exp": 1})) is None


@given(token=some.one_of(some.text(max_size=60), some.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}")))
@settings(max_examples=200, deadline=None)
def test_any_text_is_refused_without_asking_anybody(token: str):
    oauth = OAuth("https://issuer.example.com", AUDIENCE)
    assert anyio.run(oauth.authenticate, token) is None


@given(
    header=some.dictionaries(
        some.sampled_from(["alg", "kid", "typ", "crit", "b64", "x"]),
        some.recursive(
            some.none() | some.booleans() | some.floats() | some.sampled_from(["ES256", "RS256", "none", "JWT", "k"]),
            lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from("ab"), inner, max_size=2),
            max_leaves=5,
        ),
    )
)
@settings(max_examples=100, deadline=None)
def test_any_header_is_refused_and_harms_nothing(header: dict):
    async def refused() -> None:
        oauth = OAuth("http://127.0.0.1:9", AUDIENCE, http=client)  # nobody is there
        try:
            assert await oauth.authenticate(raw(header, {"sub": "eve"}, b"x" * 64)) is None
        except IssuerAway:
            assert header["alg"] in ALGORITHMS

    anyio.run(refused)


async def test_a_deep_header_or_payload_is_refused(issuer: Issuer, oauth: OAuth):
    deep = base64.urlsafe_b64encode(b"[" * 5000).rstrip(b"=").decode()
    head = raw({"alg": "ES256", "kid": issuer.kid}, {}).split(".")[0]
    for token in (f"{deep}.{deep}.", f"{head}.{deep}.{deep}"):
        assert await oauth.authenticate(token) is None


# ── which keys are used ──


def test_keys_that_are_for_something_else_or_too_weak_are_passed_over():
    good = public(made("ES256"), "ES256")
    strong = public(made("RS256"), "RS256")
    weak = public(rsa.generate_private_key(public_exponent=65537, key_size=1024), "RS256")
    assert len(keys_of({"keys": [good, good | {"use": "sig"}, good | {"key_ops": ["verify"]}, strong]})) == 4
    others: list[Any] = [
        good | {"use": "enc"},
        good | {"key_ops": ["encrypt"]},
        good | {"alg": "ES384"},
        good | {"alg": "ECDH-ES"},
        good | {"alg": 7},
        good | {"crv": "P-384"},
        good | {"crv": "secp256k1"},
        good | {"x": "AAAA"},
        good | {"x": 7},
        strong | {"alg": "RSA-OAEP"},
        strong | {"n": None},
        weak,
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": ["RSA"]},
        {},
        None,
        7,
        "key",
    ]
    assert [entry for entry in others if keys_of({"keys": [entry]})] == []
    for document in (None, [], {}, {"keys": None}, {"keys": {"a": good}}, "keys"):
        assert keys_of(document) == ()


async def test_a_token_without_a_key_id_is_good_when_only_one_key_fits(issuer: Issuer, oauth: OAuth, clock: Clock):
    issuer.rotate("rsa", "RS256", keep=True)
    private, algorithm = issuer.private["rsa"]
    payload = jwt.decode(issuer.token(), options={"verify_signature": False})
    token = jwt.encode(payload, private, algorithm)
    assert await oauth.authenticate(token)
    issuer.published.append(public(made("RS256"), "RS256", kid="another"))
    clock.now += 601
    assert await oauth.authenticate(token) is None


# ── how keys are found, and how long they are kept ──


async def test_keys_are_fetched_once_for_many_tokens(issuer: Issuer, oauth: OAuth):
    for _ in range(20):
        assert await oauth.authenticate(issuer.token())
    assert issuer.asked == {METADATA: 1, JWKS: 1}


async def test_fifty_bad_tokens_at_once_cost_the_issuer_one_fetch(issuer: Issuer, oauth: OAuth, clock: Clock):
    assert await oauth.authenticate(issuer.token())
    clock.now += 11
    found: list[Caller | None] = []

    async def come(number: int) -> None:
        found.append(await oauth.authenticate(issuer.token(headers={"kid": f"made-up-{number}"})))

    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(come, number)
    assert found == [None] * 50
    assert issuer.asked[JWKS] == 2
    for _ in range(20):
        await come(0)
    assert issuer.asked[JWKS] == 2
    clock.now += 10
    await come(0)
    assert issuer.asked == {METADATA: 1, JWKS: 3}


async def test_a_new_key_is_found_when_a_token_needs_it(issuer: Issuer, oauth: OAuth, clock: Clock):
    old = issuer.token()
    assert await oauth.authenticate(old)
    issuer.rotate("second", keep=True)
    clock.now += 11
    assert await oauth.authenticate(issuer.token())
    assert await oauth.authenticate(old)
    issuer.rotate("third")
    clock.now += 11
    assert await oauth.authenticate(issuer.token())
    assert await oauth.authenticate(old) is None


async def test_all_who_need_a_new_key_wait_for_one_fetch(issuer: Issuer, oauth: OAuth, clock: Clock):
    assert await oauth.authenticate(issuer.token())
    old = issuer.token()
    issuer.rotate("second", keep=True)
    clock.now += 11
    issuer.held = anyio.Event()
    callers: list[Caller | None] = []

    async def come(token: str) -> None:
        callers.append(await oauth.authenticate(token))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(come, issuer.token())
        await issuer.until_asked(JWKS, 2)
        assert await oauth.authenticate(old)  # who has a known key does not wait
        assert callers == []
        issuer.held.set()
    assert len(callers) == 20
    assert None not in callers
    assert issuer.asked[JWKS] == 2


async def test_while_old_keys_are_fetched_anew_others_go_on_with_them(issuer: Issuer, oauth: OAuth, clock: Clock):
    token = issuer.token()
    assert await oauth.authenticate(token)
    clock.now += 601
    issuer.held = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(oauth.authenticate, token)
        await issuer.until_asked(JWKS, 2)
        with anyio.fail_after(2):  # less than a fetch may take
            assert await oauth.authenticate(token)
        issuer.held.set()
    assert issuer.asked[JWKS] == 2


async def test_who_gives_up_while_keys_are_fetched_leaves_it_to_the_next(issuer: Issuer, oauth: OAuth):
    issuer.held = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(oauth.authenticate, issuer.token())
        await issuer.until_asked(METADATA, 1)
        tasks.cancel_scope.cancel()
    issuer.held.set()
    assert await oauth.authenticate(issuer.token())


@pytest.mark.parametrize(
    ("said", "fresh_s"),
    [
        ("", 600),
        ("public", 600),
        ("public, max-age=3600, must-revalidate", 3600),
        ("Max-Age=120", 120),
        ("max-age=5", 60),
        ("max-age=999999999", 86_400),
        ("s-maxage=5", 600),
        ("no-store, max-age=3600", 60),
    ],
)
async def test_keys_are_fresh_for_as_long_as_the_issuer_says_within_limits(
    issuer: Issuer, oauth: OAuth, clock: Clock, said: str, fresh_s: int
):
    issuer.cache_control = said
    assert await oauth.authenticate(issuer.token())
    clock.now += fresh_s - 1
    assert await oauth.authenticate(issuer.token())
    assert issuer.asked[JWKS] == 1
    clock.now += 1
    assert await oauth.authenticate(issuer.token())
    assert issuer.asked[JWKS] == 2


async def test_while_the_issuer_is_away_its_keys_stay_good_for_a_day(
    issuer: Issuer, oauth: OAuth, clock: Clock, caplog: pytest.LogCaptureFixture
):
    token = issuer.token()
    assert await oauth.authenticate(token)
    issuer.status = 503
    with caplog.at_level(logging.WARNING, "meerkat_mcp"):
        for _ in range(100):
            clock.now += 86_300 / 100
            assert await oauth.authenticate(token)
    assert "could not be fetched" in caplog.text
    assert token not in caplog.text
    asked = issuer.asked[JWKS] + issuer.asked[METADATA]
    assert asked <= 2 + 2 * 100
    clock.now += 101
    with pytest.raises(IssuerAway):
        await oauth.authenticate(token)
    issuer.status = 200
    clock.now += 11
    assert await oauth.authenticate(token)


async def test_whether_a_key_is_unknown_or_new_cannot_be_told_while_the_issuer_is_away(
    issuer: Issuer, oauth: OAuth, clock: Clock
):
    assert await oauth.authenticate(issuer.token())
    clock.now += 11
    issuer.status = 500
    issuer.rotate("second", keep=True)
    for _ in range(5):
        with pytest.raises(IssuerAway):
            await oauth.authenticate(issuer.token())
    assert issuer.asked[JWKS] == 2
    issuer.status = 200
    clock.now += 10
    assert await oauth.authenticate(issuer.token())


async def test_an_issuer_that_comes_up_after_us_is_found(clock: Clock):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    issuer = Issuer()
    issuer.origin = f"http://127.0.0.1:{port}"
    oauth = OAuth(issuer.url, AUDIENCE, http=client, clock=clock)
    for _ in range(3):
        with pytest.raises(IssuerAway):
            await oauth.authenticate(issuer.token())
    async with running(issuer, port):
        with pytest.raises(IssuerAway):
            await oauth.authenticate(issuer.token())  # it is not asked again so soon
        clock.now += 10
        assert await oauth.authenticate(issuer.token())


async def test_an_issuer_that_does_not_answer_or_never_to_the_end_is_given_up_after_seconds(issuer: Issuer):
    async def drops() -> AsyncGenerator[bytes]:
        while True:
            yield b" "
            await anyio.sleep(0.2)

    async def dripping(request):
        return StreamingResponse(drops(), media_type="application/json")

    async def given_up(url: str) -> None:
        oauth = OAuth(url, AUDIENCE, jwks_url=url + JWKS, http=client)
        began = time.monotonic()
        with anyio.fail_after(PATIENCE_S), pytest.raises(IssuerAway):
            await oauth.authenticate(issuer.token())
        assert 4 < time.monotonic() - began < 10

    issuer.held = anyio.Event()
    async with served(Starlette(routes=[Route(JWKS, dripping)])) as slow, anyio.create_task_group() as tasks:
        tasks.start_soon(given_up, issuer.origin)
        tasks.start_soon(given_up, slow)
    issuer.held.set()


async def test_keys_that_moved_are_found_again(issuer: Issuer, oauth: OAuth, clock: Clock):
    assert await oauth.authenticate(issuer.token())
    issuer.keys_at = "/other/keys"
    issuer.rotate("second")
    clock.now += 11
    with pytest.raises(IssuerAway):
        await oauth.authenticate(issuer.token())
    clock.now += 10
    assert await oauth.authenticate(issuer.token())


@pytest.mark.parametrize("path", ["", "/", "/tenant/one", "/tenant/"])
@pytest.mark.parametrize("kind", ["oauth", "openid", "openid below the path"])
async def test_metadata_is_looked_for_where_the_rules_have_it(path: str, kind: str):
    below = path.rstrip("/")
    places = {"oauth": METADATA + below, "openid": OPENID + below, "openid below the path": below + OPENID}
    issuer = Issuer(path)
    issuer.metadata_at = places[kind]
    async with running(issuer):
        oauth = OAuth(issuer.url, AUDIENCE, http=client)
        assert await oauth.authenticate(issuer.token())


async def test_keys_at_a_given_address_need_no_metadata(issuer: Issuer):
    oauth = OAuth(issuer.url, AUDIENCE, jwks_url=issuer.origin + JWKS, http=client)
    assert await oauth.authenticate(issuer.token())
    assert issuer.asked == {JWKS: 1}


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://other.example.com"},
        {"issuer": None},
        {"jwks_uri": None},
        {"jwks_uri": 7},
        {"jwks_uri": "http://other.example.com/keys"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "/keys"},
        {"jwks_uri": "http://["},
        {"jwks_uri": "https://"},
        {"jwks_uri": "http://127.0.0.1:1/keys\r\nx: y"},
    ],
    ids=str,
)
async def test_metadata_that_cannot_be_trusted_is_not_used(
    issuer: Issuer, oauth: OAuth, metadata: dict, caplog: pytest.LogCaptureFixture
):
    issuer.metadata = metadata
    with caplog.at_level(logging.WARNING, "meerkat_mcp"), pytest.raises(IssuerAway):
        await oauth.authenticate(issuer.token())
    assert issuer.asked[JWKS] == 0
    assert "is of the issuer" in caplog.text or "names no jwks_uri" in caplog.text


@pytest.mark.parametrize("document", [{}, {"keys": []}, [], "keys", 7, {"keys": [{"kty": "oct", "k": "eA"}]}], ids=str)
async def test_an_answer_without_keys_leaves_those_of_before(issuer: Issuer, oauth: OAuth, clock: Clock, document: Any):
    assert await oauth.authenticate(issuer.token())
    issuer.document = document
    clock.now += 601
    assert await oauth.authenticate(issuer.token())


async def test_redirects_are_not_followed(issuer: Issuer, oauth: OAuth):
    async with running(Issuer()) as other:
        other.published = issuer.published
        issuer.redirects = {JWKS: other.origin + JWKS}
        with pytest.raises(IssuerAway):
            await oauth.authenticate(issuer.token())
        assert not other.asked


async def test_an_endless_answer_is_not_read_to_its_end(issuer: Issuer, oauth: OAuth):
    issuer.document = {"keys": issuer.published, "more": "x" * 1_100_000}
    with pytest.raises(IssuerAway):
        await oauth.authenticate(issuer.token())


async def test_something_else_that_answers_everything_is_no_metadata():
    """A page for all paths, as many hosts have one: the place after it is looked at too."""

    async def page(request):
        return Response("<html>", media_type="text/html")

    issuer = Issuer("/tenant")
    issuer.metadata_at = "/tenant" + OPENID
    issuer.app.router.routes.insert(0, Route(METADATA + "/tenant", page))
    async with running(issuer):
        assert await OAuth(issuer.url, AUDIENCE, http=client).authenticate(issuer.token())


@pytest.mark.parametrize(
    ("issuer", "more"),
    [
        ("http://issuer.example.com", {}),
        ("issuer.example.com", {}),
        ("ftp://issuer.example.com", {}),
        ("https://", {}),
        ("http://[", {}),
        ("https://issuer.example.com/?a=b", {}),
        ("https://issuer.example.com/#a", {}),
        ("https://issuer.example.com/ a", {}),
        ("https://issuer.example.com", {"jwks_url": "http://issuer.example.com/keys"}),
        ("https://issuer.example.com", {"jwks_url": "http://127.0.0.1/keys"}),
        ("https://issuer.example.com", {"audience": ""}),
        ("https://issuer.example.com", {"audience": []}),
        ("https://issuer.example.com", {"audience": [AUDIENCE, ""]}),
        ("https://issuer.example.com", {"audience": "meerkat"}),
        ("https://issuer.example.com", {"audience": 'https://x/mcp", error="'}),
        ("https://issuer.example.com", {"audience": "https://x/mcp#a"}),
    ],
)
def test_addresses_that_cannot_be_meant_are_refused_at_the_start(issuer: str, more: dict):
    with pytest.raises(InvalidRequest) as refused:
        OAuth(issuer, **({"audience": AUDIENCE} | more))
    assert refused.value.hint


# ── what clients are told ──


def app(oauth: OAuth, calls: list[Caller]) -> Authentication:
    """A server with one tool, behind this issuer."""
    server = MCPServer[Any]("probe", log_level="ERROR")

    async def meerkat_delete(context: Context[Any, Any]) -> str:
        """Notes who calls."""
        calls.append(caller_of(context.request_context.request))
        return "done"

    server.add_tool(meerkat_delete)
    mcp = server.streamable_http_app(
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False)
    )
    mcp.router.routes.extend(oauth.routes())
    paths = {route.path for route in oauth.routes() if isinstance(route, Route)}
    return Authentication(mcp, oauth, open_paths=paths.__contains__, own_only=True, body_bytes_max=1_000_000)


class Late:
    """An app whose address is known before it is made."""

    app: Any = None

    async def __call__(self, scope, receive, send) -> None:
        await self.app(scope, receive, send)


async def test_clients_find_the_issuer_by_our_metadata_from_any_page():
    """They may ask for all scopes that it names: so that for people is not there."""
    oauth = OAuth("https://issuer.example.com", AUDIENCE)
    async with served(Starlette(routes=oauth.routes())) as url, client() as http:
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            got = await http.get(url + path, headers={"Origin": "https://page.example.com"})
            assert got.status_code == 200
            assert got.headers["access-control-allow-origin"] == "*"
            assert got.json() == {
                "resource": AUDIENCE,
                "authorization_servers": ["https://issuer.example.com"],
                "scopes_supported": ["sessions:read", "sessions:run", "config:write", "sessions:delete"],
                "bearer_methods_supported": ["header"],
                "resource_name": "Meerkat sessions",
            }
            asked = {"Origin": "https://page.example.com", "Access-Control-Request-Headers": "mcp-protocol-version"}
            got = await http.options(url + path, headers=asked)
            assert got.status_code == 204
            assert got.headers["access-control-allow-headers"] == "*"


async def test_metadata_of_a_server_below_a_path_is_where_the_rules_have_it():
    oauth = OAuth("https://issuer.example.com", "https://example.com:8443/team/den/mcp")
    place = "/.well-known/oauth-protected-resource/team/den/mcp"
    assert oauth.challenge() == f'resource_metadata="https://example.com:8443{place}"'
    assert [route.path for route in oauth.routes() if isinstance(route, Route)] == [
        place,
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    ]


async def test_over_http_each_refusal_says_where_the_metadata_is(issuer: Issuer, oauth: OAuth, clock: Clock):
    where = 'resource_metadata="https://den.example.com/.well-known/oauth-protected-resource/mcp"'
    async with served(app(oauth, [])) as url, client() as http:

        async def asked(token: str | None) -> httpx2.Response:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "meerkat_delete"}}
            return await http.post(url + "/mcp", json=body, headers=headers)

        got = await asked(None)
        assert (got.status_code, got.headers["www-authenticate"]) == (
            401,
            f'Bearer realm="meerkat", scope="sessions:read sessions:run", {where}',
        )
        for bad in (issuer.token(aud="https://other.example.com/mcp"), issuer.token(exp=1), "x.y.z"):
            got = await asked(bad)
            assert (got.status_code, got.json()["error"]) == (401, "invalid_token")
            assert got.headers["www-authenticate"].endswith(where)
        got = await asked(issuer.token(scope=RUN))
        assert (got.status_code, got.json()["scope"]) == (403, DELETE)
        assert got.headers["www-authenticate"].endswith(where)
        issuer.status = 503
        clock.now += 86_401
        got = await asked(issuer.token(scope=RUN))
        assert (got.status_code, got.headers["retry-after"]) == (503, "5")
        assert (await asked("x.y.z")).status_code == 401
        issuer.status = 200
        clock.now += 11
        assert (await asked(issuer.token(scope=RUN))).status_code == 403


class Held(TokenStorage):
    """Where a client keeps its tokens."""

    tokens: Any = None
    client_info: Any = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens) -> None:
        self.tokens = tokens

    async def get_client_info(self):
        return self.client_info

    async def set_client_info(self, client_info) -> None:
        self.client_info = client_info


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_of_the_sdk_finds_its_own_way_in_and_asks_for_more_when_it_needs_it(issuer: Issuer, mode: Any):
    """From 401 over our metadata and the issuer's to a token; and from 403 to one with the scope that was missing."""
    calls: list[Caller] = []
    late = Late()
    async with served(late, lifespan="off") as url:
        late.app = app(OAuth(issuer.url, url + "/mcp", http=client), calls)
        held = Held()
        provider = ClientCredentialsOAuthProvider(
            url + "/mcp", held, client_id="a-host", client_secret="secret", issuer=issuer.url
        )
        mcp: Any = late.app._app
        with anyio.fail_after(PATIENCE_S):
            async with (
                mcp.router.lifespan_context(mcp),
                httpx2.AsyncClient(auth=provider, verify=False) as http,
                Client(streamable_http_client(url + "/mcp", http_client=http), mode=mode) as host,
            ):
                assert held.tokens.scope == f"{READ} {RUN}"
                assert not (await host.call_tool("meerkat_delete", {})).is_error
    assert set(held.tokens.scope.split()) == {READ, RUN, DELETE}
    assert calls == [Caller(principal="client:a-host", scopes=frozenset({READ, RUN, DELETE}), own_only=True)]
