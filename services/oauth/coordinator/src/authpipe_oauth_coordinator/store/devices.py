"""SQL for device flows; each change in one transaction with its event."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.words import Connection, DeviceFlow
from authpipe_oauth_coordinator.store.rows import ADD_CONNECTION, connection_values
from authpipe_sensitive import AuditEntry

_DEVICE = "workspace_id, connection_id, provider_config_id, expires_at, interval_seconds, status"


class DeviceTable:
    """Device flows in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def add_device(self, flow: DeviceFlow, draft: Connection, entry: AuditEntry) -> None:
        """Stores a flow and the draft of its connection. It is not asked about before its Provider has given a code."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    f"insert into device_flows ({_DEVICE}, next_at) values (:workspace, :connection, :config, :expires,"  # fixed columns
                    " :interval, :status, :expires)"
                ),
                _values(flow),
            )
            await connection.execute(sa.text(ADD_CONNECTION), connection_values(draft))
            await self._outbox.append(connection, entry)

    async def get_device(self, workspace: str, connection_id: str) -> DeviceFlow | None:
        """Gives a flow."""
        async with self._database.transaction() as connection:
            found = await connection.execute(
                sa.text(
                    f"select {_DEVICE} from device_flows where workspace_id = :workspace"  # fixed columns
                    " and connection_id = :connection"
                ),
                {"workspace": workspace, "connection": connection_id},
            )
            row = found.one_or_none()
        return _read(row) if row else None

    async def claim_devices(self, most: int) -> list[DeviceFlow]:
        """Takes up flows that may be asked about now; they may not again before their interval is over."""
        async with self._database.statement() as connection:
            rows = await connection.execute(
                sa.text(
                    "with due as (select workspace_id, connection_id from device_flows where status = 'pending'"
                    " and next_at <= now() order by next_at limit :most for update skip locked)"
                    " update device_flows d set next_at = now() + make_interval(secs => d.interval_seconds) from due"
                    " where d.workspace_id = due.workspace_id and d.connection_id = due.connection_id returning "
                    + ", ".join(f"d.{each.strip()}" for each in _DEVICE.split(","))
                ),
                {"most": most},
            )
            return [_read(row) for row in rows]

    async def note_device(self, flow: DeviceFlow) -> None:
        """Stores how far a flow is, and its interval; what became of its connection has an event of its own."""
        async with self._database.transaction() as connection:
            await connection.execute(
                sa.text(
                    "update device_flows set expires_at = :expires, interval_seconds = :interval, status = :status,"
                    " next_at = now() + make_interval(secs => :interval)"
                    " where workspace_id = :workspace and connection_id = :connection"
                ),
                _values(flow),
            )


def _values(flow: DeviceFlow) -> dict[str, Any]:
    return {
        "workspace": flow.workspace,
        "connection": flow.connection_id,
        "config": flow.provider_config_id,
        "expires": flow.expires_at,
        "interval": flow.interval_seconds,
        "status": flow.status,
    }


def _read(row: Any) -> DeviceFlow:
    return DeviceFlow(
        row.workspace_id,
        row.connection_id,
        row.provider_config_id,
        row.expires_at,
        row.interval_seconds,
        row.status,
    )
