"""What detectors look at, and what they say."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, Protocol

from authpipe_audit.domain.trails import Trail

# What a detector remembers of one subject. The members are its own, but for "told".
State = dict[str, int]
# What all of them remember of one subject, by their words.
Profile = dict[str, State]
MINUTE, HOUR, DAY = 60, 3600, 86_400
USES = frozenset({"serve", "proxy"})
# The names that a use of a credential, and one that was refused, can have; and who says so of each kind of use.
_USED_BY = {"RECORD_KEY_RELEASED": "keyservice/user-credentials", "RECORD_KEY_REUSED": "vault"}
USE_NAMES = frozenset(_USED_BY)
REFUSED_NAMES = frozenset({"RECORDS_REFUSED", "RELEASE_REFUSED"})


class Severity(IntEnum):
    """How bad it is, if it is true."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Seen(NamedTuple):
    """An event, as detectors see it; the fields are those of AuditEvent.

    Args:
        trail: Where it stands.
        leaf_index: Where in there.
        emitter: Who says so.
        at: Seconds since the epoch, by the emitter's clock.
        name: What happened.
        workspace: Whose.
        actor: Who did it.
        target: On what.
        purpose: Of a use of a credential.
        reason: Why not.
        source: The address it came from.
        provider: The Provider concerned.
        micros: The microseconds of the second.
        records: How many records it is about.
    """

    trail: Trail
    leaf_index: int
    emitter: str
    at: int
    name: str
    workspace: str
    actor: str
    target: str = ""
    purpose: str = ""
    reason: str = ""
    source: str = ""
    provider: str = ""
    micros: int = 0
    records: int = 1

    @property
    def at_micros(self) -> int:
        """Gives microseconds since the epoch."""
        return self.at * 1_000_000 + self.micros

    @property
    def is_use(self) -> bool:
        """Says whether a customer's API key had a credential opened."""
        return _USED_BY.get(self.name) == self.emitter and self.purpose in USES and self.actor.startswith("api_key:")

    @property
    def is_refused_use(self) -> bool:
        """Says whether a customer's API key asked for a credential and did not get it."""
        return (
            self.name in REFUSED_NAMES
            and self.emitter in {"vault", "keyservice/user-credentials"}
            and self.actor.startswith("api_key:")
        )


class Subject(NamedTuple):
    """Of whom a detector remembers something.

    Args:
        workspace: Whose it is; empty: the installation's.
        name: A connection, an API key ("api_key:key_…"), a workspace, a Provider.
    """

    workspace: str
    name: str


class Finding(NamedTuple):
    """Something alarming.

    Args:
        detector: The word of the detector that says so.
        severity: How bad it is.
        subject: Of whom.
        seen: The event at which it became so.
    """

    detector: str
    severity: Severity
    subject: Subject
    seen: Seen


class Detector(Protocol):
    """Looks at events."""

    @property
    def word(self) -> str:
        """Gives its name, in UPPER_SNAKE."""

    @property
    def severity(self) -> Severity:
        """Gives how bad it is, what it finds."""

    @property
    def names(self) -> frozenset[str]:
        """Gives the names of the events that it looks at; of others it is not asked."""

    def subject(self, seen: Seen) -> Subject | None:
        """Gives of whom it has to remember something for an event of one of its names; None: it does not look at this one."""

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether this is alarming, and remembers what it needs.

        Args:
            seen: The event.
            state: What it remembers of the subject; changed in place. Empty: nothing.
        """
