"""Who is a member, and in which role: every change by a member's own rank or an operator, with its event."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_gateway_authority.domain.acting import Acting, Actors, Asked, on_record
from authpipe_gateway_authority.domain.authorizing import Budget
from authpipe_gateway_authority.domain.members import ROLES, Change, MemberRow, given_role, invited, removed
from authpipe_gateway_authority.errors import ForgedRowError, LastOwnerError, MalformedError, RoleError
from authpipe_sensitive import AuditEntry, DomainError

_INVITATION_SECONDS = 3 * 86_400
_ADDRESS = re.compile(r"[^\s@,;:<>\"()\\]{1,64}@[A-Za-z0-9.-]{1,253}")


class Store(Protocol):
    """authority's own tables."""

    async def members(self, workspace: str) -> tuple[str, list[MemberRow]]:
        """Gives a workspace's name and members, those that are ours.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
        """

    async def change_member(
        self, workspace: str, decide: Callable[[Sequence[MemberRow]], Change], entry: AuditEntry
    ) -> None:
        """Changes a member in one transaction with the event, of the members as they are then.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
        """

    async def note(self, entries: Sequence[AuditEntry]) -> None:
        """Makes events durable."""


class Listed(NamedTuple):
    """The members of a workspace.

    Args:
        workspace: Its name.
        members: Who is not removed, by address.
        own: Who asks; empty: no member.
    """

    workspace: str
    members: Sequence[MemberRow]
    own: str


class Membership:
    """The rules over members.

    Args:
        store: authority's own tables.
        actors: Tells who acts.
        refusals: Events about refusals; beyond it they are counted, not written.
        clock: Gives seconds.
        forget: Drops what is remembered of sessions.
    """

    def __init__(
        self,
        store: Store,
        actors: Actors,
        refusals: Budget,
        clock: Callable[[], float],
        forget: Callable[[], None],
    ) -> None:
        self._store = store
        self._actors = actors
        self._refusals = refusals
        self._clock = clock
        self._forget = forget

    async def invite(self, asked: Asked, member_id: str, email: str, role: str, invitation_hash: bytes) -> int:
        """Invites somebody; gives until when the invitation is good.

        Raises:
            DomainError: It was refused.
        """
        acting = self._actors.of(asked, "invite_member")
        if _ADDRESS.fullmatch(email) is None or role not in ROLES:
            raise MalformedError
        until = int(self._clock()) + _INVITATION_SECONDS
        new = MemberRow(acting.workspace, member_id, email, role, "invited", invitation_hash, until)
        await self._change(acting, "MEMBER_INVITED", member_id, lambda members: invited(members, acting.member_id, new))
        return until

    async def list_members(self, asked: Asked) -> Listed:
        """Lists members.

        Raises:
            DomainError: It was refused.
        """
        acting = self._actors.of(asked, "read_members")
        async with on_record(self._store.note, acting, acting.workspace):
            name, members = await self._store.members(acting.workspace)
        here = [each for each in members if each.state != "removed"]
        return Listed(name, sorted(here, key=lambda each: each.email), acting.member_id)

    async def owners(self, workspace: str) -> tuple[str, list[str]]:
        """Gives a workspace's name, and its owners' addresses.

        Raises:
            WorkspaceNotFoundError: There is no such workspace.
        """
        name, members = await self._store.members(workspace)
        return name, [each.email for each in members if each.role == "owner" and each.state == "active"]

    async def change_role(self, asked: Asked, member_id: str, role: str) -> None:
        """Gives a member another role.

        Raises:
            DomainError: It was refused.
        """
        acting = self._actors.of(asked, "change_member_role")
        if role not in ROLES:
            raise MalformedError
        await self._change(
            acting,
            "MEMBER_ROLE_CHANGED",
            member_id,
            lambda members: given_role(members, acting.member_id, member_id, role),
        )

    async def remove(self, asked: Asked, member_id: str) -> None:
        """Removes a member.

        Raises:
            DomainError: It was refused.
        """
        acting = self._actors.of(asked, "remove_member")
        await self._change(
            acting, "MEMBER_REMOVED", member_id, lambda members: removed(members, acting.member_id, member_id)
        )

    async def _change(
        self, acting: Acting, name: str, member_id: str, decide: Callable[[Sequence[MemberRow]], Change]
    ) -> None:
        try:
            await self._store.change_member(acting.workspace, decide, acting.entry(name, member_id))
        except (RoleError, LastOwnerError, ForgedRowError) as error:
            await self._note(acting, member_id, error)
            raise
        self._forget()

    async def _note(self, acting: Acting, member_id: str, error: DomainError) -> None:
        if isinstance(error, ForgedRowError) or await self._refusals.take(acting.workspace):
            await self._store.note([acting.refusal(member_id, error)])
