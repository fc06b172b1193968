"""Metadata that is fetched again: a Provider that was found by its issuer may move its endpoints (RFC 8414, section 3).

What is bound stays bound: metadata that names other hosts than a client secret is sealed for is not taken, and is told in the log;
who wants that makes another provider configuration, to which end users agree anew (case 22).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, Protocol

from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.ports import Worker
from authpipe_oauth_coordinator.domain.provider_configs import described
from authpipe_oauth_coordinator.domain.words import ProviderConfig
from authpipe_oauth_coordinator.errors import EndpointError
from authpipe_providers import client_hosts, urls
from authpipe_sensitive import AuditEntry, DomainError, get_log

_MOST = 20


_MOVED = "HOSTS_CHANGED"


class DiscoveredTable(Protocol):
    """Provider configurations that were made by issuer."""

    async def claim_discovered(self, most: int, seconds: float) -> list[ProviderConfig]:
        """Takes up those whose metadata was fetched so long ago; they are not taken up again before as long."""

    async def change_endpoints(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores endpoints and entry, with its event. What failed is tried again at once."""

    async def note_config(self, config: ProviderConfig, notice: str, entry: AuditEntry) -> None:
        """Stores what the owner of a configuration should know, with its event; empty: nothing any more."""


class Discovering:
    """Fetches metadata again.

    Args:
        table: Provider configurations that were made by issuer.
        worker: Fetches it.
        new_id: Makes an id with a prefix.
        every_seconds: After what time.
    """

    def __init__(
        self, table: DiscoveredTable, worker: Worker, new_id: Callable[[str], str], every_seconds: float
    ) -> None:
        self._table = table
        self._worker = worker
        self._new_id = new_id
        self._every = every_seconds

    async def run(self) -> None:
        """Fetches what is old. A Provider that does not answer stays as it was, and is asked again the next time."""
        for config in await self._table.claim_discovered(_MOST, self._every):
            try:
                await self._look(config)
            except DomainError as error:
                get_log().info("metadata was not fetched again", error=error)

    async def _look(self, config: ProviderConfig) -> None:
        request_id = self._new_id("req")
        found = await self._worker.discover(config.endpoints.issuer, request_id)
        if found.issuer != config.endpoints.issuer:
            raise EndpointError
        # How our client shows who it is was the customer's to say, and whether tokens are bound to keys.
        kept = config.endpoints
        known = described(dataclasses.replace(found, auth_method=kept.auth_method, dpop=kept.dpop))
        endpoints = known.endpoints
        if endpoints is None:
            return
        if endpoints == config.endpoints:
            if config.notice:
                await self._table.note_config(config, "", _entry(config, request_id, "SUCCEEDED", "METADATA_AS_BEFORE"))
            return
        if hosts_digest(client_hosts(urls(known), known.values)) != config.hosts:
            # What is sealed may not go there: the owner hears of it, and makes another configuration if it is right.
            moved = _entry(config, request_id, "REFUSED", _MOVED)
            await self._table.note_config(config, _MOVED, moved)
            return
        changed = dataclasses.replace(config, endpoints=endpoints, entry=known)
        await self._table.change_endpoints(changed, _entry(config, request_id, "SUCCEEDED", "METADATA_CHANGED"))


def _entry(
    config: ProviderConfig, request_id: str, outcome: Literal["SUCCEEDED", "REFUSED"], reason: str
) -> AuditEntry:
    return AuditEntry(
        name="PROVIDER_CONFIG_CHANGED",
        outcome=outcome,
        actor="service:oauth/coordinator",
        request_id=request_id,
        workspace_id=config.workspace,
        target=config.id,
        reason=reason,
    )
