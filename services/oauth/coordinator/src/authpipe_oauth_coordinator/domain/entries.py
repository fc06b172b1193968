"""What is known of Providers: the catalog's entries, and those that workspaces describe for themselves (promise P37).

An entry is read when a provider configuration is made, and pinned with it: what changes afterwards changes nothing there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from authpipe_oauth_coordinator.domain.words import audit_entry, Acting
from authpipe_oauth_coordinator.errors import NotFoundError, ProviderExistsError, TooManyProvidersError
from authpipe_providers import Document, Entry, parse
from authpipe_sensitive import AuditEntry

_MOST = 200


class EntryStore(Protocol):
    """Entries of workspaces. Every change is one transaction with its event."""

    async def add_entry(self, workspace: str, found: Entry, most: int, entry: AuditEntry) -> bool | None:
        """Stores an entry; False: there is one of this name, None: there are too many."""

    async def get_entry(self, workspace: str, name: str) -> Entry | None:
        """Gives an entry."""

    async def list_entries(self, workspace: str) -> list[Entry]:
        """Gives a workspace's entries."""

    async def delete_entry(self, workspace: str, name: str, entry: AuditEntry) -> bool:
        """Deletes an entry; False: there is none."""


class Entries:
    """The rules over entries.

    Args:
        store: Entries of workspaces.
        catalog: Entries that come with us.
    """

    def __init__(self, store: EntryStore, catalog: Mapping[str, Entry]) -> None:
        self._store = store
        self._catalog = catalog

    async def find(self, workspace: str, name: str) -> Entry | None:
        """Gives what is known of a Provider; None: nothing."""
        return self._catalog.get(name) or await self._store.get_entry(workspace, name)

    async def known(self, workspace: str) -> list[tuple[Entry, bool]]:
        """Gives all that are known, by name, and whether each is the workspace's own."""
        own = [(entry, True) for entry in await self._store.list_entries(workspace)]
        return sorted([*own, *((entry, False) for entry in self._catalog.values())], key=lambda each: each[0].name)

    async def add(self, acting: Acting, document: Document) -> Entry:
        """Adds an entry of a workspace's own, checked as the catalog's are.

        Raises:
            EntryError: It is not one.
            ProviderExistsError: There is one of this name.
            TooManyProvidersError: There are two hundred.
        """
        found = parse(document)
        if found.name in self._catalog:
            raise ProviderExistsError
        added = await self._store.add_entry(
            acting.workspace, found, _MOST, audit_entry("PROVIDER_ADDED", acting, found.name)
        )
        if added is None:
            raise TooManyProvidersError
        if not added:
            raise ProviderExistsError
        return found

    async def delete(self, acting: Acting, name: str) -> None:
        """Deletes an entry of a workspace's own.

        Raises:
            NotFoundError: There is none.
        """
        if not await self._store.delete_entry(acting.workspace, name, audit_entry("PROVIDER_DELETED", acting, name)):
            raise NotFoundError
