"""Verifying an export: from top to bottom, against what the verifier knows from elsewhere, and nothing the log says.

Known from elsewhere are the log's key, the checkpoints that were seen before, and, where there are any, the witnesses.
Lines are first measured (`measuring`, which runs in several processes); here they are put together, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from authpipe_transparency.chains import Head, chain_next, chain_over, chain_start, map_key, verify_in_map
from authpipe_transparency.emitting import Emitters, VerifyChain
from authpipe_transparency.errors import FormatError, ProofError
from authpipe_transparency.events import Record
from authpipe_transparency.exports import CertificateLine, CheckpointLine, End, Gap, Header, LeafLine
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.measuring import HIDDEN, SHOWN, STATER, Batch, Measured, Own, Run
from authpipe_transparency.merkle import HASH_SIZE, Frontier, gap_ranges, leaf_hash
from authpipe_transparency.notes import Checkpoint, NoteError, VerifierKey, open_checkpoint

STATEMENT, RETENTION = "CHAINS_STATED", "BODIES_EXPIRED"
# What the log says of itself is shown wherever it stands.
_OWN = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What the verifier knows from elsewhere.

    Args:
        keys: The log's verifier keys, by origin.
        seen: Of each origin the checkpoints seen before: root by size.
        witnesses: The witnesses' keys.
        quorum: How many of them must have cosigned.
        verify_chain: Verifies the emitters' certificates; none: their CA is not known, and whose keys signed is not looked at.
    """

    keys: Mapping[str, VerifierKey]
    seen: Mapping[str, Mapping[int, bytes]] = field(default_factory=dict)
    witnesses: Sequence[VerifierKey] = ()
    quorum: int = 0
    verify_chain: VerifyChain | None = None


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
        batches: How many batches of emitters the events that were shown are of.
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
    batches: int


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
        self._emitters = Emitters(known.verify_chain)
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

    def add(self, measured: Run | Own | Gap | CheckpointLine | CertificateLine | Batch) -> None:
        match measured:
            case Run():
                self._run(measured)
            case Own():
                self._alone(measured.line, measured.hashed)
            case Gap():
                self._gap(measured)
            case CheckpointLine():
                self._intermediate(measured)
            case CertificateLine():
                self._emitters.certificate(measured)
            case Batch():
                # It stands before the first of its events that is shown. What is missing before it is told as that, and not as a
                # batch that nobody signed.
                line = measured.line
                if not line.leaf <= self._frontier.size < line.leaf + line.events:
                    raise Finding(
                        Kind.FORMAT, f"the batch at leaf {line.leaf} comes after {self._frontier.size} leaves"
                    )
                self._emitters.begin(line, is_whole=measured.is_whole)

    def _run(self, run: Run) -> None:
        self._require_place(run.leaf)
        if self._is_plain(run):
            self._frontier.extend(run.hashes)
            self._head = Head(run.position + len(run.shown) - 1, chain_over(self._head.chain, run.hashes))
            self._events += len(run.shown)
        else:
            self._one_by_one(run)
        self._leaves += len(run.shown)
        if run.emitter:
            self._emitters.take(run.leaf, run.emitter, run.sequence, run.events, run.latest)

    def _is_plain(self, run: Run) -> bool:
        """Says whether leaves go on with the chain, are all shown, and no tree among them was seen before: they are taken at once."""
        size, amount = self._frontier.size, len(run.shown)
        return (
            self._asked_began
            and not self._hidden
            and run.position == self._head.position + 1
            and run.shown.count(SHOWN) == amount
            and not any(size < each <= size + amount for each in self._seen)
        )

    def _one_by_one(self, run: Run) -> None:
        for offset, shown in enumerate(run.shown):
            hashed = run.hashes[HASH_SIZE * offset : HASH_SIZE * (offset + 1)]
            self._frontier.append(hashed)
            self._compare()
            self._chained(run.leaf + offset, run.position + offset, shown, hashed)

    def _alone(self, line: LeafLine, hashed: bytes) -> None:
        self._require_place(line.leaf)
        self._frontier.append(hashed)
        self._compare()
        self._leaves += 1
        if line.position:
            self._chained(line.leaf, line.position, _OWN if line.record else HIDDEN, hashed)
        if line.record:
            record = Record(line.record)
            self._emitters.take(line.leaf, record.emitter, record.sequence, leaf_hash(record.event), record["time"])
            self._own(line, record)
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
        if shown == HIDDEN:
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
        if shown == SHOWN:
            self._events += 1
        else:
            self._expired += 1
            self._highest_expired = position

    def _own(self, line: LeafLine, record: Record) -> None:
        """Takes what the log says of itself."""
        if (
            record.emitter == STATER
            and record["name"] == RETENTION
            and record.get("workspace", "") == self._header.workspace
        ):
            self._excused = max(self._excused, int(record.get("count", 0)))
        if line.head is None:
            return
        # It is of the tree just before itself.
        if (record.emitter, record["name"], record.get("size")) != (STATER, STATEMENT, str(line.leaf)):
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
        # What an emitter has not signed is told as that, and not as a tree that is another.
        self._emitters.end(checkpoint.size)
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
        self._emitters.end()
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
            self._emitters.batches,
        )
