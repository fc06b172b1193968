"""For the day on which something is stolen: what was found, and what takes access away in one act (promises P26, P27)."""

from __future__ import annotations

from authpipe_gateway_edge.domain.ports import Act, Authority, Incidents, Rotations
from authpipe_gateway_edge.domain.logged import Incident
from authpipe_gateway_edge.domain.words import Caller, Rotation, require_id, require_plain


class Containing:
    """Acts for a workspace.

    Args:
        authority: May I? And keeps API keys.
        rotations: Rotates tokens.
        incidents: What was found.
    """

    def __init__(self, authority: Authority, rotations: Rotations, incidents: Incidents) -> None:
        self._authority = authority
        self._rotations = rotations
        self._incidents = incidents

    async def place_decoy(self, caller: Caller, connection_id: str) -> None:
        """Makes a connection a decoy."""
        verdict = await self._authority.authorize(caller, Act.PLACE_DECOY, require_id(connection_id))
        await self._rotations.place_decoy(verdict, connection_id, caller.request_id)

    async def list_incidents(
        self, caller: Caller, size: int, token: str, *, open_only: bool
    ) -> tuple[list[Incident], str]:
        """Lists what was found, newest first."""
        verdict = await self._authority.authorize(caller, Act.READ_AUDIT, "")
        return await self._incidents.list_incidents(
            verdict, open_only=open_only, size=size, token=require_plain(token, "page_token")
        )

    async def get_incident(self, caller: Caller, incident_id: str) -> Incident:
        """Gives an incident with its evidence."""
        verdict = await self._authority.authorize(caller, Act.READ_AUDIT, "")
        return await self._incidents.get(verdict, require_id(incident_id))

    async def rotate(self, caller: Caller, connection_id: str, config_id: str, *, dry_run: bool) -> Rotation:
        """Begins to rotate tokens: of a connection, of a provider configuration, or of all of the workspace."""
        verdict = await self._authority.authorize(caller, Act.ROTATE, "")
        for each in filter(None, (connection_id, config_id)):
            require_id(each)
        return await self._rotations.begin(verdict, connection_id, config_id, caller.request_id, dry_run=dry_run)

    async def get_rotation(self, caller: Caller, rotation_id: str) -> Rotation:
        """Says how far a rotation is."""
        verdict = await self._authority.authorize(caller, Act.ROTATE, "")
        return await self._rotations.get(verdict, require_id(rotation_id))

    async def revoke_api_keys(self, caller: Caller, *, dry_run: bool) -> int:
        """Revokes all API keys of the workspace, also this one; gives how many were active."""
        verdict = await self._authority.authorize(caller, Act.REVOKE_API_KEYS, "")
        return await self._authority.revoke_api_keys(verdict, caller.request_id, dry_run=dry_run)

    async def freeze(self, caller: Caller, *, dry_run: bool) -> bool:
        """Freezes the workspace; says whether it was frozen already."""
        verdict = await self._authority.authorize(caller, Act.FREEZE, "")
        return await self._authority.freeze(verdict, caller.request_id, dry_run=dry_run)
