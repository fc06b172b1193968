"""Verifying an export: from top to bottom, against what the verifier knows from elsewhere, and nothing the log says.

Known from elsewhere are the log's key, the checkpoints that were seen before, and, where there are any, the witnesses.
Each line is first read by itself (`measure`, which runs in several processes); then they are put together, in order.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from authpipe_transparency.chains import Head, chain_next, chain_start, map_key, verify_in_map
from authpipe_transparency.errors import FormatError, ProofError
from authpipe_transparency.events import Record, check_record, commitment
from authpipe_transparency.exports import CheckpointLine, End, Gap, Header, LeafLine, Line, gap_ranges, read_line
from authpipe_transparency.merkle import Frontier, leaf_hash
from authpipe_transparency.notes import Checkpoint, NoteError, VerifierKey, open_checkpoint

STATEMENT, RETENTION = "CHAINS_STATED", "BODIES_EXPIRED"
_STATER = "audit"


class Kind(enum.IntEnum):
    """What is wrong with a log, as the exit code that says so."""

    FORMAT = 3
    SIGNATURE = 4
    CHANGED = 5
    TREE = 6
    FORKED = 7
    OMITTED = 8
    MISSING = 9
    WITNESSES = 10


_SENTENCES = {
    Kind.FORMAT: "This is not a whole export, or it was cut or edited",
    Kind.SIGNATURE: "A checkpoint is not signed by the log's key",
    Kind.CHANGED: "An event is not the one that was logged",
    Kind.TREE: "Events were changed, removed, inserted or moved in the tree",
    Kind.FORKED: "The log contradicts a checkpoint that was seen before: it was rewritten or set back, or this export is an old one",
    Kind.OMITTED: "The workspace's chain is not as the log itself stated it: events are left out",
    Kind.MISSING: "The body of an event is gone, and no retention that was logged explains it",
    Kind.WITNESSES: "Fewer witnesses than asked for have cosigned the checkpoint",
}


class Finding(Exception):
    """A log, or an export of it, is not as it must be.

    Args:
        kind: What is wrong.
        place: Where, in words.
    """

    def __init__(self, kind: Kind, place: str) -> None:
        super().__init__(f"{_SENTENCES[kind]} ({place}).")
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Known:
    """What the verifier knows from elsewhere.

    Args:
        keys: The log's verifier keys, by origin.
        seen: Of each origin the checkpoints seen before: root by size.
        witnesses: The witnesses' keys.
        quorum: How many of them must have cosigned.
    """

    keys: Mapping[str, VerifierKey]
    seen: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    witnesses: Sequence[VerifierKey] = ()
    quorum: int = 0


class Section(NamedTuple):
    """What was verified of one trail.

    Args:
        checkpoint: The tree it is of.
        workspace: Whose events.
        events: How many were shown with their bodies.
        expired: How many bodies were gone with retention.
        complete_to: Up to which position the log's own statement covers the chain; 0: up to none.
        last: The last position of the chain.
        before: How many before the first event, and
        after: how many after the last, are outside the time that was asked for.
        witnesses: Who cosigned.
    """

    checkpoint: Checkpoint
    workspace: str
    events: int
    expired: int
    complete_to: int
    last: int
    before: int
    after: int
    witnesses: frozenset[str]


class Run(NamedTuple):
    """Leaves of the workspace's chain that stand beside each other, in the tree and in the chain.

    Args:
        leaf: The index of the first.
        position: Its position in the chain.
        shown: A byte for each: 2 its body is shown, 1 its body is gone with retention, 0 neither.
        hashes: 32 bytes for each.
    """

    leaf: int
    position: int
    shown: bytes
    hashes: bytes


class Own(NamedTuple):
    """A leaf that the log itself wrote, with its record; or one that is no part of the workspace's chain."""

    line: LeafLine
    hashed: bytes


Measured = Header | Gap | CheckpointLine | End | Run | Own
_HASH_SIZE = 32
_OWN, _SHOWN, _EXPIRED, _HIDDEN = 3, 2, 1, 0


def measure(lines: Iterable[bytes]) -> list[Measured]:
    """Reads lines, without their newlines, and checks what can be checked in each alone. It may run in any process.

    Raises:
        Finding: FORMAT or CHANGED.
    """
    measured: list[Measured] = []
    shown, hashes = bytearray(), bytearray()
    first: LeafLine | None = None

    def end_run() -> None:
        nonlocal first
        if first is not None:
            measured.append(Run(first.leaf, first.position, bytes(shown), bytes(hashes)))
            shown.clear()
            hashes.clear()
            first = None

    for raw in lines:
        line, hashed, is_own = _measure(raw)
        if not isinstance(line, LeafLine) or is_own:
            end_run()
            measured.append(Own(line, hashed) if isinstance(line, LeafLine) else line)
            continue
        if first is not None and (line.leaf, line.position) != (first.leaf + len(shown), first.position + len(shown)):
            end_run()
        first = first or line
        shown.append(_SHOWN if line.record else _EXPIRED if line.expired else _HIDDEN)
        hashes += hashed
    end_run()
    return measured


def _measure(raw: bytes) -> tuple[Line, bytes, bool]:
    """Gives a line, of a leaf its hash, and whether it is to be looked at by itself."""
    try:
        line = read_line(raw)
        if not isinstance(line, LeafLine):
            return line, b"", False
        is_own = not line.position or line.head is not None
        if line.record:
            if commitment(line.salt, line.record) != line.entry:
                raise Finding(Kind.CHANGED, f"leaf {line.leaf}")
            is_own = check_record(line.record) == _STATER or is_own
    except FormatError:
        raise Finding(Kind.FORMAT, f"the line that begins {raw[:24].decode('ascii', 'replace')!r}") from None
    return line, leaf_hash(line.entry), is_own


class Verification:
    """Puts measured lines together.

    Args:
        known: What is known from elsewhere.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._section: _Open | None = None
        self.sections: list[Section] = []

    def add(self, lines: Iterable[Measured]) -> None:
        """Takes the next lines.

        Raises:
            Finding: Something is wrong.
        """
        for each in lines:
            if isinstance(each, Header):
                if self._section is not None:
                    raise Finding(Kind.FORMAT, "a trail has no end")
                self._section = _Open(each, self._known)
            elif self._section is None:
                raise Finding(Kind.FORMAT, "the first line is not the header of a trail")
            elif isinstance(each, End):
                self.sections.append(self._section.end(each))
                self._section = None
            else:
                self._section.add(each)

    def end(self) -> list[Section]:
        """Ends it; gives what was verified.

        Raises:
            Finding: The last trail has no end.
        """
        if self._section is not None or not self.sections:
            raise Finding(Kind.FORMAT, "the last line is missing")
        return self.sections


class _Open:
    """A trail that is being read."""

    def __init__(self, header: Header, known: Known) -> None:
        self._header = header
        self._known = known
        self._key = known.keys.get(header.origin)
        if self._key is None:
            raise Finding(Kind.SIGNATURE, f"no key is known for {header.origin}")
        self._checkpoint, self._witnesses = self._open(header.checkpoint, "the newest checkpoint")
        if len(self._witnesses) < known.quorum:
            raise Finding(Kind.WITNESSES, f"{len(self._witnesses)} of {known.quorum}")
        self._seen = known.seen.get(header.origin, {})
        size = self._checkpoint.size
        if max(self._seen, default=0) > size and self._seen.get(size) != self._checkpoint.root:
            raise Finding(Kind.FORKED, f"a tree of {max(self._seen)} leaves was seen, this one has {size}")
        # Those seen before were compared with each other then: it is enough that the largest is passed.
        self._due = max((each for each in self._seen if each <= size), default=0)
        self._frontier = Frontier()
        self._good = self._passed = 0
        self._head = Head(0, chain_start(header.origin, header.workspace))
        self._chain_began = self._asked_began = False
        self._events = self._expired = self._leaves = self._hidden = self._before = 0
        self._complete_to = self._highest_expired = self._excused = 0

    def _open(self, note: str, place: str) -> tuple[Checkpoint, frozenset[str]]:
        assert self._key is not None  # noqa: S101  # checked when the section began
        try:
            checkpoint, cosigned = open_checkpoint(note, self._key, self._known.witnesses)
        except (FormatError, NoteError):
            raise Finding(Kind.SIGNATURE, place) from None
        return checkpoint, frozenset(cosigned)

    def add(self, measured: Run | Own | Gap | CheckpointLine) -> None:
        match measured:
            case Run():
                self._run(measured)
            case Own():
                self._alone(measured.line, measured.hashed)
            case Gap():
                self._gap(measured)
            case CheckpointLine():
                self._intermediate(measured)

    def _run(self, run: Run) -> None:
        self._require_place(run.leaf)
        for offset, shown in enumerate(run.shown):
            hashed = run.hashes[_HASH_SIZE * offset : _HASH_SIZE * (offset + 1)]
            self._frontier.append(hashed)
            self._compare()
            self._chained(run.leaf + offset, run.position + offset, shown, hashed)
        self._leaves += len(run.shown)

    def _alone(self, line: LeafLine, hashed: bytes) -> None:
        self._require_place(line.leaf)
        self._frontier.append(hashed)
        self._compare()
        self._leaves += 1
        if line.position:
            self._chained(line.leaf, line.position, _OWN if line.record else _HIDDEN, hashed)
        if line.record:
            self._own(line, Record(line.record))
        elif line.head is not None:
            raise Finding(Kind.FORMAT, f"leaf {line.leaf} is no statement of the chains before it")

    def _require_place(self, leaf: int) -> None:
        if leaf != self._frontier.size:
            raise Finding(Kind.FORMAT, f"leaf {leaf} comes after {self._frontier.size} leaves")

    def _chained(self, leaf: int, position: int, shown: int, hashed: bytes) -> None:
        """Takes the next leaf of the chain. What is not shown may stand before the first that is, or after the last."""
        self._chain_began = True
        if position != self._head.position + 1:
            raise Finding(Kind.OMITTED, f"position {self._head.position + 1}, before leaf {leaf}")
        self._head = Head(position, chain_next(self._head.chain, hashed))
        if shown == _HIDDEN:
            self._hidden += 1
            return
        if shown == _OWN:
            # What the log says of retention is shown wherever it stands.
            self._events += 1
            return
        if not self._asked_began:
            self._before, self._hidden, self._asked_began = self._hidden, 0, True
        if self._hidden:
            raise Finding(Kind.MISSING, f"position {position - self._hidden} or before")
        if shown == _SHOWN:
            self._events += 1
        else:
            self._expired += 1
            self._highest_expired = position

    def _own(self, line: LeafLine, record: Record) -> None:
        """Takes what the log says of itself."""
        if (
            record.emitter == _STATER
            and record["name"] == RETENTION
            and record.get("workspace", "") == self._header.workspace
        ):
            self._excused = max(self._excused, int(record.get("count", 0)))
        if line.head is None:
            return
        # It is of the tree just before itself.
        if (record.emitter, record["name"], record.get("size")) != (_STATER, STATEMENT, str(line.leaf)):
            raise Finding(Kind.FORMAT, f"leaf {line.leaf} is no statement of the chains before it")
        try:
            root = bytes.fromhex(record.get("digest", ""))
            verify_in_map(root, map_key(self._header.workspace), line.head, line.path)
        except ProofError:
            raise Finding(
                Kind.OMITTED, f"the statement at leaf {line.leaf} has another head for this workspace"
            ) from None
        if not self._chain_began and line.head.position:
            # The first statement: the chain goes on from where it says.
            self._head, self._chain_began = line.head, True
        if line.head != self._head:
            raise Finding(
                Kind.OMITTED, f"position {min(line.head.position, self._head.position) + 1}, before leaf {line.leaf}"
            )
        self._complete_to = line.head.position

    def _gap(self, line: Gap) -> None:
        parts = gap_ranges(line.part)
        if line.part.start != self._frontier.size or len(parts) != len(line.roots) or not parts:
            raise Finding(Kind.FORMAT, f"a gap comes after {self._frontier.size} leaves")
        for part, root in zip(parts, line.roots, strict=True):
            self._frontier.append_subtree(root, part.end - part.start)
            self._compare()

    def _intermediate(self, line: CheckpointLine) -> None:
        checkpoint, _ = self._open(line.note, f"the checkpoint after leaf {self._frontier.size}")
        if checkpoint.size != self._frontier.size:
            raise Finding(
                Kind.FORMAT, f"a checkpoint stands after {self._frontier.size} leaves that is of another size"
            )
        self._require_root(checkpoint)

    def _require_root(self, checkpoint: Checkpoint) -> None:
        if self._frontier.root() != checkpoint.root:
            raise Finding(Kind.TREE, f"between leaf {self._good} and leaf {checkpoint.size - 1}")
        self._good = checkpoint.size

    def _compare(self) -> None:
        """Compares the tree as it is now with a checkpoint of this size that was seen before."""
        seen = self._seen.get(self._frontier.size)
        if seen is None:
            return
        if seen != self._frontier.root():
            raise Finding(Kind.FORKED, f"the tree of {self._frontier.size} leaves had another root")
        self._passed = self._frontier.size

    def end(self, line: End) -> Section:
        if self._frontier.size != self._checkpoint.size or line.leaves != self._leaves:
            raise Finding(Kind.FORMAT, f"it ends after {self._frontier.size} of {self._checkpoint.size} leaves")
        self._require_root(self._checkpoint)
        if self._passed < self._due:
            raise Finding(Kind.FORKED, f"nothing is shown of the tree of {self._due} leaves that was seen before")
        if self._highest_expired > self._excused:
            raise Finding(Kind.MISSING, f"position {self._excused + 1} or after")
        return Section(
            self._checkpoint,
            self._header.workspace,
            self._events,
            self._expired,
            self._complete_to,
            self._head.position,
            self._before,
            self._hidden,
            self._witnesses,
        )
