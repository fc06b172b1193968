"""Rotating: every token of a connection, a provider configuration, a workspace, or all, once (promise P27).

What is to be refreshed is written down in one transaction with the event of the act. Then any number of replicas take it up,
piece by piece, each under a lease as every refresh; who dies leaves what it took to the others, after a while. It is done
when every connection was refreshed since it began, is disconnected, or could not be after some attempts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from authpipe_oauth_coordinator.domain.failures import Cure, meaning
from authpipe_oauth_coordinator.domain.refreshing import Refreshing
from authpipe_oauth_coordinator.domain.words import Acting, Connection, State, audit_entry
from authpipe_oauth_coordinator.errors import NotFoundError, RefreshFailedError
from authpipe_sensitive import AuditEntry, DomainError, Label, Status, get_log
from authpipe_sensitive.duties import note_nothing_done

_MOST_ATTEMPTS = 6
# keyservice opens a refresh token before it is due once in ten seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 11.0, 300.0
_ENDED = {State.DISCONNECTING, State.DISCONNECTED, State.KEPT}
ROTATED, FAILED = "rotated", "failed"


class Target(NamedTuple):
    """Whose tokens; with neither id all of the workspace, without a workspace all.

    Args:
        workspace: The tenant; empty: every one.
        connection: One connection.
        config: The connections of one provider configuration.
    """

    workspace: str
    connection: str = ""
    config: str = ""

    @property
    def word(self) -> str:
        """Gives what stands in the event."""
        return self.connection or self.config or self.workspace or "all"


class Rotation(NamedTuple):
    """How far it is.

    Args:
        id: Its id; empty: it was only counted.
        workspace: Whose; empty: of all.
        total: How many are to be refreshed.
        rotated: How many were, or are disconnected.
        failed: How many could not be.
        irreplaceable: How many connections have a credential that we cannot replace.
        began_at: When it began.
        ended_at: When it ended; None: it goes on.
    """

    id: str
    workspace: str
    total: int
    rotated: int
    failed: int
    irreplaceable: int
    began_at: datetime
    ended_at: datetime | None


class Item(NamedTuple):
    """One connection of a rotation, as it was taken up.

    Args:
        rotation: Of which rotation.
        workspace: Whose.
        connection: Which.
        actor: On whose behalf.
        request_id: The request it belongs to.
        source: Where the request came from.
        attempts: How often it was taken up, this time too.
        began_at: When the rotation began.
    """

    rotation: str
    workspace: str
    connection: str
    actor: str
    request_id: str
    source: str
    attempts: int
    began_at: datetime


class Counted(NamedTuple):
    """What a rotation would be of.

    Args:
        workspaces: How many tokens of each workspace that has any.
        irreplaceable: How many credentials we cannot replace.
    """

    workspaces: Mapping[str, int]
    irreplaceable: int


class Table(Protocol):
    """Rotations in coordinator's database."""

    async def count(self, target: Target) -> Counted:
        """Says what a rotation would be of."""

    async def begin(
        self, rotation_id: str, target: Target, acting: Acting, entry: Callable[[str, int], AuditEntry]
    ) -> Rotation:
        """Writes down what is to be refreshed, with an event of each workspace of which there is any, and one of the act.

        Args:
            rotation_id: Its new id.
            target: Whose tokens.
            acting: On whose behalf.
            entry: Makes an event of a workspace and the number of its tokens.
        """

    async def find(self, workspace: str | None, rotation_id: str) -> Rotation | None:
        """Says how far one is; None: there is none, or not of this workspace."""

    async def claim(self, most: int, per_provider: int, seconds: float) -> list[Item]:
        """Takes up what is to be refreshed; it is not taken up again for some seconds."""

    async def settle(self, item: Item, outcome: str) -> None:
        """Says what came of one."""

    async def postpone(self, item: Item, seconds: float, *, counts: bool) -> None:
        """Leaves one for later; whether this time counts as an attempt."""

    async def end_finished(self, entry: Callable[[Rotation, Acting, str], AuditEntry]) -> int:
        """Ends rotations of which nothing is left, each once, with its event; gives how many."""


class Connections(Protocol):
    """The table of connections."""

    async def get_connection(self, workspace: str, connection_id: str) -> Connection | None:
        """Gives a connection."""


class Rotating:
    """Rotates tokens.

    Args:
        table: Rotations.
        connections: The table of connections.
        refreshing: The rules over one refresh.
        new_id: Makes an id with a prefix.
        most: How many are under way at once.
        per_provider: How many of one Provider are taken up in a turn.
        claim_seconds: After what time somebody else takes up what this replica took up and did not end.
    """

    def __init__(
        self,
        table: Table,
        connections: Connections,
        refreshing: Refreshing,
        new_id: Callable[[str], str],
        *,
        most: int,
        per_provider: int,
        claim_seconds: float,
    ) -> None:
        self._table = table
        self._connections = connections
        self._refreshing = refreshing
        self._new_id = new_id
        self._most = most
        self._per_provider = per_provider
        self._claim_seconds = claim_seconds
        self._going: set[asyncio.Task[None]] = set()

    async def begin(self, acting: Acting, target: Target, now: datetime, *, dry_run: bool) -> Rotation:
        """Begins one, or only counts what it would be of.

        Raises:
            NotFoundError: There is nothing of this name in the workspace.
        """
        counted = await self._table.count(target)
        total = sum(counted.workspaces.values())
        if (target.connection or target.config) and not total + counted.irreplaceable:
            raise NotFoundError
        if dry_run:
            note_nothing_done()
            return Rotation("", target.workspace, total, 0, 0, counted.irreplaceable, now, now)

        def entry(workspace: str, amount: int) -> AuditEntry:
            made = audit_entry("ROTATION_BEGUN", acting, target.word)
            return made._replace(workspace_id=workspace, amount=amount)

        return await self._table.begin(self._new_id("rot"), target, acting, entry)

    async def get(self, workspace: str | None, rotation_id: str) -> Rotation:
        """Says how far one is.

        Raises:
            NotFoundError: There is none, or not of this workspace.
        """
        found = await self._table.find(workspace, rotation_id)
        if found is None:
            raise NotFoundError
        return found

    async def run(self) -> int:
        """Takes up what there is room for, and ends what is done; gives how much it took up."""
        claimed = []
        if (room := self._most - len(self._going)) > 0:
            claimed = await self._table.claim(room, self._per_provider, self._claim_seconds)
        for item in claimed:
            task = asyncio.create_task(self._rotate(item), name="rotation of a token")
            self._going.add(task)
            task.add_done_callback(self._going.discard)
        await self._table.end_finished(_ended)
        return len(claimed)

    async def finish(self) -> None:
        """Waits for what was taken up."""
        await asyncio.gather(*self._going)

    async def _rotate(self, item: Item) -> None:
        try:
            await self._try(item)
        except DomainError as error:
            # Our own database: somebody takes it up again.
            get_log().warning("a token was not rotated, it is tried again", error=error)

    async def _try(self, item: Item) -> None:
        found = await self._connections.get_connection(item.workspace, item.connection)
        if found is not None and found.state is State.ACTIVE and found.refreshed_at <= item.began_at:
            acting = Acting(item.workspace, item.actor, item.request_id, item.source)
            try:
                await self._refreshing.once(acting, found, forced=True)
            except DomainError as error:
                get_log().info("a token was not rotated yet", error=error)
                if _is_ours(error):
                    # However long a part of ours is away: it is not the Provider that has said no.
                    await self._table.postpone(item, _FIRST_PAUSE, counts=False)
                    return
            found = await self._connections.get_connection(item.workspace, item.connection)
        if found is None or found.state in _ENDED or found.refreshed_at > item.began_at:
            await self._table.settle(item, ROTATED)
        elif found.state is not State.ACTIVE or item.attempts >= _MOST_ATTEMPTS:
            await self._table.settle(item, FAILED)
        else:
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (item.attempts - 1))
            await self._table.postpone(item, pause, counts=True)


def _is_ours(error: DomainError) -> bool:
    """Says whether a refresh failed because a part of ours is away."""
    if isinstance(error, RefreshFailedError):
        return meaning(str(error.metadata.get("cause", ""))).cure is Cure.OURSELVES
    return error.status is Status.UNAVAILABLE


def _ended(rotation: Rotation, acting: Acting, target: str) -> AuditEntry:
    reason = "TOKENS_NOT_ROTATED" if rotation.failed else ""
    get_log().info("a rotation has ended", rotation=Label(rotation.id))
    return audit_entry("ROTATION_ENDED", acting, target, reason=reason)._replace(amount=rotation.rotated)
