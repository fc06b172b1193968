"""Measuring an export: each line is read by itself, in any process, and what can be checked in lines that stand together is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from authpipe_transparency.emitting import BatchTree, verify_signature
from authpipe_transparency.errors import FormatError
from authpipe_transparency.events import Emitted, Record, commitment, emitted
from authpipe_transparency.exports import (
    BatchLine,
    CertificateLine,
    CheckpointLine,
    End,
    Gap,
    Header,
    LeafLine,
    Line,
    read_line,
    read_shown,
)
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.merkle import leaf_hash


class Run(NamedTuple):
    """Leaves of the workspace's chain that stand beside each other, in the tree and in the chain.

    Args:
        leaf: The index of the first.
        position: Its position in the chain.
        shown: A byte for each: 2 its body is shown, 1 its body is gone with retention, 0 neither.
        hashes: 32 bytes for each.
        emitter: Whose events they are; empty: they are not shown.
        sequence: The emitter's number of the first.
        events: Of each event's own encoding the leaf hash; nothing: they are not shown, or were compared with their batch.
        latest: When the latest was.
    """

    leaf: int
    position: int
    shown: bytes
    hashes: bytes
    emitter: str
    sequence: int
    events: bytes
    latest: str


class Own(NamedTuple):
    """A leaf that the log itself wrote, with its record; or one that is no part of the workspace's chain."""

    line: LeafLine
    hashed: bytes


class Batch(NamedTuple):
    """A batch of an emitter, whose signature is good.

    Args:
        line: What it says.
        is_whole: Whether its events were compared with what was signed. Otherwise they have to be still: the batch goes on beyond the
            lines that were measured, or something is wrong with it, which is told when everything before it is sound.
    """

    line: BatchLine
    is_whole: bool = False


Measured = Header | Gap | CheckpointLine | CertificateLine | Batch | End | Run | Own
SHOWN, EXPIRED, HIDDEN = 2, 1, 0
STATER = "audit"
_NOBODY = Emitted("", 0, b"", "")


class _Growing:
    """Leaves that stand beside each other, of one emitter.

    Args:
        first: The first of them.
        says: Who says it.
    """

    def __init__(self, first: LeafLine, says: Emitted) -> None:
        self._first, self._says = first, says
        self._shown, self._hashes, self._events, self._latest = bytearray(), bytearray(), bytearray(), ""

    def goes_on_with(self, line: LeafLine, says: Emitted) -> bool:
        """Says whether a leaf is the next one."""
        amount = len(self._shown)
        return (line.leaf, line.position, says.emitter, says.sequence) == (
            self._first.leaf + amount,
            self._first.position + amount,
            self._says.emitter,
            self._says.sequence + amount if self._says.emitter else 0,
        )

    def add(self, line: LeafLine, hashed: bytes, says: Emitted) -> None:
        """Adds it."""
        self._shown.append(SHOWN if line.record else EXPIRED if line.expired else HIDDEN)
        self._hashes += hashed
        if line.record:
            self._events += leaf_hash(says.event)
            self._latest = max(self._latest, says.time)

    def run(self) -> Run:
        """Gives them."""
        return Run(
            self._first.leaf,
            self._first.position,
            bytes(self._shown),
            bytes(self._hashes),
            self._says.emitter,
            self._says.sequence,
            bytes(self._events),
            self._latest,
        )


def measure(lines: Iterable[bytes]) -> list[Measured]:
    """Reads lines, without their newlines, and checks what can be checked in each alone. It may run in any process.

    Raises:
        Finding: FORMAT, CHANGED or EMITTER.
    """
    measured: list[Measured] = []
    growing: _Growing | None = None
    for raw in lines:
        line, hashed, says = _measure(raw)
        run = line if isinstance(line, LeafLine) and not _is_alone(line, says) else None
        if growing is not None and not (run is not None and growing.goes_on_with(run, says)):
            measured.append(growing.run())
            growing = None
        if run is not None:
            growing = growing or _Growing(run, says)
            growing.add(run, hashed, says)
        else:
            measured.append(_alone(line, hashed))
    if growing is not None:
        measured.append(growing.run())
    return _compared(measured)


def _alone(line: Line, hashed: bytes) -> Measured:
    if isinstance(line, LeafLine):
        return Own(line, hashed)
    return Batch(line) if isinstance(line, BatchLine) else line


def _compared(measured: list[Measured]) -> list[Measured]:
    """Compares the events of each batch that begins and ends here with what was signed."""
    ends = [at for at, each in enumerate(measured) if isinstance(each, Batch | End)]
    for first, end in pairwise(ends):
        batch = measured[first]
        if isinstance(batch, Batch) and _is_sound(batch.line, measured[first + 1 : end]):
            measured[first] = Batch(batch.line, is_whole=True)
            measured[first + 1 : end] = [
                each._replace(events=b"") if isinstance(each, Run) else each for each in measured[first + 1 : end]
            ]
    return measured


def _is_sound(line: BatchLine, lines: Sequence[Measured]) -> bool:
    tree = BatchTree(line)
    try:
        for each in lines:
            if isinstance(each, Run) and each.emitter:
                tree.take(each.leaf, each.emitter, each.sequence, each.events)
            elif isinstance(each, Own) and each.line.record:
                record = Record(each.line.record)
                tree.take(each.line.leaf, record.emitter, record.sequence, leaf_hash(record.event))
        tree.end()
    except Finding:
        return False
    return True


def _is_alone(line: LeafLine, says: Emitted) -> bool:
    """Says whether a leaf is the log's own, or none of the chain."""
    return not line.position or line.head is not None or says.emitter == STATER


def _measure(raw: bytes) -> tuple[Line, bytes, Emitted]:
    """Gives a line; of a leaf its hash, and who says what is shown of it."""
    try:
        shown = read_shown(raw)
        line = shown[0] if shown else read_line(raw)
        if isinstance(line, BatchLine):
            verify_signature(line)
        if not isinstance(line, LeafLine):
            return line, b"", _NOBODY
        says = _NOBODY
        if line.record:
            if commitment(line.salt, line.record) != line.entry:
                raise Finding(Kind.CHANGED, f"leaf {line.leaf}")
            says = shown[1] if shown else emitted(line.record)
    except FormatError:
        raise Finding(Kind.FORMAT, f"the line that begins {raw[:24].decode('ascii', 'replace')!r}") from None
    return line, leaf_hash(line.entry), says
