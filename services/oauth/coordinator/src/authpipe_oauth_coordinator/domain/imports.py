"""Credentials that customers bring: what a record of one is bound to, and the connection that comes of it.

What is brought is a credential, or what tokens are asked for with (client credentials, a key, a token of somebody else's,
credentials of a two-step token): then the first token is asked for when the connection is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from authpipe_envelope import hosts_digest
from authpipe_oauth_coordinator.domain.due import due_at
from authpipe_oauth_coordinator.domain.entries import Entries
from authpipe_oauth_coordinator.domain.ports import Clock, ConfigStore, ConnectionStore
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import (
    audit_entry,
    Acting,
    Connection,
    Kind,
    Pairs,
    Renewal,
    State,
    TokenOutcome,
)
from authpipe_oauth_coordinator.errors import GrantNotOfferedError, MalformedError, NotFoundError
from authpipe_providers import Entry, ValueRule, connection_hosts, require_values, urls
from authpipe_sensitive import DomainError, Label, get_log

_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
_MOST_HOSTS = 20


class Brought(NamedTuple):
    """What a customer says of a credential.

    Args:
        kind: What kind.
        end_user_id: The customer's id of the end user.
        provider: A name for the Provider; for tokens it is the configuration's.
        config_id: For tokens: the OAuth client.
        allowed_hosts: For keys: where they may be sent; none: where the Provider's entry says.
        values: What the Provider asks each connection for.
        renewal: How the next access token is come by.
        rotate_at: When an API key ends; None: as the Provider's entry says.
    """

    kind: Kind
    end_user_id: str
    provider: str
    config_id: str
    allowed_hosts: tuple[str, ...]
    values: Mapping[str, str]
    renewal: Renewal = Renewal.REFRESH_TOKEN
    rotate_at: datetime | None = None


class _Bound(NamedTuple):
    """What a credential is bound to."""

    provider: str
    hosts: bytes
    values: Pairs = ()
    entry: Entry | None = None
    scopes: tuple[str, ...] = ()


class Imports:
    """The rules over what customers bring.

    Args:
        configs: The table of provider configurations.
        entries: What is known of Providers.
        connections: The table of connections.
        refreshing: The rules over one refresh.
        clock: Gives the time, with zone.
        new_id: Makes an id with a prefix.
        jitter: Gives a random number from 0 to 1.
    """

    def __init__(
        self,
        configs: ConfigStore,
        entries: Entries,
        connections: ConnectionStore,
        refreshing: Refreshing,
        clock: Clock,
        new_id: Callable[[str], str],
        jitter: Callable[[], float],
    ) -> None:
        self._configs = configs
        self._entries = entries
        self._connections = connections
        self._refreshing = refreshing
        self._clock = clock
        self._new_id = new_id
        self._jitter = jitter

    async def draft(self, acting: Acting, brought: Brought) -> Connection:
        """Reserves an id for what is about to be imported.

        Raises:
            MalformedError: A field is missing or of another form.
            NotFoundError: The provider configuration does not exist.
            GrantNotOfferedError: Its Provider gives no tokens in that way.
            ValueNotAllowedError: What the Provider asks each connection for is missing, or of another form.
        """
        kind = brought.kind
        if not 1 <= len(brought.end_user_id) <= 200 or not brought.end_user_id.isprintable():
            raise MalformedError(field=Label("end_user_id"))
        if brought.renewal is not Renewal.REFRESH_TOKEN and kind is not Kind.OAUTH2:
            raise MalformedError(field=Label("renewal"))
        if brought.rotate_at is not None and kind is not Kind.API_KEY:
            raise MalformedError(field=Label("rotate_time"))
        if kind not in {Kind.OAUTH2, Kind.OAUTH1}:
            bound = await self._of_key(acting, brought)
        elif brought.renewal is Renewal.TWO_STEP:
            bound = await self._of_two_step(acting, brought)
        else:
            bound = await self._of_tokens(acting, brought)
        now, rotate_at = self._clock(), brought.rotate_at
        if rotate_at is None and kind is Kind.API_KEY and bound.entry is not None and bound.entry.key_life_days:
            rotate_at = now + timedelta(days=bound.entry.key_life_days)
        connection = Connection(
            workspace=acting.workspace,
            id=self._new_id("con"),
            state=State.DRAFT,
            state_reason="",
            state_at=now,
            kind=kind,
            provider=bound.provider,
            provider_config_id=brought.config_id,
            end_user_id=brought.end_user_id,
            scopes=bound.scopes,
            expires_at=None,
            refreshable=False,
            hosts=bound.hosts,
            refreshed_at=now,
            created_at=now,
            values=bound.values,
            entry=bound.entry,
            renewal=brought.renewal,
            rotate_at=rotate_at,
        )
        await self._connections.add_connection(connection, audit_entry("CONNECTION_DRAFTED", acting, connection.id))
        return connection

    async def _of_tokens(self, acting: Acting, brought: Brought) -> _Bound:
        config = await self._configs.get_config(acting.workspace, brought.config_id)
        if config is None:
            raise NotFoundError
        if brought.renewal is not Renewal.REFRESH_TOKEN and brought.renewal.value not in config.entry.grants:
            raise GrantNotOfferedError
        if (brought.kind is Kind.OAUTH1) != bool(config.endpoints.temporary_endpoint):
            raise GrantNotOfferedError
        values, hosts = _filled(config.entry, brought.values)
        return _Bound(config.provider, hosts, values, scopes=config.scopes)

    async def _of_two_step(self, acting: Acting, brought: Brought) -> _Bound:
        entry = await self._entries.find(acting.workspace, brought.provider)
        if entry is None or entry.dialect.two_step is None or brought.config_id:
            raise GrantNotOfferedError
        values, hosts = _filled(entry, brought.values)
        return _Bound(brought.provider, hosts, values, entry)

    async def _of_key(self, acting: Acting, brought: Brought) -> _Bound:
        if _PROVIDER.fullmatch(brought.provider) is None:
            raise MalformedError(field=Label("provider"))
        given = brought.allowed_hosts
        if brought.config_id or len(given) > _MOST_HOSTS or any(_HOST.fullmatch(host) is None for host in given):
            raise MalformedError(field=Label("allowed_hosts"))
        entry = await self._entry_of(acting, brought.kind, brought.provider) if not given else None
        if entry is None:
            return _Bound(brought.provider, hosts_digest(given))
        values, hosts = _filled(entry, brought.values)
        return _Bound(brought.provider, hosts, values, entry)

    async def _entry_of(self, acting: Acting, kind: Kind, provider: str) -> Entry | None:
        """Gives the entry of a Provider whose API takes credentials of a kind; None: there is none, or it takes none."""
        entry = await self._entries.find(acting.workspace, provider)
        if entry is None:
            return None
        match kind:
            case Kind.BASIC:
                return entry if entry.basic else None
            case Kind.WEBHOOK_SECRET:
                return entry if entry.webhook is not None else None
            case _:
                return entry if entry.api_key is not None else None

    async def activate(self, acting: Acting, connection_id: str, outcome: TokenOutcome) -> Connection:
        """Makes an imported connection usable; one that brings what tokens are asked for with, asks for the first one."""
        entry = audit_entry("CONNECTION_CREATED", acting, connection_id)
        draft = await self._connections.get_connection(acting.workspace, connection_id)
        if draft is None:
            raise NotFoundError
        asks = draft.renewal is not Renewal.REFRESH_TOKEN
        if asks:
            # As if it had one that has just ended.
            outcome = TokenOutcome("", draft.scopes, self._clock(), refreshable=True)
        due = due_at(self._clock(), outcome.expires_at, self._jitter()) if outcome.refreshable else None
        found = await self._connections.activate(acting.workspace, connection_id, outcome, due, entry)
        if found is None:
            raise NotFoundError
        if not asks:
            return found
        try:
            await self._refreshing.once(acting, found, forced=False)
        except DomainError as error:
            get_log().info("a first token was not given", error=error)
        return await self._connections.get_connection(acting.workspace, connection_id) or found


def _filled(entry: Entry, given: Mapping[str, str]) -> tuple[Pairs, bytes]:
    """Gives a connection's values, and the digest of the hosts that follow from them."""
    rules: tuple[ValueRule, ...] = entry.values
    values = tuple(sorted(require_values(rules, given).items()))
    return values, hosts_digest(connection_hosts(urls(entry), dict(values), rules))
