"""A second PKCS#11 token, the customer's: reached like our own, which is handed in, since only one module may touch one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, HsmUnavailableError
from authpipe_keyservice.kms.canonical import canonical

# What a token says when its owner took the key, the PIN or the token away; all else is an outage.
_WITHDRAWN = {"key-not-found", "pin-refused", "pin-locked", "token-gone"}


class Token(Protocol):
    """A PKCS#11 token."""

    async def open_only(self) -> None:
        """Logs in, and makes no key."""

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        """Wraps."""

    async def unwrap_any(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps what may be longer than a DEK."""


class TokenKey:
    """A key in a customer's token.

    Args:
        token: The token, of a thread and a time limit of its own.
        key_label: The key: AES-256, not extractable.
    """

    def __init__(self, token: Token, key_label: str) -> None:
        self._token = token
        self._key_label = key_label

    async def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps up to 96 bytes, bound to a context."""
        return await self._ask(lambda: self._token.wrap(self._key_label, payload, canonical(context)))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps what was wrapped with the same context."""
        return await self._ask(lambda: self._token.unwrap_any(self._key_label, wrapped, canonical(context)))

    async def describe(self) -> str:
        """Names the key by its label."""
        return self._key_label

    async def close(self) -> None:
        """Keeps the token, which other workspaces of the customer may use."""

    async def _ask(self, act: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await act()
        except HsmUnavailableError as error:
            if str(error.metadata.get("cause", "")) in _WITHDRAWN:
                raise CustomerKeyUnavailableError from None
            raise CustomerKmsUnavailableError from None
