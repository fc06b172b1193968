"""The hierarchy between the KEK and the record key: DEK of a workspace, CK of a connection; made, wrapped, cached.

    KEK (HSM)  wraps DEK  AES-256-GCM, AAD = "DEK" ‖ domain ‖ workspace ‖ DEK version
    DEK        wraps CK   AES-256-GCM, AAD = "CK" ‖ domain ‖ workspace ‖ connection ‖ CK version

Each AAD field is length-prefixed, so a row copied over another's does not unwrap (promises P03, P05; case 6).
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_envelope import UnwrapError, unwrap_key
from authpipe_keyservice.errors import KeyTamperedError
from authpipe_sensitive import DomainError, Secret

KEY_SIZE = 32
NONCE_SIZE = 12
# For so long what did not unwrap is not tried again by those who do not wait.
_REMEMBER_SECONDS = 1.0


class Wrapper(Protocol):
    """Makes KEKs and wraps with them; the HSM in production."""

    async def make(self, label: str) -> None:
        """Makes a KEK, unless there is one of this label."""

    async def destroy(self, label: str) -> None:
        """Destroys a KEK; also when it is gone already."""

    async def wrap(self, label: str, key: bytes, aad: bytes) -> bytes:
        """Wraps a DEK."""

    async def unwrap(self, label: str, wrapped: bytes, aad: bytes) -> bytes:
        """Unwraps a DEK."""

    async def rewrap(self, old: str, new: str, items: Sequence[tuple[bytes, bytes]]) -> list[bytes | None]:
        """Re-wraps DEKs, each with what it is bound to; None: that one does not unwrap."""


def kek_label(key_domain: str, version: int) -> str:
    """Gives the label of a KEK in its token."""
    return f"kek-{key_domain}-{version}"


def canary_aad(key_domain: str, version: int) -> bytes:
    """Gives what the canary of a KEK version is bound to."""
    return _fields("CANARY", key_domain, str(version))


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


class Held(NamedTuple):
    """An unwrapped key.

    Args:
        key: The key.
        until: Until when it may be kept, by the cache's clock; a key is kept no longer than the key that unwrapped it.
        renew: From when on its lease is to be renewed, while it is used.
    """

    key: Secret
    until: float = math.inf
    renew: float = math.inf


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
        self._keys: OrderedDict[tuple[str | bytes, ...], Held] = OrderedDict()
        self._opening: dict[tuple[str | bytes, ...], asyncio.Task[Held]] = {}
        self._failed: dict[tuple[str | bytes, ...], tuple[float, DomainError]] = {}
        self._epoch = 0

    async def get_or_unwrap(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Held]]) -> Held:
        """Gives a key from the cache, or unwraps it; once, however many ask at the same time.

        Args:
            name: Workspace first, then what names the key within it, with its wrapped form: a row that was changed is
                never answered from here.
            unwrap: Unwraps it.
        """
        kept = self._keys.get(name)
        if kept is not None:
            if self._clock() < kept.until:
                return kept
            del self._keys[name]
            kept.key.destroy()
        # One caller who gives up does not take the others with it. Whoever waits wakes after the key was kept, and it may
        # have been forgotten in between: what was overwritten is no key.
        while not (held := await asyncio.shield(self._start(name, unwrap))).key:
            continue
        return held

    def get_or_start(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Held]]) -> Held | None:
        """Gives a key from the cache; else begins to unwrap it and gives None: nobody waits.

        Raises:
            DomainError: Why it was not unwrapped, a moment ago.
        """
        now = self._clock()
        kept = self._keys.get(name)
        if kept is not None and now < kept.until:
            return kept
        failed = self._failed.get(name)
        if failed is not None and now < failed[0]:
            raise failed[1]
        _ = self._start(name, unwrap)
        return None

    def is_to_renew(self, held: Held) -> bool:
        """Says whether the lease of a key is to be renewed."""
        return self._clock() >= held.renew

    def renew(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Held]]) -> None:
        """Begins to unwrap a key again that is kept. While that fails, it is kept to the end of its lease."""
        failed = self._failed.get(name)
        if failed is None or self._clock() >= failed[0]:
            _ = self._start(name, unwrap)

    def _start(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Held]]) -> asyncio.Task[Held]:
        opening = self._opening.get(name)
        if opening is None:
            opening = asyncio.create_task(self._open(name, unwrap), name="unwrap")
            self._opening[name] = opening
            opening.add_done_callback(lambda task: self._note(name, task))
        return opening

    def _note(self, name: tuple[str | bytes, ...], task: asyncio.Task[Held]) -> None:
        self._opening.pop(name, None)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, DomainError):
            if len(self._failed) >= self._size:
                self._failed.clear()
            self._failed[name] = (self._clock() + _REMEMBER_SECONDS, error)
        else:
            self._failed.pop(name, None)

    async def _open(self, name: tuple[str | bytes, ...], unwrap: Callable[[], Awaitable[Held]]) -> Held:
        epoch = self._epoch
        held = await unwrap()
        held = held._replace(until=min(held.until, self._clock() + self._keep))
        if epoch != self._epoch:
            # Something was forgotten while this was on its way, and it may be this: it is used once and not kept.
            return held
        before = self._keys.pop(name, None)
        if before is not None:
            before.key.destroy()
        self._keys[name] = held
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)[1].key.destroy()
        return held

    def forget(self, workspace: str, connection: str) -> None:
        """Overwrites the keys of one connection; with an empty one, all keys of a workspace; with both empty, all."""
        self._epoch += 1
        for name in [
            name for name in self._keys if workspace in ("", name[0]) and (not connection or connection in name)
        ]:
            self._keys.pop(name).key.destroy()
