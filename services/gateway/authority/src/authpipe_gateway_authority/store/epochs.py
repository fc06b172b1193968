"""A workspace's epoch: it rises with whatever takes access away, and every row that still gives access moves with it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from authpipe_gateway_authority.domain.api_keys import ApiKeyRow, WorkspaceRow
from authpipe_gateway_authority.domain.members import MemberRow, SessionRow
from authpipe_gateway_authority.errors import ForgedRowError, WorkspaceNotFoundError
from authpipe_sensitive import Secret

KEY = "k.workspace_id, k.api_key_id, k.display_name, k.key_hash, k.scopes, k.state, k.epoch, k.mac"
WORKSPACE = "w.workspace_id, w.display_name, w.epoch, w.is_frozen, w.mac"
MEMBER = (
    "m.workspace_id, m.member_id, m.email, m.role, m.state, m.invitation_hash, m.invited_until, m.credential_id,"
    " m.credential, m.sign_count, m.epoch, m.mac"
)
SESSION = "s.workspace_id, s.session_id, s.member_id, s.token_hash, s.expires_at, s.epoch, s.mac"
# A fixed list of columns in each.
_KEYS = f"select {KEY} from api_keys k where workspace_id = :workspace for update"
_MEMBERS = f"select {MEMBER} from members m where workspace_id = :workspace for update"
_SESSIONS = f"select {SESSION} from dashboard_sessions s where workspace_id = :workspace for update"
_LOCK = f"select {WORKSPACE} from workspaces w where workspace_id = :workspace for update"
_MOVE_KEYS = """
update api_keys k set state = n.state, epoch = :epoch, mac = n.mac
from unnest(cast(:column_0 as text[]), cast(:column_1 as text[]), cast(:column_2 as bytea[])) as n(api_key_id, state, mac)
where k.workspace_id = :workspace and k.api_key_id = n.api_key_id
"""
_MOVE_MEMBERS = """
update members m set epoch = :epoch, mac = n.mac
from unnest(cast(:column_0 as text[]), cast(:column_1 as bytea[])) as n(member_id, mac)
where m.workspace_id = :workspace and m.member_id = n.member_id
"""
_MOVE_SESSIONS = """
update dashboard_sessions s set epoch = :epoch, mac = n.mac
from unnest(cast(:column_0 as bytea[]), cast(:column_1 as bytea[])) as n(token_hash, mac)
where s.workspace_id = :workspace and s.token_hash = n.token_hash
"""


class Epochs:
    """Locks workspaces, and moves them to their next epoch.

    Args:
        mac_key: The key of the rows' MAC.
    """

    def __init__(self, mac_key: Secret) -> None:
        self._mac_key = mac_key

    async def lock(self, connection: Any, workspace: str) -> WorkspaceRow:
        """Gives a workspace, which nobody else changes until the transaction ends.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
            ForgedRowError: Its row is not ours.
        """
        row = (await connection.execute(sa.text(_LOCK), {"workspace": workspace})).one_or_none()
        if row is None:
            raise WorkspaceNotFoundError
        found = to_workspace(row)
        if not found.is_genuine(self._mac_key):
            raise ForgedRowError
        return found

    async def keys(self, connection: Any, workspace: str) -> list[ApiKeyRow]:
        """Gives a workspace's API keys, as they stand there."""
        return [to_key(row) for row in (await connection.execute(sa.text(_KEYS), {"workspace": workspace})).all()]

    async def members(self, connection: Any, workspace: WorkspaceRow) -> list[MemberRow]:
        """Gives a workspace's members, those that are ours."""
        rows = await connection.execute(sa.text(_MEMBERS), {"workspace": workspace.workspace})
        return [found for row in rows.all() if self.is_ours(found := to_member(row), workspace)]

    def is_ours(self, row: ApiKeyRow | MemberRow | SessionRow, workspace: WorkspaceRow) -> bool:
        """Says whether a row was written by us, in its workspace's epoch."""
        return row.is_genuine(self._mac_key) and row.epoch == workspace.epoch

    async def next(
        self,
        connection: Any,
        workspace: WorkspaceRow,
        keys: Sequence[ApiKeyRow],
        revoked: Container[str] = (),
        changed: MemberRow | None = None,
        ended: bytes = b"",
    ) -> int:
        """Moves a workspace to its next epoch, with all rows that are ours: a row from before does not fit any more.

        Gives that epoch.

        Args:
            connection: The transaction.
            workspace: The workspace, locked, as it is to be.
            keys: Its API keys.
            revoked: The ids of those that are revoked.
            changed: A member as it is to be, whose sessions end.
            ended: The keyed hash of the token of a session that ends; empty: none.
        """
        epoch = workspace.epoch + 1
        # A forged row is never blessed with a new MAC.
        of_keys = [
            replace(key, state="revoked" if key.api_key_id in revoked else key.state, epoch=epoch).sealed(self._mac_key)
            for key in keys
            if self.is_ours(key, workspace)
        ]
        await _move(connection, _MOVE_KEYS, workspace, epoch, [(row.api_key_id, row.state, row.mac) for row in of_keys])
        of_members = [
            member.sealed(self._mac_key, epoch)
            for member in await self.members(connection, workspace)
            if changed is None or changed.member_id != member.member_id
        ]
        await _move(connection, _MOVE_MEMBERS, workspace, epoch, [(row.member_id, row.mac) for row in of_members])
        if changed is not None:
            await put_member(connection, changed.sealed(self._mac_key, epoch))
        stay, end = await self._sessions(connection, workspace, changed, ended)
        of_sessions = [row.sealed(self._mac_key, epoch) for row in stay]
        await _move(connection, _MOVE_SESSIONS, workspace, epoch, [(row.token_hash, row.mac) for row in of_sessions])
        await connection.execute(
            sa.text("delete from dashboard_sessions where token_hash = any(cast(:hashes as bytea[]))"),
            {"hashes": [row.token_hash for row in end]},
        )
        moved = replace(workspace, epoch=epoch).sealed(self._mac_key)
        await connection.execute(
            sa.text(
                "update workspaces set epoch = :epoch, is_frozen = :frozen, mac = :mac where workspace_id = :workspace"
            ),
            {"epoch": epoch, "frozen": moved.is_frozen, "mac": moved.mac, "workspace": moved.workspace},
        )
        return epoch

    async def _sessions(
        self, connection: Any, workspace: WorkspaceRow, changed: MemberRow | None, ended: bytes
    ) -> tuple[list[SessionRow], list[SessionRow]]:
        """Gives the sessions that are ours: those that stay, and those that end."""
        rows = await connection.execute(sa.text(_SESSIONS), {"workspace": workspace.workspace})
        stay: list[SessionRow] = []
        end: list[SessionRow] = []
        for session in map(to_session, rows.all()):
            if self.is_ours(session, workspace):
                ends = session.token_hash == ended or (changed and changed.member_id == session.member_id)
                (end if ends else stay).append(session)
        return stay, end


async def _move(
    connection: Any, statement: str, workspace: WorkspaceRow, epoch: int, rows: Sequence[tuple[Any, ...]]
) -> None:
    """Writes rows in their new epoch, all in one statement: a workspace may have thousands."""
    if rows:
        values = {f"column_{number}": list(column) for number, column in enumerate(zip(*rows, strict=True))}
        await connection.execute(sa.text(statement), {"workspace": workspace.workspace, "epoch": epoch, **values})


async def put_member(connection: Any, row: MemberRow) -> None:
    """Writes a member, new or changed."""
    await connection.execute(
        sa.text(
            "insert into members (workspace_id, member_id, email, role, state, invitation_hash, invited_until,"
            " credential_id, credential, sign_count, epoch, mac)"
            " values (:workspace, :id, :email, :role, :state, :invitation, :until, :credential_id, :credential, :count,"
            " :epoch, :mac) on conflict (workspace_id, member_id) do update set email = excluded.email, role = excluded.role,"
            " state = excluded.state, invitation_hash = excluded.invitation_hash,"
            " credential_id = excluded.credential_id, credential = excluded.credential,"
            " sign_count = excluded.sign_count, epoch = excluded.epoch, mac = excluded.mac"
        ),
        {
            "workspace": row.workspace,
            "id": row.member_id,
            "email": row.email,
            "role": row.role,
            "state": row.state,
            "invitation": row.invitation_hash or None,
            "until": row.invited_until,
            "credential_id": row.credential_id or None,
            "credential": row.credential,
            "count": row.sign_count,
            "epoch": row.epoch,
            "mac": row.mac,
        },
    )


def to_key(row: Sequence[Any]) -> ApiKeyRow:
    """Reads the columns KEY."""
    return ApiKeyRow(row[0], row[1], row[2], bytes(row[3]), tuple(row[4]), row[5], row[6], bytes(row[7]))


def to_workspace(row: Sequence[Any]) -> WorkspaceRow:
    """Reads the columns WORKSPACE."""
    return WorkspaceRow(row[0], row[1], row[2], row[3], bytes(row[4]))


def to_member(row: Sequence[Any]) -> MemberRow:
    """Reads the columns MEMBER."""
    return MemberRow(
        workspace=row[0],
        member_id=row[1],
        email=row[2],
        role=row[3],
        state=row[4],
        invitation_hash=bytes(row[5] or b""),
        invited_until=row[6],
        credential_id=bytes(row[7] or b""),
        credential=bytes(row[8]),
        sign_count=row[9],
        epoch=row[10],
        mac=bytes(row[11]),
    )


def to_session(row: Sequence[Any]) -> SessionRow:
    """Reads the columns SESSION."""
    return SessionRow(row[0], row[1], row[2], bytes(row[3]), row[4], row[5], bytes(row[6]))
