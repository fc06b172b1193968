"""What is told."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple


class Notice(NamedTuple):
    """What a sink is told of an incident, as it stands now.

    Args:
        incident: Its id.
        kind: OPENED, CHANGED, or a reminder: DUE_IN_12_HOURS, DUE_IN_4_HOURS, DUE_IN_1_HOUR, OVERDUE.
        number: With CHANGED: of which change; otherwise 0.
        detector: Who found it.
        severity: LOW, MEDIUM, HIGH, CRITICAL.
        workspace: Whose; empty: the installation's.
        subject: A connection, API key, workspace, Provider.
        opened_at: When it was found.
        notify_by: By when the customer has to be told; None: there is nothing to tell.
        state: OPEN, ACKNOWLEDGED, CUSTOMER_NOTIFIED, CLOSED.
    """

    incident: str
    kind: str
    number: int
    detector: str
    severity: str
    workspace: str
    subject: str
    opened_at: dt.datetime
    notify_by: dt.datetime | None
    state: str

    @property
    def id(self) -> str:
        """Gives what is the same whenever this is told again: whoever gets it twice knows."""
        return f"{self.incident}.{self.kind.lower()}.{self.number}"

    @property
    def is_for_owners(self) -> bool:
        """Says whether the owners of a workspace have to be told: once, when it is found."""
        return self.kind == "OPENED" and bool(self.workspace) and self.notify_by is not None
