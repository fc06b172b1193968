"""Refreshes: one connection again and again (somebody spends its tokens), or many of one Provider that fail."""

from __future__ import annotations

from authpipe_audit.domain.detecting.words import HOUR, Seen, Severity, State, Subject

_MOST_AN_HOUR = 30
_FEWEST, _FAILING_SHARE = 20, 0.5


class RefreshStorm:
    """Counts the refreshes of each connection, by the hour."""

    word = "CONNECTION_REFRESH_STORM"
    severity = Severity.MEDIUM
    names = frozenset({"TOKEN_REFRESHED"})

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the connection that was refreshed."""
        return Subject(seen.workspace, seen.target)

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether it was refreshed more often than any Provider's tokens end."""
        hour = seen.at // HOUR
        if hour > state.get("hour", 0):
            state |= {"hour": hour, "count": 0}
        state["count"] += 1
        return state["count"] > _MOST_AN_HOUR


class ProviderFailures:
    """Counts the refreshes of each Provider, of all workspaces, by the hour."""

    word = "PROVIDER_REFRESH_FAILURES"
    severity = Severity.HIGH
    names = frozenset({"TOKEN_REFRESHED", "REFRESH_FAILED"})

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the Provider that was asked."""
        return Subject("", seen.provider) if seen.provider else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether half of them fail."""
        hour = seen.at // HOUR
        if hour > state.get("hour", 0):
            state |= {"hour": hour, "count": 0, "failed": 0}
        state["count"] += 1
        state["failed"] += seen.name == "REFRESH_FAILED"
        return state["count"] >= _FEWEST and state["failed"] >= _FAILING_SHARE * state["count"]
