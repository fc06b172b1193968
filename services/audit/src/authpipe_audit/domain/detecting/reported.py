"""What other processes call an alarm themselves: it became an event, and becomes an incident."""

from __future__ import annotations

from authpipe_audit.domain.detecting.words import Seen, Severity, State, Subject


class Reported:
    """Takes one kind of event for an alarm.

    Args:
        name: The event's.
        severity: How bad it is.
    """

    def __init__(self, name: str, severity: Severity) -> None:
        self.word = name
        self.names = frozenset({name})
        self.severity = severity

    def subject(self, seen: Seen) -> Subject | None:
        """Gives what the event is about."""
        return Subject(seen.workspace, seen.target or seen.actor)

    def look(self, seen: Seen, state: State) -> bool:
        """Says yes."""
        del seen, state
        return True


def reported() -> list[Reported]:
    """Makes one for each event that is an alarm."""
    return [
        Reported("AUTHORIZATION_ROW_FORGED", Severity.CRITICAL),
        Reported("INTEGRITY_VIOLATION", Severity.HIGH),
        Reported("RELEASE_BUDGET_EXCEEDED", Severity.HIGH),
        Reported("CLOCK_DIFFERS", Severity.LOW),
    ]
