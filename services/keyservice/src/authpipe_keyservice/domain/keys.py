"""The hierarchy between the KEK and the record key: DEK of a workspace, CK of a connection; made, wrapped, cached.

    KEK (HSM)  wraps DEK  AES-256-GCM, AAD = "DEK" ‖ domain ‖ workspace ‖ DEK version
    DEK        wraps CK   AES-256-GCM, AAD = "CK" ‖ domain ‖ workspace ‖ connection ‖ CK version

Each AAD field is length-prefixed, so a row copied over another's does not unwrap (promises P03, P05; case 6).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Protocol

from authpipe_envelope import UnwrapError, unwrap_key
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_sensitive import Secret

KEY_SIZE = 32
NONCE_SIZE = 12


class Wrapper(Protocol):
    """Wraps with a KEK; the HSM in production."""

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        """Wraps a DEK."""

    async def unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps a DEK."""


def kek_label(key_domain: str, version: int) -> str:
    """Gives the label of a KEK in its token."""
    return f"kek-{key_domain}-{version}"


def dek_aad(key_domain: str, workspace: str, version: int) -> bytes:
    """Gives what a wrapped DEK is bound to."""
    return _fields("DEK", key_domain, workspace, str(version))


def ck_aad(key_domain: str, workspace: str, connection: str, version: int) -> bytes:
    """Gives what a wrapped CK is bound to."""
    return _fields("CK", key_domain, workspace, connection, str(version))


def _fields(*values: str) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack(">I", len(value)) + value for value in encoded)


def unwrap_ck(dek: Secret, wrapped: bytes, aad: bytes) -> Secret:
    """Unwraps a CK.

    Raises:
        KeyTamperedError: The row was changed or belongs elsewhere.
    """
    try:
        return unwrap_key(dek, wrapped, aad)
    except UnwrapError:
        raise KeyTamperedError from None


class KeyCache:
    """Keeps unwrapped keys for a bounded time and number; what leaves it is overwritten.

    Args:
        clock: Gives seconds.
        keep_seconds: For how long.
        size: How many keys at most.
    """

    def __init__(self, clock: Callable[[], float], keep_seconds: float, size: int = 20_000) -> None:
        self._clock = clock
        self._keep = keep_seconds
        self._size = size
        self._keys: OrderedDict[tuple[str | bytes, ...], tuple[float, Secret]] = OrderedDict()

    async def get_or_unwrap(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Secret]]) -> Secret:
        """Gives a key from the cache, or unwraps it.

        Args:
            name: Workspace first, then what names the key within it, with its wrapped form: a row that was changed is never answered from here.
            unwrap: Unwraps it.
        """
        now = self._clock()
        kept = self._keys.get(name)
        if kept is not None:
            if now < kept[0]:
                return kept[1]
            del self._keys[name]
            kept[1].destroy()
        key = await unwrap()
        self._keys[name] = (now + self._keep, key)
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)[1][1].destroy()
        return key

    def forget(self, workspace: str, connection: str) -> None:
        """Overwrites the keys of one connection."""
        for name in [name for name in self._keys if name[0] == workspace and connection in name]:
            self._keys.pop(name)[1].destroy()
