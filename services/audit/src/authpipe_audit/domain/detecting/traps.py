"""Traps: what nobody has a reason to touch. A disconnected connection, and a decoy."""

from __future__ import annotations

from authpipe_audit.domain.detecting.words import (
    HOUR,
    MINUTE,
    REFUSED_NAMES,
    USE_NAMES,
    Profile,
    Seen,
    Severity,
    State,
    Subject,
)

_COORDINATOR = "oauth/coordinator"
_ENDED = frozenset({"CONNECTION_DISCONNECTED", "CONNECTION_KEY_ERASED"})


class DisconnectedUse:
    """Remembers when each connection was disconnected, and when it was used or asked for last.

    Whoever asks within an hour may not have heard of it. After that it is somebody who has old ids; and a key that is
    released a minute after a disconnect means that a part of us does not do what it should. Each trail comes in its own
    time: a use may be seen before the disconnect that it came after, and is judged when that is.
    """

    word = "DISCONNECTED_CONNECTION_USED"
    severity = Severity.MEDIUM
    names = USE_NAMES | REFUSED_NAMES | {"CONNECTION_DISCONNECTING", "CONNECTION_RESTORED"}

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the connection that was disconnected, taken back, used, or asked for."""
        told = seen.emitter == _COORDINATOR and seen.name.startswith("CONNECTION_")
        return Subject(seen.workspace, seen.target) if told or seen.is_use or seen.is_refused_use else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether it is used although it was disconnected."""
        if seen.name == "CONNECTION_RESTORED":
            state.pop("since", None)
            return False
        if seen.name == "CONNECTION_DISCONNECTING":
            since = state.setdefault("since", seen.at)
            return state.get("used", 0) - since > MINUTE or state.get("asked", 0) - since > HOUR
        if seen.is_use:
            state["used"] = seen.at
            return "since" in state and seen.at - state["since"] > MINUTE
        if seen.reason not in _ENDED:
            return False
        # Of what was disconnected so long ago that nobody remembers, the first time it is asked for begins the hour.
        since = state.get("since", state.get("asked", seen.at))
        state.setdefault("asked", seen.at)
        return seen.at - since > HOUR


class Honeytoken:
    """Remembers which connections are decoys, made like any other: nobody should ever use one. And when each was used last.

    Each trail comes in its own time: a use may be seen before it is seen that the connection is a decoy.
    """

    word = "HONEYTOKEN_USED"
    severity = Severity.CRITICAL
    names = USE_NAMES | REFUSED_NAMES | {"DECOY_PLACED"}

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the connection that is a decoy, is used, or asked for."""
        placed = seen.emitter == _COORDINATOR and seen.name == "DECOY_PLACED"
        return Subject(seen.workspace, seen.target) if placed or seen.is_use or seen.is_refused_use else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether it is a decoy that is used."""
        if seen.name == "DECOY_PLACED":
            state["placed"] = seen.at_micros
            return state.get("used", 0) > seen.at_micros
        state["used"] = seen.at_micros
        return "placed" in state


def is_decoy(profile: Profile) -> bool:
    """Says whether it is remembered of a connection that it is a decoy: that is never forgotten."""
    return "placed" in profile.get(Honeytoken.word, {})
