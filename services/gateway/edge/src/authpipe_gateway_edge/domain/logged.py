"""What the log says, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events of the workspace's log, and which page; what is empty filters nothing."""

    event: str
    target: str
    actor: str
    outcome: str
    some_id: str
    trail: str
    since: datetime | None
    until: datetime | None
    page_size: int
    page_token: str


class RecordVersion(NamedTuple):
    """A version of a record that an event is about."""

    record_class: str
    record_version: int


@dataclass(frozen=True, slots=True)
class Event:
    """An event of the log: ids, numbers and words of closed lists, without their prefixes."""

    event_id: str
    name: str
    time: datetime
    emitter: str
    sequence: int
    workspace: str
    actor: str
    target: str
    purpose: str
    record_class: str
    record_version: int
    outcome: str
    reason: str
    request_id: str
    grant_id: str
    trace_id: str
    source_address: str
    digest: str
    count: int
    until: datetime | None
    tree_size: int
    provider: str
    records: tuple[RecordVersion, ...]
    trail: str
    leaf_index: int


@dataclass(frozen=True, slots=True)
class Export:
    """Which events of the workspace's log are exported: of one trail, from a time on, before a time.

    Args:
        trail: user-credentials, client-secrets or control.
        since: From then on.
        until: Before then.
        seen_size: The size of a tree whose checkpoint the reader has; 0: none.
    """

    trail: str
    since: datetime | None
    until: datetime | None
    seen_size: int


class Events(NamedTuple):
    """A page of events, newest first, and of which trees it is, by trail."""

    events: list[Event]
    next_page_token: str
    tree_sizes: dict[str, int]


@dataclass(frozen=True, slots=True)
class Evidence:
    """An event of an incident, with what proves that it is in the log.

    Args:
        trail: The trail.
        leaf_index: Its leaf's index.
        record: Its record; empty: its body is expired.
        salt: Its salt, in hexadecimal.
        proof: C2SP tlog-proof; empty: the newest checkpoint does not have it yet.
    """

    trail: str
    leaf_index: int
    record: str
    salt: str
    proof: str


@dataclass(frozen=True, slots=True)
class Incident:
    """Something alarming that was found in the log.

    Args:
        id: Its id.
        detector: What was found.
        severity: low, medium, high or critical.
        subject: A connection, an API key, the workspace.
        state: open, acknowledged, customer_notified or closed.
        opened_at: When it was found.
        changed_at: Since when it is in this state.
        notify_by: By when the customer has to be told; None: there is nothing to tell.
        evidence: The events; not in a list.
    """

    id: str
    detector: str
    severity: str
    subject: str
    state: str
    opened_at: datetime
    changed_at: datetime
    notify_by: datetime | None
    evidence: tuple[Evidence, ...] = ()
