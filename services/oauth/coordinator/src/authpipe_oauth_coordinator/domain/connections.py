"""Connections after they are made: import, and whether a token is fresh."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple

from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.due import MARGIN, due_at
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.ports import (
    Clock,
    ConfigStore,
    ConnectionStore,
)
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import Acting, Connection, Kind, Pairs, State, TokenOutcome
from authpipe_oauth_coordinator.errors import (
    DisconnectedError,
    MalformedError,
    NeedsReauthError,
    NoApiError,
    NotFoundError,
    NotRefreshableError,
    RefreshFailedError,
    RefreshTooSoonError,
)
from authpipe_providers import Entry, connection_hosts, require_values, urls
from authpipe_sensitive import AuditEntry, DomainError, Label

_FORCED_INTERVAL = timedelta(seconds=10)
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")


class Freshness(NamedTuple):
    """What there is of a token.

    Args:
        connection: The connection.
        refreshed: Whether a new token is there since the call began.
        pending: Whether a refresh goes on, and the caller was not kept waiting.
    """

    connection: Connection
    refreshed: bool = False
    pending: bool = False


class Connections:
    """The rules over connections.

    Args:
        configs: The table of provider configurations.
        entries: What is known of Providers.
        connections: The table of connections.
        refreshing: The rules over one refresh.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        jitter: Gives a random number from 0 to 1.
        patience: For how long a caller waits for the refresh of a token that still lives.
    """

    def __init__(  # required means argument
        self,
        configs: ConfigStore,
        entries: Entries,
        connections: ConnectionStore,
        refreshing: Refreshing,
        clock: Clock,
        new_id: Callable[[str], str],
        jitter: Callable[[], float],
        patience: timedelta = timedelta(seconds=2),
    ) -> None:
        self._configs = configs
        self._entries = entries
        self._connections = connections
        self._refreshing = refreshing
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter
        self._patience = patience

    async def draft(  # required means argument
        self,
        acting: Acting,
        kind: Kind,
        end_user_id: str,
        provider: str,
        config_id: str,
        allowed_hosts: tuple[str, ...],
        values: Mapping[str, str],
    ) -> Connection:
        """Reserves an id for a credential about to be imported.

        Raises:
            MalformedError: A field is missing or of another form.
            NotFoundError: The provider configuration does not exist.
            ValueNotAllowedError: What the Provider asks each connection for is missing, or of another form.
        """
        kept: Pairs = ()
        entry: Entry | None = None
        if not 1 <= len(end_user_id) <= 200 or not end_user_id.isprintable():
            raise MalformedError(field=Label("end_user_id"))
        if kind is Kind.OAUTH2:
            config = await self._configs.get_config(acting.workspace, config_id)
            if config is None:
                raise NotFoundError
            rules = config.entry.values
            kept = tuple(sorted(require_values(rules, values).items()))
            provider, hosts = config.provider, hosts_digest(connection_hosts(urls(config.entry), dict(kept), rules))
        else:
            if _PROVIDER.fullmatch(provider) is None:
                raise MalformedError(field=Label("provider"))
            entry = await self._entry_of(acting, kind, provider) if not allowed_hosts else None
            if config_id or len(allowed_hosts) > 20 or any(_HOST.fullmatch(host) is None for host in allowed_hosts):
                raise MalformedError(field=Label("allowed_hosts"))
            hosts = hosts_digest(allowed_hosts)
            if entry is not None:
                kept = tuple(sorted(require_values(entry.values, values).items()))
                hosts = hosts_digest(connection_hosts(urls(entry), dict(kept), entry.values))
        now = self._clock()
        connection = Connection(
            workspace=acting.workspace,
            id=self._new_id("con"),
            state=State.DRAFT,
            state_reason="",
            state_at=now,
            kind=kind,
            provider=provider,
            provider_config_id=config_id,
            end_user_id=end_user_id,
            scopes=(),
            expires_at=None,
            refreshable=False,
            hosts=hosts,
            refreshed_at=now,
            created_at=now,
            values=kept,
            entry=entry,
        )
        await self._connections.add_connection(connection, _entry("CONNECTION_DRAFTED", acting, connection.id))
        return connection

    async def _entry_of(self, acting: Acting, kind: Kind, provider: str) -> Entry | None:
        """Gives the entry of a Provider whose API takes credentials of a kind; None: there is none, or it takes none."""
        entry = await self._entries.find(acting.workspace, provider)
        takes = entry is not None and (entry.basic if kind is Kind.BASIC else entry.api_key is not None)
        return entry if takes and kind is not Kind.WEBHOOK_SECRET else None

    async def activate(self, acting: Acting, connection_id: str, outcome: TokenOutcome) -> Connection:
        """Makes an imported connection usable."""
        entry = _entry("CONNECTION_CREATED", acting, connection_id)
        due = due_at(self._clock(), outcome.expires_at, self._jitter()) if outcome.refreshable else None
        found = await self._connections.activate(acting.workspace, connection_id, outcome, due, entry)
        if found is None:
            raise NotFoundError
        return found

    async def get(self, acting: Acting, connection_id: str) -> Connection:
        """Gives a connection; a draft is not there yet."""
        found = await self._connections.get_connection(acting.workspace, connection_id)
        if found is None or found.state is State.DRAFT:
            raise NotFoundError
        return found

    async def ensure_fresh(  # noqa: C901  # the conditions stand in the order in which they are refused
        self, acting: Acting, connection_id: str, min_ttl: timedelta, *, force: bool
    ) -> Freshness:
        """Has a connection's token refreshed unless it lives long enough (promise P36).

        However many callers on however many replicas: they share one task in this process, and one lease row between
        processes. A token that is still valid is not refused because its refresh failed.

        A token that is still valid is served, whatever happens to its refresh: a Provider that fails, is slow or is left
        alone for a while shows in the answer.

        Returns:
            The connection, whether a new token is there since the call began, and whether a refresh goes on.

        Raises:
            DisconnectedError: It is disconnected.
            NotRefreshableError: A refresh was forced and there is no refresh token.
            NeedsReauthError: The token ended and cannot be refreshed.
            RefreshFailedError: The token ended and the Provider did not refresh it now.
            RefreshTooSoonError: A refresh was forced within ten seconds of the last.
        """
        connection = await self.get(acting, connection_id)
        began = connection.refreshed_at
        if connection.state in {State.DISCONNECTING, State.DISCONNECTED}:
            raise DisconnectedError
        if force and not connection.refreshable:
            raise NotRefreshableError
        if not force and self._lives(connection, min_ttl):
            return Freshness(connection)
        if connection.kind is not Kind.OAUTH2:
            return Freshness(connection)
        if not connection.refreshable or connection.state is State.NEEDS_REAUTH:
            self._require_living(connection, NeedsReauthError())
            return Freshness(connection)
        if force and self._clock() - connection.refreshed_at < _FORCED_INTERVAL:
            raise RefreshTooSoonError
        failing = connection.failing
        if not force and failing is not None and self._clock() < failing.not_before:
            self._require_living(connection, RefreshFailedError(cause=Label(failing.reason)))
            return Freshness(connection)
        failure: DomainError | None = None
        # Nobody who holds a living token waits for a slow Provider. The refresh goes on.
        patience = None if force or not self._lives(connection, self._patience) else self._patience.total_seconds()
        try:
            refresh = self._refreshing.once(acting, connection, forced=force or min_ttl > MARGIN)
            await asyncio.wait_for(refresh, patience)
        except TimeoutError:
            return Freshness(await self.get(acting, connection_id), pending=True)
        except DomainError as error:
            failure = error
        connection = await self.get(acting, connection_id)
        if connection.refreshed_at > began:
            return Freshness(connection, refreshed=True)
        if connection.state is State.NEEDS_REAUTH:
            failure = NeedsReauthError()
        if force and failure is not None:
            raise failure
        self._require_living(connection, failure or RefreshFailedError())
        return Freshness(connection)

    async def route(self, acting: Acting, connection_id: str) -> tuple[Connection, Entry]:
        """Gives what is known of a connection's Provider, as it was pinned.

        Raises:
            DisconnectedError: It is disconnected.
            NoApiError: Nothing is known of an API that it may be used at.
        """
        connection = await self.get(acting, connection_id)
        if connection.state in {State.DISCONNECTING, State.DISCONNECTED}:
            raise DisconnectedError
        entry = connection.entry
        if entry is None:
            config = await self._configs.get_config(acting.workspace, connection.provider_config_id)
            entry = config.entry if config is not None else None
        if entry is None or entry.api is None:
            raise NoApiError
        return connection, entry

    def _lives(self, connection: Connection, min_ttl: timedelta) -> bool:
        return connection.expires_at is None or connection.expires_at - self._clock() > min_ttl

    def _require_living(self, connection: Connection, otherwise: DomainError) -> None:
        if not self._lives(connection, timedelta(0)):
            raise otherwise


def _entry(name: str, acting: Acting, target: str, *, purpose: str = "", reason: str = "") -> AuditEntry:
    return AuditEntry(
        name=name,
        outcome="FAILED" if reason else "SUCCEEDED",
        actor=acting.actor,
        request_id=acting.request_id,
        workspace_id=acting.workspace,
        target=target,
        purpose=purpose,
        reason=reason,
    )
