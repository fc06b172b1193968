"""The trails of the log: a tree each. Which one an event goes to is decided by who emitted it, and by nothing it says."""

from __future__ import annotations

import enum


class Trail(enum.IntEnum):
    """A trail, by its number in the database."""

    USER_CREDENTIALS = 1
    CLIENT_SECRETS = 2
    CONTROL = 3

    @property
    def word(self) -> str:
        """Gives its name, as it stands in origins and paths."""
        return self.name.lower().replace("_", "-")

    def origin(self, log: str) -> str:
        """Gives the origin of its checkpoints (C2SP tlog-checkpoint): the log's name, and its own."""
        return f"{log}/{self.word}"


_TRAILS = {
    "vault": Trail.USER_CREDENTIALS,
    "keyservice/user-credentials": Trail.USER_CREDENTIALS,
    "clientsecrets": Trail.CLIENT_SECRETS,
    "keyservice/client-secrets": Trail.CLIENT_SECRETS,
}


def trail_of(emitter: str) -> Trail:
    """Gives the trail of an emitter: whoever takes over one store writes to that store's trail only (promise P10)."""
    return _TRAILS.get(emitter, Trail.CONTROL)
