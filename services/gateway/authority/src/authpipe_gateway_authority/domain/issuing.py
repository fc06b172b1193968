"""API keys made and revoked by operators. What is refused is on record too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from authpipe_gateway_authority.domain.acting import Acting, on_record
from authpipe_gateway_authority.domain.api_keys import SCOPES, ApiKeyRow
from authpipe_gateway_authority.errors import MalformedError, WorkspaceNotFoundError
from authpipe_sensitive import AuditEntry

_LONGEST_NAME = 100


class Store(Protocol):
    """authority's own tables."""

    async def create_api_key(self, make: Callable[[int], ApiKeyRow], workspace: str, entry: AuditEntry) -> None:
        """Stores a new API key in its workspace's epoch, with the event."""

    async def revoke_api_key(self, workspace: str, api_key_id: str, entry: AuditEntry) -> None:
        """Revokes an API key, with the event."""

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Issuing:
    """The rules over API keys.

    Args:
        store: authority's own tables.
        forget: Drops what is remembered of API keys.
    """

    def __init__(self, store: Store, forget: Callable[[], None]) -> None:
        self._store = store
        self._forget = forget

    async def create(
        self, acting: Acting, api_key_id: str, display_name: str, scopes: Sequence[str], key_hash: bytes
    ) -> None:
        """Stores a new API key.

        Raises:
            MalformedError: The name or a scope is none.
            WorkspaceNotFoundError: There is no such workspace.
        """
        wanted = tuple(sorted(set(scopes)))

        def make(epoch: int) -> ApiKeyRow:
            return ApiKeyRow(acting.workspace, api_key_id, display_name, key_hash, wanted, "active", epoch)

        async with self._on_record(acting, api_key_id):
            require_name(display_name)
            if not wanted or not set(wanted) <= set(SCOPES):
                raise MalformedError
            await self._store.create_api_key(make, acting.workspace, acting.entry("API_KEY_CREATED", api_key_id))

    async def revoke(self, acting: Acting, api_key_id: str) -> None:
        """Revokes an API key; also one that was revoked already.

        Raises:
            WorkspaceNotFoundError: There is no such API key.
        """
        async with self._on_record(acting, api_key_id):
            await self._store.revoke_api_key(acting.workspace, api_key_id, acting.entry("API_KEY_REVOKED", api_key_id))
        self._forget()

    def _on_record(self, acting: Acting, api_key_id: str) -> AbstractAsyncContextManager[None]:
        return on_record(self._store.note, acting, api_key_id, MalformedError, WorkspaceNotFoundError)


def require_name(display_name: str) -> str:
    """Gives a name to show.

    Raises:
        MalformedError: It is none: 1 to 100 printable characters.
    """
    if not 1 <= len(display_name) <= _LONGEST_NAME or not display_name.isprintable():
        raise MalformedError
    return display_name
