"""SQL for members, their sessions, and challenges that were used."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from authpipe_database import Database, Outbox
from authpipe_gateway_authority.domain.api_keys import WorkspaceRow
from authpipe_gateway_authority.domain.challenges import Spent
from authpipe_gateway_authority.domain.members import Change, MemberRow, SessionRow
from authpipe_gateway_authority.errors import ForgedRowError, SignInError, WorkspaceNotFoundError
from authpipe_gateway_authority.store.epochs import (
    MEMBER,
    SESSION,
    WORKSPACE,
    Epochs,
    put_member,
    to_member,
    to_session,
    to_workspace,
)
from authpipe_sensitive import AuditEntry, Secret

# A fixed list of columns in each.
_INVITED = f"select {MEMBER}, {WORKSPACE} from members m join workspaces w using (workspace_id) where m.invitation_hash = %s".encode()
_PASSKEY = f"select {MEMBER}, {WORKSPACE} from members m join workspaces w using (workspace_id) where m.credential_id = %s".encode()
# One statement, and so one moment: a workspace and its members are of one epoch.
_LIST = f"select {WORKSPACE}, {MEMBER} from workspaces w left join members m using (workspace_id) where workspace_id = %s".encode()
_SESSION = f"select {SESSION} from dashboard_sessions s where token_hash = :hash"
_CLOCKS_DIFFER_SECONDS = 60


class MemberStore:
    """authority's tables of members in PostgreSQL.

    Args:
        database: authority's own database.
        outbox: Where events go, in the same transaction.
        mac_key: The key of the rows' MAC.
    """

    def __init__(self, database: Database, outbox: Outbox, mac_key: Secret) -> None:
        self._database = database
        self._outbox = outbox
        self._mac_key = mac_key
        self._epochs = Epochs(mac_key)

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""
        async with self._database.hot() as connection:
            await self._outbox.append_hot(connection, entries)

    async def members(self, workspace: str) -> tuple[str, list[MemberRow]]:
        """Gives a workspace's name and members, those that are ours.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.hot() as connection:
            rows = await (await connection.execute(_LIST, (workspace,))).fetchall()
        if not rows:
            raise WorkspaceNotFoundError
        found = to_workspace(rows[0][:5])
        if not found.is_genuine(self._mac_key):
            raise ForgedRowError
        members = [to_member(row[5:]) for row in rows if row[6] is not None]
        return found.display_name, [each for each in members if self._epochs.is_ours(each, found)]

    async def change_member(
        self, workspace: str, decide: Callable[[Sequence[MemberRow]], Change], entry: AuditEntry
    ) -> None:
        """Changes a member in one transaction with the event, of the members as they are then.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            found = await self._epochs.lock(connection, workspace)
            change = decide(await self._epochs.members(connection, found))
            if change.takes_away:
                keys = await self._epochs.keys(connection, workspace)
                await self._epochs.next(connection, found, keys, changed=change.member)
            else:
                await put_member(connection, change.member.sealed(self._mac_key, found.epoch))
            await self._outbox.append(connection, entry)

    async def invited(self, invitation_hash: bytes) -> tuple[MemberRow, WorkspaceRow] | None:
        """Gives who was invited so."""
        return await self._one(_INVITED, invitation_hash)

    async def of_passkey(self, credential_id: bytes) -> tuple[MemberRow, WorkspaceRow] | None:
        """Gives whose passkey it is."""
        return await self._one(_PASSKEY, credential_id)

    async def open_session(
        self,
        spent: Spent,
        member: MemberRow,
        decide: Callable[[MemberRow], MemberRow],
        session: SessionRow,
        entries: Sequence[AuditEntry],
    ) -> None:
        """Uses a challenge up, changes a member and makes a session, in one transaction with the events.

        Raises:
            SignInError: The challenge was used already, or the member has changed.
            ForgedRowError: A row is not ours.
        """
        # Another process's clock may be behind: what it still takes for good is still remembered.
        now = int(time.time()) - _CLOCKS_DIFFER_SECONDS
        async with self._database.transaction() as connection:
            found = await self._epochs.lock(connection, member.workspace)
            for table, column in (("spent_challenges", "until"), ("dashboard_sessions", "expires_at")):
                await connection.execute(sa.text(f"delete from {table} where {column} < :now"), {"now": now})  # fixed
            used = await connection.execute(
                sa.text(
                    "insert into spent_challenges (nonce, until) values (:nonce, :until)"
                    " on conflict do nothing returning nonce"
                ),
                {"nonce": spent.nonce, "until": spent.until},
            )
            if used.one_or_none() is None:
                raise SignInError("CHALLENGE_USED")
            members = await self._epochs.members(connection, found)
            current = next((each for each in members if each.member_id == member.member_id), None)
            if current is None:
                raise ForgedRowError
            member, epoch = decide(current), found.epoch
            if current.invitation_hash and not member.invitation_hash:
                # The invitation was used up: the row that had it does not fit any more.
                keys = await self._epochs.keys(connection, found.workspace)
                epoch = await self._epochs.next(connection, found, keys, changed=member)
            else:
                await put_member(connection, member.sealed(self._mac_key, epoch))
            row = session.sealed(self._mac_key, epoch)
            await connection.execute(
                sa.text(
                    "insert into dashboard_sessions (workspace_id, session_id, member_id, token_hash, expires_at, epoch, mac)"
                    " values (:workspace, :id, :member, :hash, :ends, :epoch, :mac)"
                ),
                {
                    "workspace": row.workspace,
                    "id": row.session_id,
                    "member": row.member_id,
                    "hash": row.token_hash,
                    "ends": row.expires_at,
                    "epoch": row.epoch,
                    "mac": row.mac,
                },
            )
            await self._outbox.append(connection, *entries)

    async def end_session(self, token_hash: bytes, make: Callable[[SessionRow], AuditEntry]) -> bool:
        """Ends a session with the event; False: there is none.

        Raises:
            ForgedRowError: The workspace's row is not ours.
        """
        async with self._database.transaction() as connection:
            session = await self._session(connection, token_hash)
            if session is None:
                return False
            # The workspace is locked first, as everywhere; what was read before is read again under that lock.
            found = await self._epochs.lock(connection, session.workspace)
            session = await self._session(connection, token_hash)
            if session is None or not self._epochs.is_ours(session, found):
                return False
            # Deleting it would not do: whoever writes to the database would put it back.
            keys = await self._epochs.keys(connection, found.workspace)
            await self._epochs.next(connection, found, keys, ended=token_hash)
            await self._outbox.append(connection, make(session))
        return True

    async def _session(self, connection: Any, token_hash: bytes) -> SessionRow | None:
        """Gives a session; one that we did not write is none, and left for whoever looks into it."""
        row = (await connection.execute(sa.text(_SESSION), {"hash": token_hash})).one_or_none()
        session = to_session(row) if row is not None else None
        return session if session is not None and session.is_genuine(self._mac_key) else None

    async def _one(self, query: bytes, value: bytes) -> tuple[MemberRow, WorkspaceRow] | None:
        async with self._database.hot() as connection:
            row = await (await connection.execute(query, (value,))).fetchone()
        return (to_member(row[:12]), to_workspace(row[12:])) if row is not None else None
