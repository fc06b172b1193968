"""SQL for rotations of tokens; beginning and ending each in one transaction with their events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_oauth_coordinator.domain.rotating import Counted, Item, Rotation, Target
from authpipe_oauth_coordinator.domain.words import Acting
from authpipe_sensitive import AuditEntry

_MANY = 5000
_WANTED = """
state in ('active', 'needs_reauth') and (:workspace = '' or workspace_id = :workspace)
and (:connection = '' or id = :connection) and (:config = '' or provider_config_id = :config)
"""
_REFRESHABLE = "state = 'active' and refreshable and kind = 'oauth2'"


class RotationTable:
    """Rotations in PostgreSQL.

    Args:
        database: coordinator's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def count(self, target: Target) -> Counted:
        """Says what a rotation would be of."""
        async with self._database.transaction() as connection:
            return await _count(connection, target)

    async def begin(
        self, rotation_id: str, target: Target, acting: Acting, entry: Callable[[str, int], AuditEntry]
    ) -> Rotation:
        """Writes down what is to be refreshed, with an event of each workspace, and of all of them one more."""
        async with self._database.transaction() as connection:
            counted = await _count(connection, target)
            total = sum(counted.workspaces.values())
            values = target._asdict() | {
                "id": rotation_id, "actor": acting.actor, "request_id": acting.request_id, "source": acting.source,
                "target": target.word, "irreplaceable": counted.irreplaceable, "total": total,
            }  # fmt: skip
            began_at = await connection.scalar(sa.text(_ADD), values)
            added = await connection.execute(sa.text(_ADD_ITEMS), values)
            # Between counting and writing down one may have come or gone: what is written down counts.
            await connection.execute(
                sa.text("update rotations set total = :total where id = :id"), values | {"total": added.rowcount}
            )
            entries = [entry(workspace, amount) for workspace, amount in counted.workspaces.items()]
            if not target.workspace or not entries:
                entries.append(entry(target.workspace, added.rowcount))
            await self._outbox.append(connection, *entries)
        return Rotation(rotation_id, target.workspace, added.rowcount, 0, 0, counted.irreplaceable, began_at, None)

    async def find(self, workspace: str | None, rotation_id: str) -> Rotation | None:
        """Says how far one is; None: there is none, or not of this workspace."""
        async with self._database.statement() as connection:
            found = await connection.execute(sa.text(_FIND), {"id": rotation_id, "workspace": workspace})
            row = found.one_or_none()
        return Rotation(*row) if row else None

    async def claim(self, most: int, per_provider: int, seconds: float) -> list[Item]:
        """Takes up what is to be refreshed; it is not taken up again for some seconds."""
        values = {"most": most, "per_provider": per_provider, "seconds": seconds, "many": _MANY}
        async with self._database.statement() as connection:
            rows = await connection.execute(sa.text(_CLAIM), values)
            return [Item(*row) for row in rows]

    async def settle(self, item: Item, outcome: str) -> None:
        """Says what came of one; what was said of it before stays."""
        async with self._database.statement() as connection:
            await connection.execute(sa.text(_SETTLE), _names(item) | {"outcome": outcome})

    async def postpone(self, item: Item, seconds: float, *, counts: bool) -> None:
        """Leaves one for later; whether this time counts as an attempt."""
        async with self._database.statement() as connection:
            values = _names(item) | {"seconds": seconds, "back": 0 if counts else 1}
            await connection.execute(sa.text(_POSTPONE), values)

    async def end_finished(self, entry: Callable[[Rotation, Acting, str], AuditEntry]) -> int:
        """Ends rotations of which nothing is left, each once, with its event; gives how many."""
        async with self._database.transaction() as connection:
            rows = (await connection.execute(sa.text(_END))).all()
            for row in rows:
                rotation, (actor, request_id, source, target) = Rotation(*row[:8]), row[8:]
                acting = Acting(rotation.workspace, actor, request_id, source)
                await connection.execute(
                    sa.text("delete from rotation_items where rotation_id = :id"), {"id": rotation.id}
                )
                await self._outbox.append(connection, entry(rotation, acting, target))
        return len(rows)


async def _count(connection: Any, target: Target) -> Counted:
    rows = (await connection.execute(sa.text(_COUNT), target._asdict())).all()
    return Counted({row[0]: row[1] for row in rows if row[1]}, sum(row[2] for row in rows))


def _names(item: Item) -> dict[str, str]:
    return {"rotation": item.rotation, "workspace": item.workspace, "connection": item.connection}


_COUNT = f"""
select workspace_id, count(*) filter (where {_REFRESHABLE}), count(*) filter (where not ({_REFRESHABLE}))
from connections where {_WANTED} group by workspace_id order by workspace_id
"""  # fixed conditions
_ADD = """
insert into rotations (id, workspace_id, actor, request_id, source, target, irreplaceable, total)
values (:id, :workspace, :actor, :request_id, :source, :target, :irreplaceable, :total) returning began_at
"""
_ADD_ITEMS = f"""
insert into rotation_items (rotation_id, workspace_id, connection_id, provider)
select :id, workspace_id, id, provider from connections where {_WANTED} and {_REFRESHABLE}
"""  # fixed conditions
_FIND = """
select r.id, r.workspace_id, r.total, r.rotated + coalesce(i.rotated, 0), r.failed + coalesce(i.failed, 0),
    r.irreplaceable, r.began_at, r.ended_at
from rotations r left join lateral (
    select count(*) filter (where outcome = 'rotated') as rotated, count(*) filter (where outcome = 'failed') as failed
    from rotation_items where rotation_id = r.id and outcome <> '') i on r.ended_at is null
where r.id = :id and (cast(:workspace as text) is null or r.workspace_id = :workspace)
"""
_CLAIM = """
with ranked as (
    select workspace_id, rotation_id, connection_id, row_number() over (partition by provider order by connection_id) as nth
    from (select * from rotation_items where outcome = '' and claimed_until < now() order by connection_id limit :many) o),
taken as materialized (
    select workspace_id, rotation_id, connection_id from rotation_items
    where (workspace_id, rotation_id, connection_id) in (
        select workspace_id, rotation_id, connection_id from ranked where nth <= :per_provider limit :most)
    and outcome = '' and claimed_until < now() for update skip locked)
update rotation_items i set claimed_until = now() + make_interval(secs => :seconds), attempts = attempts + 1
from taken join rotations r on r.id = taken.rotation_id
where i.workspace_id = taken.workspace_id and i.rotation_id = taken.rotation_id and i.connection_id = taken.connection_id
returning i.rotation_id, i.workspace_id, i.connection_id, r.actor, r.request_id, r.source, i.attempts, r.began_at
"""
_SETTLE = """
update rotation_items set outcome = :outcome
where workspace_id = :workspace and rotation_id = :rotation and connection_id = :connection and outcome = ''
"""
_POSTPONE = """
update rotation_items set claimed_until = now() + make_interval(secs => :seconds), attempts = attempts - :back
where workspace_id = :workspace and rotation_id = :rotation and connection_id = :connection
"""
_END = """
update rotations r set ended_at = now(),
    rotated = (select count(*) from rotation_items where rotation_id = r.id and outcome = 'rotated'),
    failed = (select count(*) from rotation_items where rotation_id = r.id and outcome = 'failed')
where r.ended_at is null and not exists (select from rotation_items where rotation_id = r.id and outcome = '')
returning r.id, r.workspace_id, r.total, r.rotated, r.failed, r.irreplaceable, r.began_at, r.ended_at,
    r.actor, r.request_id, r.source, r.target
"""
