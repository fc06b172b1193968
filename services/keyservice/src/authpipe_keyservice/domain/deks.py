"""DEKs: one set per workspace, made when the first connection key is, unwrapped by the HSM, kept for minutes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from authpipe_envelope import wrap_key
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.keyring import Keyring
from authpipe_keyservice.domain.keys import (
    KEY_SIZE,
    NONCE_SIZE,
    Held,
    KeyCache,
    Wrapper,
    ck_aad,
    dek_aad,
    kek_label,
)
from authpipe_keyservice.domain.customer_keys import Opened
from authpipe_keyservice.errors import (
    CustomerKeyPendingError,
    CustomerKeyUnavailableError,
    ErasedError,
    KekDisabledError,
    KeyTamperedError,
    WorkspaceErasedError,
)
from authpipe_sensitive import Secret


@dataclass(frozen=True, slots=True)
class DekRow:
    """A DEK as stored.

    Args:
        version: Its number within the workspace, from 1.
        kek_version: The KEK version that wraps it.
        wrapped: Its wrapped form.
        state: Primary: it wraps new connection keys; active: it unwraps; disabled: its workspace is being erased.
        customer_key_id: The customer's key that wraps what the HSM wrapped; empty: none does.
    """

    version: int
    kek_version: int
    wrapped: bytes
    state: KeyVersionState = KeyVersionState.PRIMARY
    customer_key_id: str = ""


class OuterLayer(Protocol):
    """Customers' keys."""

    async def open(self, workspace: str, key_id: str, dek_version: int, wrapped: bytes) -> Opened:
        """Opens the outer layer of a DEK."""

    async def wrap_new(self, workspace: str, dek_version: int, inner: bytes) -> tuple[str, bytes]:
        """Wraps a new DEK with its workspace's customer key, if it has one; gives the key's id and the outer form."""


class DekStore(Protocol):
    """DEKs in keyservice's own database."""

    async def get_dek(self, workspace: str, version: int) -> DekRow | None:
        """Gives one DEK of a workspace; version 0: the newest."""

    async def put_dek(self, workspace: str, row: DekRow) -> DekRow | None:
        """Stores a first DEK, or gives the one that is stored; None: the KEK version was moved, or nothing may be."""


class Deks:
    """Makes and unwraps DEKs.

    Args:
        key_domain: The key domain.
        keyring: The KEK versions.
        store: The DEKs as stored.
        wrapper: The HSM.
        outer: Customers' keys.
        cache: Unwrapped keys.
        randomness: Gives random bytes.
    """

    def __init__(
        self,
        *,
        key_domain: str,
        keyring: Keyring,
        store: DekStore,
        wrapper: Wrapper,
        outer: OuterLayer,
        cache: KeyCache,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._keyring = keyring
        self._store = store
        self._wrapper = wrapper
        self._outer = outer
        self._cache = cache
        self._randomness = randomness

    async def open(self, workspace: str, version: int, *, patient: bool = True) -> Held:
        """Gives a DEK, from the cache or unwrapped by the HSM, after the customer's KMS where there is one.

        Args:
            workspace: The tenant.
            version: Its version.
            patient: Whether to wait for a customer's KMS; a batch of many customers never does.

        Raises:
            WorkspaceErasedError: The workspace is being erased.
            KeyTamperedError: The row is gone, was changed, or belongs elsewhere.
            HsmUnavailableError: The token does not answer.
            CustomerKeyPendingError: The customer's KMS is being asked.
            CustomerKeyUnavailableError: It refuses.
            CustomerKmsUnavailableError: It does not answer.
        """
        try:
            return await self._open(workspace, await self._find(workspace, version), patient=patient)
        except (KekDisabledError, ErasedError):
            # It may have come to another KEK version, and this one been disabled, since the row was read.
            return await self._open(workspace, await self._find(workspace, version), patient=patient)

    async def _find(self, workspace: str, version: int) -> DekRow:
        row = await self._store.get_dek(workspace, version)
        if row is None:
            raise KeyTamperedError
        return row

    async def renew(self, workspace: str, version: int) -> None:
        """Begins to renew the lease of a DEK that a customer's key wraps."""
        row = await self._store.get_dek(workspace, version)
        if row is not None and row.state.unwraps:
            self._cache.renew((workspace, row.wrapped), self._unwrapper(workspace, row))

    async def make(self, workspace: str, version: int) -> DekRow:
        """Makes a DEK, wrapped by the primary KEK version and the customer's key; it is not stored yet."""
        primary = self._keyring.primary()
        aad = dek_aad(self._key_domain, workspace, version)
        inner = await self._wrapper.wrap(kek_label(self._key_domain, primary), self._randomness(KEY_SIZE), aad)
        key_id, wrapped = await self._outer.wrap_new(workspace, version, inner)
        return DekRow(version, primary, wrapped, customer_key_id=key_id)

    async def catch_up(self) -> None:
        """Learns which KEK version is primary now, after one that it wrapped with was not."""
        await self._keyring.refresh()

    async def ensure(self, workspace: str) -> None:
        """Makes a workspace's first DEK, if it has none."""
        await self._primary(workspace)

    async def new_key(
        self, workspace: str, connection: str, version: int, *, patient: bool = True
    ) -> tuple[int, bytes]:
        """Makes a connection key, wrapped by the primary DEK of its workspace; it is not stored yet.

        Returns:
            The DEK's version and the wrapped key.

        Raises:
            WorkspaceErasedError: The workspace is being erased.
        """
        row = await self._primary(workspace)
        dek = await self.open(workspace, row.version, patient=patient)
        aad = ck_aad(self._key_domain, workspace, connection, version)
        with Secret(self._randomness(KEY_SIZE)) as key:
            return row.version, wrap_key(dek.key, key, aad, self._randomness(NONCE_SIZE))

    async def _primary(self, workspace: str) -> DekRow:
        # Again, when the KEK was rotated between wrapping and storing.
        for _ in range(3):
            row = await self._store.get_dek(workspace, 0)
            if row is None:
                row = await self._store.put_dek(workspace, await self.make(workspace, 1))
            if row is not None:
                return row
            await self.catch_up()
        raise WorkspaceErasedError

    async def _open(self, workspace: str, row: DekRow, *, patient: bool) -> Held:
        if not row.state.unwraps:
            raise WorkspaceErasedError
        name = (workspace, row.wrapped)
        unwrap = self._unwrapper(workspace, row)
        if patient or not row.customer_key_id:
            return await self._cache.get_or_unwrap(name, unwrap)
        held = self._cache.get_or_start(name, unwrap)
        if held is None:
            raise CustomerKeyPendingError
        return held

    def _unwrapper(self, workspace: str, row: DekRow) -> Callable[[], Awaitable[Held]]:
        async def unwrap() -> Held:
            label = await self._keyring.label(row.kek_version)
            aad = dek_aad(self._key_domain, workspace, row.version)
            if not row.customer_key_id:
                return Held(Secret(await self._wrapper.unwrap(label, row.wrapped, aad)))
            try:
                outer = await self._outer.open(workspace, row.customer_key_id, row.version, row.wrapped)
            except CustomerKeyUnavailableError:
                # Withdrawn: what a lease still keeps goes at once.
                self._cache.forget(workspace, "")
                raise
            key = Secret(await self._wrapper.unwrap(label, outer.payload, aad))
            return Held(key, outer.until, outer.renew)

        return unwrap
