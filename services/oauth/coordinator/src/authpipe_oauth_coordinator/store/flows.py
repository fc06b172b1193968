"""SQL for connect sessions and flows; each change in one transaction with its event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import Flow, Session
from authpipe_oauth_coordinator.store.rows import ENDPOINTS, endpoint_values, read_endpoints, read_pairs, write_pairs
from authpipe_sensitive import AuditEntry

_FLOW = (
    "workspace_id, connection_id, provider_config_id, end_user_id, binding_hash, redirect_uri, expires_at, values, subject, "
    + ENDPOINTS
)

_OVER = "not swept and expires_at < now() - interval '15 minutes'"
_CONNECTED = (
    "exists (select from connections c where c.workspace_id = flows.workspace_id and c.id = flows.connection_id)"
)


class FlowTable:
    """Connect sessions and flows in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add_session(self, session_hash: bytes, session: Session, entry: AuditEntry) -> None:
        """Stores a connect session."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into connect_sessions (workspace_id, session_hash, end_user_id, provider_config_ids,"
                    " expires_at, values, connection_id) values (:workspace, :hash, :end_user, :configs, :expires,"
                    " cast(:values as jsonb), :connection)"
                ),
                {
                    "workspace": session.workspace,
                    "hash": session_hash,
                    "end_user": session.end_user_id,
                    "configs": list(session.provider_config_ids),
                    "expires": session.expires_at,
                    "values": write_pairs(session.values),
                    "connection": session.connection_id,
                },
            )
            await self._outbox.append(connection, entry)

    async def get_session(self, session_hash: bytes) -> Session | None:
        """Gives a connect session."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "select workspace_id, end_user_id, provider_config_ids, expires_at, values, connection_id"
                        " from connect_sessions"
                        " where session_hash = :hash"
                    ),
                    {"hash": session_hash},
                )
            ).one_or_none()
        if row is None:
            return None
        configs, values = tuple(row.provider_config_ids), read_pairs(row.values)
        return Session(row.workspace_id, row.end_user_id, configs, row.expires_at, values, row.connection_id)

    async def add_flow(self, state_hash: bytes, flow: Flow, entry: AuditEntry) -> None:
        """Stores a flow."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "insert into flows (workspace_id, state_hash, connection_id, provider_config_id, end_user_id,"  # fixed columns
                    f" binding_hash, redirect_uri, expires_at, values, subject, {ENDPOINTS}) values (:workspace, :hash, :connection,"
                    " :config, :end_user, :binding, :redirect_uri, :expires, cast(:values as jsonb), :subject, :issuer, :authorization, :token,"
                    " :revocation, :method, :iss_required, cast(:further as jsonb))"
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
                    "values": write_pairs(flow.values),
                    "subject": flow.subject,
                    **endpoint_values(flow.endpoints),
                },
            )
            await self._outbox.append(connection, entry)

    async def use_flow(self, state_hash: bytes, entry: Callable[[Flow], AuditEntry]) -> Flow | None:
        """Uses a state up and gives its flow. One statement: of two callbacks at once, one finds it unused."""
        async with self._database.transaction() as connection:
            row = (
                await connection.execute(
                    sa.text(
                        "update flows set used_at = now() where state_hash = :hash and used_at is null"
                        f" returning {_FLOW}"
                    ),
                    {"hash": state_hash},
                )
            ).one_or_none()
            if row is None:
                return None
            flow = _read_flow(row)
            await self._outbox.append(connection, entry(flow))
        return flow

    async def abandoned_flows(self) -> list[Flow]:
        """Gives flows that ended a quarter of an hour ago and led to no connection."""
        async with self._database.transaction() as connection:
            # Those that did are done; there is nothing to erase, and no event: what became of them has its own.
            await connection.execute(sa.text(f"update flows set swept = true where {_OVER} and {_CONNECTED}"))
            rows = await connection.execute(
                sa.text(f"select {_FLOW} from flows where {_OVER} and not {_CONNECTED} order by expires_at limit 50")
            )
            return [_read_flow(row) for row in rows]

    async def end_flow(self, flow: Flow, entry: AuditEntry) -> None:
        """Remembers that nothing is left of a flow; its state is used up."""
        async with self._database.transaction() as connection:
            result = await connection.execute(
                sa.text(
                    "update flows set swept = true, used_at = coalesce(used_at, now())"
                    " where workspace_id = :workspace and connection_id = :connection and not swept"
                ),
                {"workspace": flow.workspace, "connection": flow.connection_id},
            )
            if result.rowcount:
                await self._outbox.append(connection, entry)


def _read_flow(row: Any) -> Flow:
    return Flow(
        row.workspace_id,
        row.connection_id,
        row.provider_config_id,
        row.end_user_id,
        bytes(row.binding_hash),
        row.redirect_uri,
        read_endpoints(row),
        row.expires_at,
        read_pairs(row.values),
        row.subject,
    )
