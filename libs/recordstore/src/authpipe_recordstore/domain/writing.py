"""What may be written: version n + 1 over version n, under the newest fence, on a connection that lives. Each write whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from authpipe_envelope import TRANSIENT
from authpipe_recordstore.domain.words import Record, Ref
from authpipe_recordstore.errors import FenceError, VersionConflictError, WithheldError
from authpipe_sensitive import AuditEntry, DomainError

TRANSIENT_NUMBERS = tuple(sorted(int(each) for each in TRANSIENT))
Connection = tuple[str, str]


class Write(NamedTuple):
    """What is stored and ended together.

    Args:
        records: The records.
        ended: Transient records that end with it, each with the fence of its grant.
        entries: Its events.
    """

    records: Sequence[Record]
    ended: Sequence[tuple[Ref, int]]
    entries: Sequence[AuditEntry]

    def fences(self) -> dict[Connection, int]:
        """Gives the fence under which each connection is written."""
        return {(ref.workspace, ref.connection): fence for ref, fence in self.ended} | {
            (each.ref.workspace, each.ref.connection): each.fence for each in self.records
        }


class Stands(NamedTuple):
    """What stands of a connection: the newest fence, and its state."""

    fence: int
    state: str


class Version(NamedTuple):
    """What is stored of a record: its version, and its bytes where that is the version that is being written."""

    version: int
    data: bytes | None


@dataclass
class Decided:
    """What of a batch is carried out.

    Args:
        answers: Per write why it is not; None: it is.
        records: What is stored in the end.
        ended: What is deleted in the end.
        fences: The fences that connections have then.
        entries: The events.
    """

    answers: list[DomainError | None]
    records: dict[Ref, Record]
    ended: set[Ref]
    fences: dict[Connection, int]
    entries: list[AuditEntry]


def decide(
    writes: Sequence[Write], connections: Mapping[Connection, Stands], versions: Mapping[Ref, Version]
) -> Decided:
    """Decides what of a batch is carried out, one write after the other; one that is refused changes nothing.

    Args:
        writes: The writes.
        connections: What stands of the connections; one that is not here was never written.
        versions: What is stored of the records; one that is not here is not.
    """
    decided = Decided([], {}, set(), {}, [])
    stored: dict[Ref, Version | None] = dict(versions)
    for write in writes:
        fences = write.fences()
        refusal = _refused(write, fences, connections, decided.fences, stored)
        decided.answers.append(refusal)
        if refusal is not None:
            continue
        decided.fences |= fences
        decided.entries += write.entries
        for record in write.records:
            stored[record.ref] = Version(record.version, record.data)
            decided.records[record.ref] = record
            decided.ended.discard(record.ref)
        for ref, _ in write.ended:
            stored[ref] = None
            decided.records.pop(ref, None)
            decided.ended.add(ref)
    return decided


def _refused(
    write: Write,
    fences: Mapping[Connection, int],
    connections: Mapping[Connection, Stands],
    raised: Mapping[Connection, int],
    stored: Mapping[Ref, Version | None],
) -> DomainError | None:
    for name, fence in fences.items():
        stands = connections.get(name, Stands(0, "active"))
        if stands.state != "active":
            return WithheldError()
        if max(stands.fence, raised.get(name, 0)) > fence:
            return FenceError()
    meanwhile = dict[Ref, Version]()
    for record in write.records:
        before = meanwhile.get(record.ref) or stored.get(record.ref)
        if not _follows(record, before):
            return VersionConflictError()
        meanwhile[record.ref] = Version(record.version, record.data)
    return None


def _follows(record: Record, before: Version | None) -> bool:
    if before is None:
        # A transient record is deleted when it has been used, but its versions go on.
        return record.version == 1 or record.ref.record_class in TRANSIENT_NUMBERS
    # The same bytes may be put again: an answer of ours may have been lost.
    return record.version == before.version + 1 or before == (record.version, record.data)
