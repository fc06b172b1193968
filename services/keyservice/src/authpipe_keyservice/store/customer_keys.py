"""Bindings of customers' keys, and the DEKs on their way between them."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_keyservice.domain.bindings import MovedDek, MovingDek
from authpipe_keyservice.domain.customer_keys import Binding, BindingState
from authpipe_keyservice.store.replicas import order_to_forget
from authpipe_sensitive import AuditEntry

_COLUMNS = "workspace_id, key_id, provider, locator, state, withdrawn"
# A DEK has to move when it is not under the workspace's primary binding, or is under a customer's key and an older KEK
# version; those under none come to a new KEK version in batches, elsewhere.
_MOVING = """
deks d left join customer_keys p on p.workspace_id = d.workspace_id and p.state = 'primary'
where d.state in ('primary', 'active', 'disabled') and (coalesce(p.key_id, '') <> d.customer_key_id
    or (d.customer_key_id <> '' and d.kek_version < :primary_kek))
"""


class CustomerKeyTable:
    """Customers' keys in PostgreSQL.

    Args:
        database: keyservice's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def get(self, workspace: str, key_id: str) -> Binding | None:
        """Gives a binding."""
        return await self._one("key_id = :key_id", workspace=workspace, key_id=key_id)

    async def primary(self, workspace: str) -> Binding | None:
        """Gives the binding that wraps a workspace's DEKs; None: the HSM alone does."""
        return await self._one("state = 'primary'", workspace=workspace)

    async def listed(self, workspace: str) -> list[Binding]:
        """Gives all bindings of a workspace, oldest first."""
        async with self._database.transaction() as connection:
            found = f"select {_COLUMNS} from customer_keys where workspace_id = :workspace order by created_at"
            return [_binding(row) for row in await connection.execute(_text(found, workspace=workspace))]

    async def _one(self, which: str, **values: str) -> Binding | None:
        found = f"select {_COLUMNS} from customer_keys where workspace_id = :workspace and {which}"
        async with self._database.transaction() as connection:
            row = (await connection.execute(_text(found, **values))).one_or_none()
        return _binding(row) if row else None

    async def note_withdrawn(self, workspace: str, key_id: str, entry: AuditEntry, *, withdrawn: bool) -> None:
        """Notes that a key was withdrawn or given back, once, with its event."""
        noted = (
            "update customer_keys set withdrawn = :withdrawn where workspace_id = :workspace and key_id = :key_id"
            " and withdrawn <> :withdrawn"
        )
        async with self._database.transaction() as connection:
            changed = await connection.execute(_text(noted, workspace=workspace, key_id=key_id, withdrawn=withdrawn))
            if changed.rowcount:
                await self._outbox.append(connection, entry)
                if withdrawn:
                    # What one replica was told, all know: their leases end too.
                    await order_to_forget(connection, workspace, "")

    async def bind(self, binding: Binding, entry: AuditEntry) -> None:
        """Stores a binding as primary; the one before becomes active."""
        async with self._database.transaction() as connection:
            await _demote(connection, binding.workspace)
            added = (
                "insert into customer_keys (workspace_id, key_id, provider, locator, state)"
                " values (:workspace, :key_id, :provider, cast(:locator as jsonb), 'primary')"
            )
            await connection.execute(
                _text(
                    added,
                    workspace=binding.workspace,
                    key_id=binding.key_id,
                    provider=binding.provider,
                    locator=json.dumps(dict(binding.locator)),
                )
            )
            await self._outbox.append(connection, entry)

    async def unbind(self, workspace: str, entry: AuditEntry) -> bool:
        """Makes the primary binding active, with none after it; False: there is none."""
        async with self._database.transaction() as connection:
            if not await _demote(connection, workspace):
                return False
            await self._outbox.append(connection, entry)
        return True

    async def unsettled(self, primary_kek: int, limit: int) -> list[str]:
        """Gives workspaces with a DEK that has to come under a customer's key or from under one."""
        # From the few workspaces that have customers' keys, not from all DEKs.
        found = (
            "select distinct c.workspace_id from customer_keys c where c.state <> 'retired' and exists"
            f" (select from {_MOVING} and d.workspace_id = c.workspace_id) limit :limit"
        )
        async with self._database.statement() as connection:
            rows = await connection.scalars(_text(found, primary_kek=primary_kek, limit=limit))
            return [str(each) for each in rows]

    async def moving(self, workspace: str, primary_kek: int) -> list[MovingDek]:
        """Gives such DEKs of a workspace."""
        found = (
            f"select d.version, d.kek_version, d.customer_key_id, d.wrapped from {_MOVING}"
            " and d.workspace_id = :workspace order by d.version"
        )
        async with self._database.transaction() as connection:
            rows = await connection.execute(_text(found, workspace=workspace, primary_kek=primary_kek))
            return [MovingDek(row.version, row.kek_version, row.customer_key_id, bytes(row.wrapped)) for row in rows]

    async def move(self, workspace: str, dek: MovingDek, moved: MovedDek, entry: AuditEntry) -> bool:
        """Stores a DEK's new form where the old one stands and the binding is still primary; False: not so."""
        async with self._database.transaction() as connection:
            kek = (
                "select version from kek_versions where version = :version and state in ('primary', 'active') for share"
            )
            if await connection.scalar(_text(kek, version=moved.kek_version)) is None:
                return False
            bound = "select key_id from customer_keys where workspace_id = :workspace and state = 'primary' for share"
            if (await connection.scalar(_text(bound, workspace=workspace)) or "") != moved.customer_key_id:
                return False
            swapped = (
                "update deks set wrapped = :new, kek_version = :kek_version, customer_key_id = :key_id"
                " where workspace_id = :workspace and version = :version and wrapped = :old"
            )
            done = await connection.execute(
                _text(
                    swapped,
                    workspace=workspace,
                    version=dek.version,
                    old=dek.wrapped,
                    new=moved.wrapped,
                    kek_version=moved.kek_version,
                    key_id=moved.customer_key_id,
                )
            )
            if done.rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True

    async def retire(self, workspace: str, entry: AuditEntry) -> None:
        """Retires active bindings that no DEK is on, each with its event."""
        retired = (
            "update customer_keys c set state = 'retired' where workspace_id = :workspace and state = 'active'"
            " and not exists (select from deks d where d.workspace_id = c.workspace_id and d.customer_key_id = c.key_id)"
            " returning key_id"
        )
        async with self._database.transaction() as connection:
            gone = [str(each) for each in await connection.scalars(_text(retired, workspace=workspace))]
            if gone:
                await self._outbox.append(connection, *(entry._replace(target=key_id) for key_id in gone))

    async def order_to_forget(self, workspace: str, entry: AuditEntry) -> int:
        """Tells all replicas to forget a workspace's keys, with an event; gives the order's number."""
        async with self._database.transaction() as connection:
            await self._outbox.append(connection, entry)
            return await order_to_forget(connection, workspace, "")


async def _demote(connection: Any, workspace: str) -> bool:
    demoted = "update customer_keys set state = 'active' where workspace_id = :workspace and state = 'primary'"
    return bool((await connection.execute(_text(demoted, workspace=workspace))).rowcount)


def _binding(row: Any) -> Binding:
    return Binding(
        workspace=row.workspace_id,
        key_id=row.key_id,
        provider=row.provider,
        locator=dict(row.locator),
        state=BindingState(row.state),
        withdrawn=row.withdrawn,
    )


def _text(statement: str, **values: Any) -> sa.TextClause:
    return sa.text(statement).bindparams(**values)
