"""One item of a batch of releases: what is asked for, what it changes in what keyservice knows, and its event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from authpipe_envelope import TRANSIENT, RecordClass
from authpipe_grants import Grant
from authpipe_keyservice.domain.release import Direction, Wanted, mark_of
from authpipe_keyservice.domain.remembered import KeyRow
from authpipe_keyservice.errors import BudgetError
from authpipe_sensitive import AuditEntry, DomainError


# As many as an event can name (docs/audit-format.md).
_MOST_RECORDS = 16


class Ask(NamedTuple):
    """One item of a batch.

    Args:
        wanted: Which key.
        token: Its grant; None: the item points to no grant.
        request_id: The request it belongs to.
        header: The AP1 header, to read.
        request_count: For how many requests of one moment, the first of which that is; 0: for it alone.
    """

    wanted: Wanted
    token: str | None
    request_id: str
    header: bytes = b""
    request_count: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What a release changes in what keyservice knows: the floor, the fence, the last forced refresh or check.

    Args:
        wanted: The key that was released.
        key_version: The version of the connection key that it comes from.
        fence: A newer fence than the last one seen; 0: none.
        forced: The mark of a forced refresh; empty: it was none.
        check: The mark of a check; empty: it was none.
    """

    wanted: Wanted
    key_version: int
    fence: int
    forced: str
    check: str


def after_floor(ask: Ask, row: KeyRow | None) -> Ask:
    """Gives a write of a transient record the version after its floor: the store has deleted the one before."""
    wanted = ask.wanted
    if row is None or wanted.direction is Direction.READ or wanted.record_class not in TRANSIENT:
        return ask
    version = max(wanted.version, row.facts.floor + 1)
    return ask._replace(wanted=wanted._replace(version=version))


def step_of(ask: Ask, grant: Grant, row: KeyRow | None, key_version: int) -> Step | None:
    """Gives what a release changes; None: nothing."""
    reads = ask.wanted.direction is Direction.READ
    mark = mark_of(grant, ask.wanted)
    forced = mark if reads and grant.forced and ask.wanted.record_class is RecordClass.REFRESH else ""
    check = mark if grant.purpose in {"health_check", "rotation_check"} else ""
    fence = grant.fence if row is None or grant.fence > row.facts.fence else 0
    raises = reads and row is not None and ask.wanted.version > row.facts.floor
    return (
        Step(ask.wanted, key_version, fence, forced, check) if raises or fence or forced or check or not reads else None
    )


def released_event(ask: Ask, grant: Grant) -> AuditEntry:
    """Makes the event of a key that is released."""
    reads = ask.wanted.direction is Direction.READ
    return AuditEntry(
        name="RECORD_KEY_RELEASED" if reads else "WRITE_KEY_RELEASED",
        outcome="SUCCEEDED",
        actor=grant.actor,
        request_id=ask.request_id,
        workspace_id=ask.wanted.workspace,
        target=ask.wanted.connection,
        purpose=grant.purpose,
        record_class=int(ask.wanted.record_class),
        record_version=ask.wanted.version,
        grant_id=grant.grant_id,
        source=grant.source,
        amount=ask.request_count,
    )


def told_together(entries: Sequence[AuditEntry]) -> list[AuditEntry]:
    """Gives one event for entries that differ in nothing but the record, which names all of them; what is alone stays as it is."""
    alike: dict[AuditEntry, list[AuditEntry]] = {}
    for entry in entries:
        alike.setdefault(entry._replace(record_class=0, record_version=0), []).append(entry)
    told = []
    for event, all_of_them in alike.items():
        for first in range(0, len(all_of_them), _MOST_RECORDS):
            together = all_of_them[first : first + _MOST_RECORDS]
            records = tuple(sorted((each.record_class, each.record_version) for each in together))
            told.append(together[0] if len(together) == 1 else event._replace(records=records))
    return told


def refused_event(ask: Ask, grant: Grant | DomainError, error: DomainError) -> AuditEntry:
    """Makes the event of a key that is refused, under the name of what is wrong."""
    names = {"RECORD_INTEGRITY_VIOLATION", "WRAPPED_KEY_TAMPERED", "RECORD_ROLLED_BACK"}
    name = "INTEGRITY_VIOLATION" if error.reason in names else "RELEASE_REFUSED"
    if isinstance(error, BudgetError):
        name = "RELEASE_BUDGET_EXCEEDED"
    return AuditEntry(
        name=name,
        outcome="REFUSED",
        actor=grant.actor if isinstance(grant, Grant) else "service:unknown",
        request_id=ask.request_id,
        workspace_id=ask.wanted.workspace,
        target=ask.wanted.connection,
        purpose=grant.purpose if isinstance(grant, Grant) else "",
        source=grant.source if isinstance(grant, Grant) else "",
        record_class=int(ask.wanted.record_class),
        record_version=ask.wanted.version,
        reason=error.reason,
        grant_id=grant.grant_id if isinstance(grant, Grant) else "",
    )
