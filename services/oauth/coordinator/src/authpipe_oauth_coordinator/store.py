"""SQL for provider configurations, sessions, flows, connections and leases; each change in one transaction with its event."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import (
    Connection,
    Endpoints,
    Flow,
    Kind,
    ProviderConfig,
    Session,
    State,
    TokenOutcome,
)
from authpipe_sensitive import AuditEntry
from authpipe_sensitive.duties import note_nothing_done

_ENDPOINTS = (
    "issuer, authorization_endpoint, token_endpoint, revocation_endpoint, token_endpoint_auth_method, iss_required"
)
_CONFIG = (
    "workspace_id, id, provider, display_name, client_id, scopes, redirect_uris, hosts_digest, created_at, "
    + _ENDPOINTS
)
_CONNECTION = (
    "workspace_id, id, state, state_reason, state_at, kind, provider, provider_config_id, end_user_id, scopes,"
    " expires_at, refreshable, hosts_digest, refreshed_at, created_at"
)


class Store:
    """coordinator's tables in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add_draft_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores a draft."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    f"insert into provider_configs ({_CONFIG}, state) values (:workspace, :id, :provider, :name,"  # fixed columns
                    " :client_id, :scopes, :redirect_uris, :hosts, :created_at, :issuer, :authorization, :token,"
                    " :revocation, :method, :iss_required, 'draft')"
                ),
                {**_config_values(config), **_endpoint_values(config.endpoints)},
            )
            await self._outbox.append(connection, entry)

    async def activate_config(self, workspace: str, config_id: str, entry: AuditEntry) -> ProviderConfig | None:
        """Makes a draft usable; None: there is none."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update provider_configs set state = 'active' where workspace_id = :workspace and id = :id"
                        f" and state in ('draft', 'active') returning {_CONFIG}"
                    ),
                    {"workspace": workspace, "id": config_id},
                )
            ).one_or_none()
            if row is None:
                return None
            await self._outbox.append(connection, entry)
        return _config(row)

    async def get_config(self, workspace: str, config_id: str) -> ProviderConfig | None:
        """Gives a usable provider configuration."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        f"select {_CONFIG} from provider_configs"  # fixed columns
                        " where workspace_id = :workspace and id = :id and state = 'active'"
                    ),
                    {"workspace": workspace, "id": config_id},
                )
            ).one_or_none()
        return _config(row) if row else None

    async def list_configs(self, workspace: str, limit: int, after: str) -> list[ProviderConfig]:
        """Gives usable provider configurations, by id."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {_CONFIG} from provider_configs where workspace_id = :workspace and state = 'active'"  # fixed columns
                    " and id > :after order by id limit :limit"
                ),
                {"workspace": workspace, "after": after, "limit": limit},
            )
            return [_config(row) for row in rows]

    async def update_config(self, config: ProviderConfig, entry: AuditEntry) -> None:
        """Stores name, scopes and redirect URIs."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update provider_configs set display_name = :name, scopes = :scopes, redirect_uris = :redirect_uris"
                    " where workspace_id = :workspace and id = :id and state = 'active'"
                ),
                {
                    "name": config.display_name,
                    "scopes": list(config.scopes),
                    "redirect_uris": list(config.redirect_uris),
                    "workspace": config.workspace,
                    "id": config.id,
                },
            )
            await self._outbox.append(connection, entry)

    async def delete_config(self, workspace: str, config_id: str, entry: AuditEntry) -> bool:
        """Deletes a provider configuration without connections; False: it has some."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update provider_configs set state = 'deleted' where workspace_id = :workspace and id = :id"
                    " and not exists (select from connections c where c.workspace_id = :workspace"
                    " and c.provider_config_id = :id and c.state <> 'disconnected')"
                ),
                {"workspace": workspace, "id": config_id},
            )
            if result.rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True

    async def add_session(self, session_hash: bytes, session: Session, entry: AuditEntry) -> None:
        """Stores a connect session."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into connect_sessions (workspace_id, session_hash, end_user_id, provider_config_ids,"
                    " expires_at) values (:workspace, :hash, :end_user, :configs, :expires)"
                ),
                {
                    "workspace": session.workspace,
                    "hash": session_hash,
                    "end_user": session.end_user_id,
                    "configs": list(session.provider_config_ids),
                    "expires": session.expires_at,
                },
            )
            await self._outbox.append(connection, entry)

    async def get_session(self, session_hash: bytes) -> Session | None:
        """Gives a connect session."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "select workspace_id, end_user_id, provider_config_ids, expires_at from connect_sessions"
                        " where session_hash = :hash"
                    ),
                    {"hash": session_hash},
                )
            ).one_or_none()
        return (
            Session(row.workspace_id, row.end_user_id, tuple(row.provider_config_ids), row.expires_at) if row else None
        )

    async def add_flow(self, state_hash: bytes, flow: Flow, entry: AuditEntry) -> None:
        """Stores a flow."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into flows (workspace_id, state_hash, connection_id, provider_config_id, end_user_id,"  # fixed columns
                    f" binding_hash, redirect_uri, expires_at, {_ENDPOINTS}) values (:workspace, :hash, :connection,"
                    " :config, :end_user, :binding, :redirect_uri, :expires, :issuer, :authorization, :token,"
                    " :revocation, :method, :iss_required)"
                ),
                {
                    "workspace": flow.workspace,
                    "hash": state_hash,
                    "connection": flow.connection_id,
                    "config": flow.provider_config_id,
                    "end_user": flow.end_user_id,
                    "binding": flow.binding_hash,
                    "redirect_uri": flow.redirect_uri,
                    "expires": flow.expires_at,
                    **_endpoint_values(flow.endpoints),
                },
            )
            await self._outbox.append(connection, entry)

    async def use_flow(self, state_hash: bytes) -> Flow | None:
        """Uses a state up and gives its flow. One statement: of two callbacks at once, one finds it unused."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update flows set used_at = now() where state_hash = :hash and used_at is null"
                        " returning workspace_id, connection_id, provider_config_id, end_user_id, binding_hash,"
                        f" redirect_uri, expires_at, {_ENDPOINTS}"
                    ),
                    {"hash": state_hash},
                )
            ).one_or_none()
        if row is None:
            return None
        return Flow(
            row.workspace_id,
            row.connection_id,
            row.provider_config_id,
            row.end_user_id,
            bytes(row.binding_hash),
            row.redirect_uri,
            _endpoints(row),
            row.expires_at,
        )

    async def note(self, entry: AuditEntry) -> None:
        """Makes an event durable on its own."""
        async with self._database.transaction() as connection:
            await self._outbox.append(connection, entry)

    async def add_connection(self, new: Connection, entry: AuditEntry) -> None:
        """Stores a connection."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    f"insert into connections ({_CONNECTION}) values (:workspace, :id, :state, :reason, :state_at, :kind,"  # fixed columns
                    " :provider, :config, :end_user, :scopes, :expires, :refreshable, :hosts, :refreshed, :created)"
                ),
                {
                    "workspace": new.workspace,
                    "id": new.id,
                    "state": new.state.value,
                    "reason": new.state_reason,
                    "state_at": new.state_at,
                    "kind": new.kind.value,
                    "provider": new.provider,
                    "config": new.provider_config_id,
                    "end_user": new.end_user_id,
                    "scopes": list(new.scopes),
                    "expires": new.expires_at,
                    "refreshable": new.refreshable,
                    "hosts": new.hosts,
                    "refreshed": new.refreshed_at,
                    "created": new.created_at,
                },
            )
            await self._outbox.append(connection, entry)

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection, drafts too."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        f"select {_CONNECTION} from connections where workspace_id = :workspace and id = :id"
                    ),  # fixed columns
                    {"workspace": workspace, "id": connection_id},
                )
            ).one_or_none()
        return _connection(row) if row else None

    async def list_connections(self, workspace: str, end_user_id: str, limit: int, before: str) -> list[Connection]:
        """Gives connections that are no drafts, newest first; `before` is the id where the page before ended."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {_CONNECTION} from connections where workspace_id = :workspace and state <> 'draft'"  # fixed columns
                    " and (:end_user = '' or end_user_id = :end_user) and (:before = '' or (created_at, id) <"
                    " (select created_at, id from connections where workspace_id = :workspace and id = :before))"
                    " order by created_at desc, id desc limit :limit"
                ),
                {"workspace": workspace, "end_user": end_user_id, "before": before, "limit": limit},
            )
            return [_connection(row) for row in rows]

    async def activate(
        self, workspace: str, connection_id: str, outcome: TokenOutcome, entry: AuditEntry
    ) -> Connection | None:
        """Makes a draft active; None: there is none."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update connections set state = 'active', state_at = now(), scopes = :scopes,"
                        " expires_at = :expires, refreshable = :refreshable, refreshed_at = now()"
                        f" where workspace_id = :workspace and id = :id and state = 'draft' returning {_CONNECTION}"
                    ),
                    {
                        "scopes": list(outcome.scopes),
                        "expires": outcome.expires_at,
                        "refreshable": outcome.refreshable,
                        "workspace": workspace,
                        "id": connection_id,
                    },
                )
            ).one_or_none()
            if row is None:
                return None
            await self._outbox.append(connection, entry)
        return _connection(row)

    async def move(  # required means argument
        self,
        workspace: str,
        connection_id: str,
        sources: tuple[State, ...],
        target: State,
        reason: str,
        entry: AuditEntry,
    ) -> bool:
        """Moves a connection to another state; False: it is in none of the source states, and nothing happened."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update connections set state = :target, state_reason = :reason, state_at = now()"
                    " where workspace_id = :workspace and id = :id and state = any(:sources)"
                ),
                {
                    "target": target.value,
                    "reason": reason,
                    "workspace": workspace,
                    "id": connection_id,
                    "sources": [state.value for state in sources],
                },
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)
            else:
                note_nothing_done()
        return bool(result.rowcount)

    async def acquire_lease(
        self, workspace: str, connection_id: str, holder: str, seconds: float, entry: AuditEntry
    ) -> int | None:
        """Takes the lease with a new fence, with its event; None: another holder lives."""
        async with self._database.transaction() as connection:
            fence = await connection.scalar(
                sa.text(
                    "insert into leases (workspace_id, connection_id, holder, fence, lives_until)"
                    " values (:workspace, :connection, :holder, 1, now() + make_interval(secs => :seconds))"
                    " on conflict (workspace_id, connection_id) do update set holder = :holder,"
                    " fence = leases.fence + 1, lives_until = now() + make_interval(secs => :seconds)"
                    " where leases.lives_until < now() returning fence"
                ),
                {"workspace": workspace, "connection": connection_id, "holder": holder, "seconds": seconds},
            )
            if fence is None:
                return None
            await self._outbox.append(connection, entry)
        return int(fence)

    async def extend_lease(self, workspace: str, connection_id: str, fence: int, seconds: float) -> bool:
        """Heartbeat; False: somebody else has it."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update leases set lives_until = now() + make_interval(secs => :seconds)"
                    " where workspace_id = :workspace and connection_id = :connection and fence = :fence"
                ),
                {"workspace": workspace, "connection": connection_id, "fence": fence, "seconds": seconds},
            )
        return result.rowcount == 1

    async def end_lease(  # required means argument
        self,
        workspace: str,
        connection_id: str,
        fence: int,
        outcome: TokenOutcome | None,
        reauth_reason: str,
        entry: AuditEntry | None,
    ) -> None:
        """Gives the lease back, with what came of it. Whoever has been passed over changes nothing but leaves its event."""
        names = {"workspace": workspace, "connection": connection_id, "fence": fence}
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update leases set lives_until = '-infinity' where workspace_id = :workspace"
                    " and connection_id = :connection and fence = :fence"
                ),
                names,
            )
            if result.rowcount == 1 and outcome is not None:
                await connection.execute(
                    sa.text(
                        "update connections set expires_at = :expires, refreshable = :refreshable, scopes ="
                        " case when cardinality(:scopes) > 0 then :scopes else scopes end, refreshed_at = now()"
                        " where workspace_id = :workspace and id = :connection and state in ('active', 'needs_reauth')"
                    ).bindparams(sa.bindparam("scopes", type_=sa.ARRAY(sa.Text))),
                    {
                        **names,
                        "expires": outcome.expires_at,
                        "refreshable": outcome.refreshable,
                        "scopes": list(outcome.scopes),
                    },
                )
            if result.rowcount == 1 and reauth_reason:
                await connection.execute(
                    sa.text(
                        "update connections set state = 'needs_reauth', state_reason = :reason, state_at = now()"
                        " where workspace_id = :workspace and id = :connection and state = 'active'"
                    ),
                    {**names, "reason": reauth_reason},
                )
            if entry is not None:
                await self._outbox.append(connection, entry)

    async def unfinished(self, older_than_seconds: float) -> list[Connection]:
        """Gives connections that are disconnecting for longer than that, and drafts of a quarter of an hour ago."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                sa.text(
                    f"select {_CONNECTION} from connections where"  # fixed columns
                    " (state = 'disconnecting' and state_at < now() - make_interval(secs => :seconds))"
                    " or (state = 'draft' and state_at < now() - interval '15 minutes') order by state_at limit 50"
                ),
                {"seconds": older_than_seconds},
            )
            return [_connection(row) for row in rows]


def _config_values(config: ProviderConfig) -> dict[str, Any]:
    return {
        "workspace": config.workspace,
        "id": config.id,
        "provider": config.provider,
        "name": config.display_name,
        "client_id": config.client_id,
        "scopes": list(config.scopes),
        "redirect_uris": list(config.redirect_uris),
        "hosts": config.hosts,
        "created_at": config.created_at,
    }


def _endpoint_values(endpoints: Endpoints) -> dict[str, Any]:
    return {
        "issuer": endpoints.issuer,
        "authorization": endpoints.authorization_endpoint,
        "token": endpoints.token_endpoint,
        "revocation": endpoints.revocation_endpoint,
        "method": endpoints.auth_method,
        "iss_required": endpoints.iss_required,
    }


def _endpoints(row: Any) -> Endpoints:
    return Endpoints(
        row.issuer,
        row.authorization_endpoint,
        row.token_endpoint,
        row.revocation_endpoint,
        row.token_endpoint_auth_method,
        row.iss_required,
    )


def _config(row: Any) -> ProviderConfig:
    return ProviderConfig(
        row.workspace_id,
        row.id,
        row.provider,
        row.display_name,
        row.client_id,
        tuple(row.scopes),
        tuple(row.redirect_uris),
        _endpoints(row),
        bytes(row.hosts_digest),
        row.created_at,
    )


def _connection(row: Any) -> Connection:
    return Connection(
        row.workspace_id,
        row.id,
        State(row.state),
        row.state_reason,
        row.state_at,
        Kind(row.kind),
        row.provider,
        row.provider_config_id,
        row.end_user_id,
        tuple(row.scopes),
        row.expires_at,
        row.refreshable,
        bytes(row.hosts_digest),
        row.refreshed_at,
        row.created_at,
    )
