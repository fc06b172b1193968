"""Who acts: an API key, or a member by a session of the dashboard."""

from __future__ import annotations

from typing import NamedTuple


class Principal(NamedTuple):
    """Somebody who was found to be who they say.

    Args:
        workspace: Whose.
        id: The id of the API key or member.
        kind: "api_key" or "member".
        scopes: What they may do.
    """

    workspace: str
    id: str
    kind: str
    scopes: tuple[str, ...]

    @property
    def actor(self) -> str:
        """Gives how the log names them."""
        return f"{self.kind}:{self.id}"


class Credential(NamedTuple):
    """What somebody shows.

    Args:
        kind: "api_key" or "member".
        key_hash: Its keyed hash; None: it is none of the form of ours.
    """

    kind: str
    key_hash: bytes | None
