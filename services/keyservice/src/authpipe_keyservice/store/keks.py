"""KEK versions, their canaries and who has opened them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_keyservice.domain.kek_versions import KekVersion, KeyVersionState
from authpipe_keyservice.store.replicas import LIVE
from authpipe_sensitive import AuditEntry

_COLUMNS = """version, state, canary, extract(epoch from created_at)::float8 as created,
    coalesce(extract(epoch from primary_at), 0)::float8 as primary_since,
    coalesce(extract(epoch from disabled_at), 0)::float8 as disabled, held, first_destroyer,
    coalesce(extract(epoch from destruction_asked_at), 0)::float8 as destruction_asked, erased"""
_DRAINED = "not exists (select from deks where deks.kek_version = :version)"


class KekTable:
    """KEK versions in PostgreSQL.

    Args:
        database: keyservice's own database.
        outbox: Where events go, in the same transaction.
    """

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def versions(self) -> list[KekVersion]:
        """Gives all versions, oldest first."""
        async with self._database.statement() as connection:
            rows = (await connection.execute(sa.text(f"select {_COLUMNS} from kek_versions order by version"))).all()
        return [_version(row) for row in rows]

    async def add(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Adds a prepared version; False: one is prepared already, or the number is taken."""
        added = (
            "insert into kek_versions (version, state, created_at) values (:version, 'prepared', to_timestamp(:now))"
            " on conflict do nothing"
        )
        return await self._change(added, (entry,), version=version, now=now)

    async def make(self, version: int, make: Callable[[], Awaitable[bytes]]) -> None:
        """Makes a version's key and canary, unless another replica has; one replica at a time."""
        async with self._database.transaction() as connection:
            locked = sa.text("select canary from kek_versions where version = :version for update")
            if await connection.scalar(locked.bindparams(version=version)) != b"":
                return
            stored = sa.text("update kek_versions set canary = :canary where version = :version")
            await connection.execute(stored.bindparams(version=version, canary=await make()))

    async def prove(self, version: int, replica: str) -> None:
        """Notes that a replica has opened a version's canary."""
        async with self._database.statement() as connection:
            proved = sa.text("insert into kek_proofs values (:version, :replica) on conflict do nothing")
            await connection.execute(proved.bindparams(version=version, replica=replica))

    async def unproven(self, version: int) -> list[str]:
        """Gives the live replicas that have not opened a version's canary."""
        async with self._database.statement() as connection:
            found = await connection.scalars(
                sa.text(
                    f"select replica_id from replicas r where {LIVE} and not exists (select from kek_proofs p"
                    " where p.version = :version and p.replica_id = r.replica_id) order by replica_id"
                ).bindparams(version=version)
            )
            return [str(each) for each in found]

    async def promote(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Makes a prepared version primary and the primary one active; False: it is not prepared any more."""
        async with self._database.transaction() as connection:
            # All versions, in one order: two replicas that promote do so one after the other.
            states = sa.text("select version, state from kek_versions order by version for update")
            found = {int(row.version): row.state for row in await connection.execute(states)}
            if found.get(version) != "prepared":
                return False
            await connection.execute(sa.text("update kek_versions set state = 'active' where state = 'primary'"))
            promoted = (
                "update kek_versions set state = 'primary', primary_at = to_timestamp(:now) where version = :version"
            )
            await connection.execute(sa.text(promoted).bindparams(version=version, now=now))
            await self._outbox.append(connection, entry)
        return True

    async def disable(self, version: int, now: float, entry: AuditEntry) -> bool:
        """Disables an active version; False: it is not active, or a DEK is on it."""
        async with self._database.transaction() as connection:
            # Locked first: whoever wraps with this version holds a share of the lock, and is seen by what comes next.
            locked = sa.text("select state from kek_versions where version = :version for update")
            if await connection.scalar(locked.bindparams(version=version)) != "active":
                return False
            disabled = sa.text(
                "update kek_versions set state = 'disabled', disabled_at = to_timestamp(:now), held = false"
                f" where version = :version and {_DRAINED}"
            )
            if (await connection.execute(disabled.bindparams(version=version, now=now))).rowcount != 1:
                return False
            await self._outbox.append(connection, entry)
        return True

    async def enable(self, version: int, entry: AuditEntry) -> bool:
        """Makes a disabled version active, to stay so; False: it is not disabled."""
        enabled = (
            "update kek_versions set state = 'active', held = true, first_destroyer = '', destruction_asked_at = null"
            " where version = :version and state = 'disabled'"
        )
        return await self._change(enabled, (entry,), version=version)

    async def ask_destruction(self, version: int, operator: str, now: float, entry: AuditEntry) -> None:
        """Notes the first of two requests."""
        asked = (
            "update kek_versions set first_destroyer = :operator, destruction_asked_at = to_timestamp(:now)"
            " where version = :version and state in ('disabled', 'prepared')"
        )
        await self._change(asked, (entry,), version=version, operator=operator, now=now)

    async def destroy(self, version: KekVersion, entries: Sequence[AuditEntry]) -> bool:
        """Marks a version destroyed and overwrites its canary; False: it was moved or asked for anew meanwhile."""
        destroyed = (
            "update kek_versions set state = 'destroyed', canary = ''::bytea where version = :version"
            f" and state = :state and first_destroyer = :first and {_DRAINED}"
        )
        return await self._change(
            destroyed, entries, version=version.version, state=version.state.value, first=version.first_destroyer
        )

    async def note_erased(self, version: int) -> None:
        """Notes that a destroyed version has left the token."""
        await self._change("update kek_versions set erased = true where version = :version", (), version=version)

    async def counts(self) -> dict[int, int]:
        """Gives how many DEKs are on each version."""
        async with self._database.statement() as connection:
            counted = sa.text(
                "select kek_version, count(*) as deks from deks where kek_version > 0 group by kek_version"
            )
            return {int(row.kek_version): int(row.deks) for row in await connection.execute(counted)}

    async def is_drained(self, version: int) -> bool:
        """Says whether no DEK is on a version."""
        async with self._database.statement() as connection:
            return bool(await connection.scalar(sa.text(f"select {_DRAINED}").bindparams(version=version)))

    async def _change(self, statement: str, entries: Sequence[AuditEntry], **values: Any) -> bool:
        async with self._database.transaction() as connection:
            if (await connection.execute(sa.text(statement).bindparams(**values))).rowcount != 1:
                return False
            if entries:
                await self._outbox.append(connection, *entries)
        return True


def _version(row: Any) -> KekVersion:
    return KekVersion(
        version=int(row.version),
        state=KeyVersionState(row.state),
        canary=bytes(row.canary),
        created=row.created,
        primary_since=row.primary_since,
        disabled=row.disabled,
        held=row.held,
        first_destroyer=row.first_destroyer,
        destruction_asked=row.destruction_asked,
        erased=row.erased,
    )
