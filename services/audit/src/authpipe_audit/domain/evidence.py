r"""The evidence of an incident: events, each with the proof that it is in the log (C2SP tlog-proof).

c2sp.org/tlog-proof@v1\nindex <leaf>\n<hash, base64>\n…\n\n<checkpoint>
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from authpipe_audit.domain.incidents import Incident, Place
from authpipe_audit.domain.trails import Trail
from authpipe_transparency import Range, inclusion_ranges


class Evidence(NamedTuple):
    """An event of an incident.

    Args:
        place: Where it stands.
        record: Its record; empty: its body is expired.
        salt: Its salt.
        proof: The text of its proof; empty: the newest checkpoint does not have it yet.
    """

    place: Place
    record: bytes = b""
    salt: bytes = b""
    proof: str = ""


class Bodies(Protocol):
    """The bodies that are there."""

    async def evidence(self, incident: Incident) -> list[tuple[Place, bytes, bytes]]:
        """Gives of each piece of evidence that has its body still: place, record, salt."""


class Kept(Protocol):
    """The checkpoints we have."""

    async def newest(self, trail: Trail, cosignatures: int = 0) -> tuple[int, str]:
        """Gives the size and note of the newest."""


class Trees(Protocol):
    """The trees."""

    async def roots(self, trail: Trail, parts: Sequence[Range]) -> list[bytes]:
        """Gives the root hashes of subtrees."""


class Evidences:
    """Puts evidence together.

    Args:
        bodies: The bodies.
        kept: The checkpoints.
        trees: The trees.
    """

    def __init__(self, bodies: Bodies, kept: Kept, trees: Trees) -> None:
        self._bodies = bodies
        self._kept = kept
        self._trees = trees

    async def of(self, incident: Incident) -> list[Evidence]:
        """Gives the evidence of an incident, in the order of the log.

        Raises:
            LogDamagedError: The tree does not have what it must have.
        """
        bodies = {place: (record, salt) for place, record, salt in await self._bodies.evidence(incident)}
        return [
            Evidence(place, *bodies.get(place, (b"", b"")), await self._proof(place)) for place in incident.evidence
        ]

    async def _proof(self, place: Place) -> str:
        size, note = await self._kept.newest(place.trail)
        if place.leaf_index >= size:
            return ""
        path = await self._trees.roots(place.trail, inclusion_ranges(place.leaf_index, size))
        lines = [base64.b64encode(each).decode() for each in path]
        return "\n".join(["c2sp.org/tlog-proof@v1", f"index {place.leaf_index}", *lines, "", note])
