"""Seals on what clients keep for us between two requests: state of a call, and where their MCP session is.

All processes of a realm have one key, the store's. Each use of it has a key of its own, made of that one, so that what
was sealed for one use is nothing in another.
"""

import hmac
from collections.abc import Awaitable, Callable

from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState

SealingKey = Callable[[], Awaitable[bytes]]
"""Where the key of the realm comes from, such as `Store.sealing_key`."""


class Seal:
    """Encrypts and authenticates, once it is open; the SDK takes it as the codec of its request state."""

    def __init__(self, key: SealingKey, use: str) -> None:
        self._key = key
        self._use = use
        self._codec: AESGCMRequestStateCodec | None = None

    async def open(self) -> None:
        """Get the key. Again is fine. Raises StoreUnavailable."""
        if self._codec is None:
            own = hmac.digest(await self._key(), f"meerkat-mcp: {self._use}".encode(), "sha256")
            self._codec = AESGCMRequestStateCodec([own])

    def seal(self, payload: bytes) -> str:
        """The payload as text for somebody else to keep, of visible ASCII: 4/3 of its bytes and 46 more."""
        assert self._codec is not None, "it is opened when serving begins"
        return self._codec.seal(payload)

    def unseal(self, token: str) -> bytes:
        """What was sealed. Raises InvalidRequestState: nobody of this realm sealed that, for this use."""
        if self._codec is None:
            raise InvalidRequestState("not open yet")
        return self._codec.unseal(token)
