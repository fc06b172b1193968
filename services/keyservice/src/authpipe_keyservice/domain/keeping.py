"""Connection keys that are kept, and who may take one back (promise P12).

A store that was taken over must not bring back what was disconnected: it says which key is to be kept, and that enlarges
nothing; taking it back wants authority's signature for that very connection, and it is refused when it is over. Then keyservice
destroys the key by itself, whether or not anybody asks for that.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from authpipe_grants import Grant, GrantError
from authpipe_keyservice.domain.release import KeyState
from authpipe_keyservice.errors import KeptTooLongError, NotKeptError
from authpipe_sensitive import AuditEntry

LONGEST = timedelta(days=30)
_MOST_AT_ONCE = 100
_PURPOSE, _SIGNER = "reconnect", "gateway/authority"


class KeptTable(Protocol):
    """Connection keys, as far as this is about them."""

    async def keep(self, workspace: str, connection: str, until: datetime, entry: AuditEntry) -> bool:
        """Keeps a key that is not destroyed; False: it is, or was never made. What was kept is not kept longer."""

    async def restore(self, workspace: str, connection: str, entry: AuditEntry) -> bool:
        """Makes a kept key active again while that is possible; False: it is not. One that is active stays so."""

    async def outlived(self, most: int) -> list[tuple[str, str]]:
        """Gives workspaces and connections whose keys were kept long enough."""

    async def set_state(self, workspace: str, connection_id: str, state: KeyState, entry: AuditEntry) -> int:
        """Restricts or destroys a key."""


class Keeping:
    """The rules over keys that are kept.

    Args:
        table: Connection keys.
        verify: Verifies a grant's signature, chain and time.
        audience: What a grant must name.
        clock: Gives the time, with zone.
    """

    def __init__(
        self, table: KeptTable, verify: Callable[[str], Grant], audience: str, clock: Callable[[], datetime]
    ) -> None:
        self._table = table
        self._verify = verify
        self._audience = audience
        self._clock = clock

    async def keep(self, workspace: str, connection: str, until: datetime, caller: str, request_id: str) -> None:
        """Keeps a key: nothing opens with it.

        Raises:
            KeptTooLongError: For longer than thirty days.
            NotKeptError: There is no key to keep.
        """
        if until - self._clock() > LONGEST + timedelta(minutes=1):
            raise KeptTooLongError
        entry = _entry("CONTEXT_KEY_KEPT", workspace, connection, f"service:{caller}", request_id)
        if not await self._table.keep(workspace, connection, until, entry):
            raise NotKeptError

    async def sweep(self) -> None:
        """Destroys what was kept long enough."""
        for workspace, connection in await self._table.outlived(_MOST_AT_ONCE):
            actor = f"service:keyservice/{self._audience.partition('/')[0]}"
            entry = _entry("CONTEXT_KEY_DESTROYED", workspace, connection, actor, "")
            await self._table.set_state(workspace, connection, KeyState.DESTROYED, entry)

    async def restore(self, token: str, request_id: str) -> None:
        """Takes a key back.

        Raises:
            GrantError: The grant is not for that, or not from who may sign it.
            NotKeptError: It is not kept, or not any more.
        """
        grant = self._verify(token)
        signed = grant.purpose == _PURPOSE and grant.issuer == _SIGNER and self._audience in grant.audience
        if not signed or len(grant.connections) != 1:
            raise GrantError
        connection = grant.connections[0]
        entry = _entry("CONTEXT_KEY_RESTORED", grant.workspace, connection, grant.actor, request_id, grant.grant_id)
        if not await self._table.restore(grant.workspace, connection, entry):
            raise NotKeptError


def _entry(name: str, workspace: str, connection: str, actor: str, request_id: str, grant_id: str = "") -> AuditEntry:
    return AuditEntry(
        name=name,
        outcome="SUCCEEDED",
        actor=actor,
        request_id=request_id,
        workspace_id=workspace,
        target=connection,
        grant_id=grant_id,
    )
