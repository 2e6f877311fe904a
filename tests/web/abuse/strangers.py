"""Tokens that look like good ones and are not, by why."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
from web.issuer import AUDIENCE, Issuer

SECRET = "a secret that is long enough for any of the hashes there are, and more than that"


def refused_tokens(issuer: Issuer, elsewhere: Issuer) -> dict[str, str]:
    """Tokens that `issuer`'s resource server must refuse; `elsewhere` is an issuer that it does not trust."""
    now = int(time.time())
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": now + 3000, "scope": "sessions:run"}
    head = {"kid": issuer.kid, "typ": "at+jwt"}
    return {
        "expired": issuer.token(exp=now - 3600),
        "not yet": issuer.token(nbf=now + 3600),
        "without an end": issuer.token(drop=("exp",)),
        "for another audience": issuer.token(aud="https://other.example.com/mcp"),
        "for a part of our name": issuer.token(aud="https://den.example.com"),
        "for nobody": issuer.token(drop=("aud",)),
        "of another issuer": elsewhere.token(),
        "of another issuer in our issuer's name": elsewhere.token(iss=issuer.url),
        "of our issuer in another's name": issuer.token(iss=elsewhere.url),
        "of nobody": issuer.token(drop=("iss",)),
        "about nobody": issuer.token(drop=("sub", "client_id")),
        "unsigned": jwt.encode(claims, "", algorithm="none", headers={"typ": "at+jwt"}),
        "signed with the public key as a secret": _with_secret(json.dumps(issuer.published[0]), claims, head),
        "signed with a secret": _with_secret(SECRET, claims, head),
        "of an unknown key": issuer.token(headers={"kid": "nothing"}),
        "of a key that is none": issuer.token(headers={"kid": "../../etc/passwd"}),
        "no access token": issuer.token(headers={"typ": "id+jwt"}),
    }


def _with_secret(secret: str, claims: dict[str, Any], head: dict[str, Any]) -> str:
    """Signed by hand: a library that is in its right mind refuses to."""
    signed = b".".join(_packed(json.dumps(part).encode()) for part in (head | {"alg": "HS256"}, claims))
    return b".".join((signed, _packed(hmac.digest(secret.encode(), signed, hashlib.sha256)))).decode()


def _packed(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
