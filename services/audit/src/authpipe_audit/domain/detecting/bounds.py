"""Releases of keys near the bound at which keyservice refuses (ARCHITECTURE §4): before it refuses customers, somebody looks."""

from __future__ import annotations

from authpipe_audit.domain.detecting.words import MINUTE, Seen, Severity, State, Subject

_NEAR = 0.8


class NearBound:
    """Counts the releases of each workspace, by the minute.

    Args:
        bound: How many keyservice releases of a workspace in a minute.
    """

    word = "WORKSPACE_NEAR_RELEASE_BOUND"
    severity = Severity.HIGH
    names = frozenset({"RECORD_KEY_RELEASED", "WRITE_KEY_RELEASED"})

    def __init__(self, bound: int) -> None:
        self._limit = _NEAR * bound

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the workspace whose key was released."""
        return Subject(seen.workspace, seen.workspace) if seen.emitter.startswith("keyservice/") else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether four fifths of it are used up."""
        minute = seen.at // MINUTE
        if minute > state.get("minute", 0):
            state |= {"minute": minute, "count": 0}
        state["count"] += seen.records
        return state["count"] >= self._limit
