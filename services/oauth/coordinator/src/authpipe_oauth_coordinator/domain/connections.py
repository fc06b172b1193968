"""Connections after they are made: whether a token is fresh, and where it may be used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

from authpipe_oauth_coordinator.domain.due import MARGIN
from authpipe_oauth_coordinator.domain.ports import (
    Clock,
    ConfigStore,
    ConnectionStore,
)
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Connection,
    Kind,
    ProviderConfig,
    State,
)
from authpipe_oauth_coordinator.errors import (
    DisconnectedError,
    NeedsReauthError,
    NoApiError,
    NotFoundError,
    NotRefreshableError,
    RefreshFailedError,
    RefreshTooSoonError,
)
from authpipe_providers import Entry, WebhookScheme
from authpipe_sensitive import DomainError, Label

_ENDED = {State.DISCONNECTING, State.DISCONNECTED, State.KEPT}
_FORCED_INTERVAL = timedelta(seconds=10)


class Route(NamedTuple):
    """Where a connection's Provider has its API, and as which client of ours requests to it are signed.

    Args:
        connection: The connection.
        entry: What is known of its Provider, as it was pinned.
        client: Our client, where every request is signed as it too (OAuth 1.0a); None: it is not.
        client_grant: The grant for the worker to open its client secret; empty: it needs none.
    """

    connection: Connection
    entry: Entry
    client: ProviderConfig | None = None
    client_grant: str = ""


class SignForClient(Protocol):
    """Signs grants to authenticate as our OAuth client."""

    def __call__(self, acting: Acting, provider_config: str, classes: Sequence[int], thumbprint: str) -> str:
        """Signs one."""


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
        connections: The table of connections.
        refreshing: The rules over one refresh.
        clock: Gives the time, with zone.
        patience: For how long a caller waits for the refresh of a token that still lives.
    """

    def __init__(  # required means argument
        self,
        configs: ConfigStore,
        connections: ConnectionStore,
        refreshing: Refreshing,
        sign: SignForClient,
        clock: Clock,
        patience: timedelta = timedelta(seconds=2),
    ) -> None:
        self._sign = sign
        self._configs = configs
        self._connections = connections
        self._refreshing = refreshing
        self._clock = clock
        self._patience = patience

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
        if connection.state in _ENDED:
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

    async def route(self, acting: Acting, connection_id: str, thumbprint: str) -> Route:
        """Gives what is known of a connection's Provider, as it was pinned, for the worker with a key of this thumbprint.

        Raises:
            DisconnectedError: It is disconnected.
            NoApiError: Nothing is known of its Provider. Where nothing is known of an API alone, the worker says so.
        """
        connection = await self.get(acting, connection_id)
        if connection.state in _ENDED:
            raise DisconnectedError
        entry = await self._pinned(connection)
        if entry is None:
            raise NoApiError
        if connection.kind is not Kind.OAUTH1:
            return Route(connection, entry)
        client = await self._configs.get_config(connection.workspace, connection.provider_config_id)
        if client is None:
            raise NoApiError
        return Route(connection, entry, client, self._sign(acting, client.id, client.secret_classes, thumbprint))

    async def webhook_scheme(self, acting: Acting, connection_id: str) -> WebhookScheme | None:
        """Gives how a connection's Provider signs what it sends; None: nothing is known.

        Raises:
            DisconnectedError: It is disconnected.
        """
        connection = await self.get(acting, connection_id)
        if connection.state in _ENDED:
            raise DisconnectedError
        entry = await self._pinned(connection)
        return entry.webhook if entry is not None else None

    async def _pinned(self, connection: Connection) -> Entry | None:
        """Gives what is known of a connection's Provider, as it was pinned."""
        if connection.entry is not None:
            return connection.entry
        config = await self._configs.get_config(connection.workspace, connection.provider_config_id)
        return config.entry if config is not None else None

    def _lives(self, connection: Connection, min_ttl: timedelta) -> bool:
        return connection.expires_at is None or connection.expires_at - self._clock() > min_ttl

    def _require_living(self, connection: Connection, otherwise: DomainError) -> None:
        if not self._lives(connection, timedelta(0)):
            raise otherwise
