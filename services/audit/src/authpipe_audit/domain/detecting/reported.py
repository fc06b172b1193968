"""What other processes call an alarm themselves, and what a customer is told in any case: an event that becomes an incident."""

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
        # Access was taken away, whoever did it and why: promise P27 has it that customers are told.
        Reported("ROTATION_BEGUN", Severity.MEDIUM),
        Reported("API_KEYS_REVOKED", Severity.MEDIUM),
        Reported("WORKSPACE_FROZEN", Severity.MEDIUM),
    ]
