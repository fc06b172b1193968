"""DEKs: one set per workspace, made when the first connection key is, unwrapped by the HSM, kept for minutes."""

from __future__ import annotations

from collections.abc import Callable
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
from authpipe_keyservice.errors import KeyTamperedError, WorkspaceErasedError
from authpipe_sensitive import Secret


@dataclass(frozen=True, slots=True)
class DekRow:
    """A DEK as stored.

    Args:
        version: Its number within the workspace, from 1.
        kek_version: The KEK version that wraps it.
        wrapped: Its wrapped form.
        state: Primary: it wraps new connection keys; active: it unwraps; disabled: its workspace is being erased.
    """

    version: int
    kek_version: int
    wrapped: bytes
    state: KeyVersionState = KeyVersionState.PRIMARY


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
        cache: KeyCache,
        randomness: Callable[[int], bytes],
    ) -> None:
        self._key_domain = key_domain
        self._keyring = keyring
        self._store = store
        self._wrapper = wrapper
        self._cache = cache
        self._randomness = randomness

    async def open(self, workspace: str, version: int) -> Held:
        """Gives a DEK, from the cache or unwrapped by the HSM.

        Raises:
            WorkspaceErasedError: The workspace is being erased.
            KeyTamperedError: The row is gone, was changed, or belongs elsewhere.
            HsmUnavailableError: The token does not answer.
        """
        row = await self._store.get_dek(workspace, version)
        if row is None:
            raise KeyTamperedError
        return await self._open(workspace, row)

    async def make(self, workspace: str, version: int) -> DekRow:
        """Makes a DEK, wrapped by the primary KEK version; it is not stored yet."""
        primary = self._keyring.primary()
        aad = dek_aad(self._key_domain, workspace, version)
        wrapped = await self._wrapper.wrap(kek_label(self._key_domain, primary), self._randomness(KEY_SIZE), aad)
        return DekRow(version, primary, wrapped)

    async def new_key(self, workspace: str, connection: str, version: int) -> tuple[int, bytes]:
        """Makes a connection key, wrapped by the primary DEK of its workspace; it is not stored yet.

        Returns:
            The DEK's version and the wrapped key.

        Raises:
            WorkspaceErasedError: The workspace is being erased.
        """
        row = await self._primary(workspace)
        dek = await self._open(workspace, row)
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
            await self._keyring.refresh()
        raise WorkspaceErasedError

    async def _open(self, workspace: str, row: DekRow) -> Held:
        if not row.state.unwraps:
            raise WorkspaceErasedError

        async def unwrap() -> Held:
            label = await self._keyring.label(row.kek_version)
            aad = dek_aad(self._key_domain, workspace, row.version)
            return Held(Secret(await self._wrapper.unwrap(label, row.wrapped, aad)))

        return await self._cache.get_or_unwrap((workspace, row.wrapped), unwrap)
