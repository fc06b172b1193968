"""Access far above a subject's own baseline.

Uses are counted by the hour. What is usual at an hour is what the two weeks before had at that hour of the day, or the one
beside it: so a nightly batch is usual at night and alarming at noon. Of the days the second highest counts: one day that was
unusual, also an attack, does not make it usual, and a job that runs every week does. Only what is three times that, and not
small in itself, is found; and of a subject that is not known for three days, nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from authpipe_audit.domain.detecting.words import DAY, HOUR, USE_NAMES, Seen, Severity, State, Subject

_DAYS, _KNOWN_DAYS, _FACTOR = 14, 3, 3
_NEVER = 2**62


class AboveBaseline:
    """Counts uses of one kind of subject.

    Args:
        word: The detector's name.
        severity: How bad it is, what it finds.
        name_of: Gives the subject's name.
        floor: So many uses an hour are never alarming.
    """

    def __init__(self, word: str, severity: Severity, name_of: Callable[[Seen], str], floor: int) -> None:
        self.word = word
        self.names = USE_NAMES
        self.severity = severity
        self._name_of = name_of
        self._floor = floor

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the subject of a use."""
        return Subject(seen.workspace, self._name_of(seen)) if seen.is_use else None

    def look(self, seen: Seen, state: State) -> bool:
        """Counts, and compares with what is usual at this hour."""
        hour = seen.at // HOUR
        if hour > state.get("hour", 0):
            self._begin(hour, state)
        key = str(hour)
        state[key] = state.get(key, 0) + 1
        return hour == state["hour"] and state[key] > state["limit"]

    def _begin(self, hour: int, state: State) -> None:
        """Begins an hour: what was too much in the one before is not learned, and what is old is forgotten."""
        if before := state.get("hour"):
            key = str(before)
            state[key] = min(state[key], state["limit"])
        for key in [key for key in state if key.isdigit() and int(key) < hour - 24 * _DAYS - 1]:
            del state[key]
        since = state.setdefault("since", hour)
        state["hour"] = hour
        days = min(_DAYS, (hour - since) * HOUR // DAY)
        if days < _KNOWN_DAYS:
            state["limit"] = _NEVER
            return
        highest = sorted(
            max(state.get(str(hour - 24 * day + beside), 0) for beside in (-1, 0, 1)) for day in range(1, days + 1)
        )
        state["limit"] = max(self._floor, _FACTOR * highest[-2])


def baselines() -> list[AboveBaseline]:
    """Makes the detectors: of connections, of API keys, of workspaces."""
    return [
        AboveBaseline("CONNECTION_ABOVE_BASELINE", Severity.MEDIUM, lambda seen: seen.target, 120),
        AboveBaseline("API_KEY_ABOVE_BASELINE", Severity.HIGH, lambda seen: seen.actor, 400),
        AboveBaseline("WORKSPACE_ABOVE_BASELINE", Severity.HIGH, lambda seen: seen.workspace, 1000),
    ]
