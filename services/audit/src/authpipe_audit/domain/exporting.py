"""The export of a workspace's events of one trail, page by page, each line as authpipe_transparency.exports says.

An export is of one checkpoint. It begins at a statement of all chains before the first event (or where the chain begins)
and ends at one after the last, so that nothing can be left out between; what the log has said about retention comes too.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol, Self

from authpipe_audit.domain.attesting import StoredBatch, batch_line, certificate_line
from authpipe_audit.domain.checkpointing import Signer, Trees
from authpipe_audit.domain.stating import map_leaves
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import NoCheckpointError, PageTokenError
from authpipe_transparency import LOG_KEY, Head, Range, VerifierKey, gap_ranges, map_key, map_path
from authpipe_transparency.exports import CheckpointLine, End, Gap, Header, LeafLine, Line, write_line

# Of the workspace's, and the rest of their last batch: a page is a message, and those end at 4 MiB.
_PAGE_LEAVES = 500
_CHECKPOINTS = 64
_RETENTION = b'"name":"BODIES_EXPIRED"'


class StoredLeaf(NamedTuple):
    """A leaf as it is stored; record and salt are empty when its body is gone."""

    leaf: int
    position: int
    entry: bytes
    record: bytes
    salt: bytes


class Stored(Protocol):
    """What is stored."""

    async def positions(
        self, trail: Trail, workspace: str, since: datetime | None, until: datetime | None, size: int
    ) -> tuple[int, int]:
        """Gives the first and last position of a workspace's events of a time; 0 and 0: there are none."""

    async def leaf_of(self, trail: Trail, workspace: str, position: int) -> int:
        """Gives the index of the leaf at a position of a chain."""

    async def statement_before(self, trail: Trail, leaf: int) -> int:
        """Gives the leaf of the last statement before a leaf; -1: there is none."""

    async def statement_after(self, trail: Trail, leaf: int, size: int) -> int:
        """Gives the leaf of the first statement after a leaf, in a tree of a size; -1: there is none."""

    async def last_retention(self, trail: Trail, workspace: str, size: int) -> int:
        """Gives the position of the last event that tells that bodies are gone; -1: there is none."""

    async def chain_leaves(
        self, trail: Trail, workspace: str, positions: tuple[int, int], leaves: tuple[int, int], limit: int
    ) -> list[StoredLeaf]:
        """Gives leaves of a chain: from a position to one, from a leaf and before one."""

    async def leaf(self, trail: Trail, index: int) -> StoredLeaf:
        """Gives one leaf."""

    async def checkpoints(self, trail: Trail, size: int, amount: int) -> dict[int, str]:
        """Gives about so many checkpoints before a size, by their size."""

    async def batches(self, trail: Trail, leaves: Sequence[int]) -> list[StoredBatch]:
        """Gives the batches that leaves are of, each once, in their order."""


class Notes(Protocol):
    """The checkpoints we have."""

    async def note(self, trail: Trail, size: int) -> str:
        """Gives the checkpoint of a size, with its cosignatures; empty: there is none."""


class Chains(Protocol):
    """Where chains stood."""

    async def heads(self, trail: Trail, size: int) -> dict[str, Head]:
        """Gives the head of every workspace's chain in the tree of a size."""


class Cursor(NamedTuple):
    """What an export shows, and how far it is. It holds nothing that is not the caller's to know.

    Args:
        size: Of the checkpoint's tree.
        seen: A size that the reader has a checkpoint of; 0: none.
        first: The first position whose body is shown, and
        last: the last.
        begin: The first position of the chain that is shown, and
        finish: the last.
        anchor: The leaf of the statement before; -1: none.
        closing: The leaf of the statement after; -1: none.
        leaf: The next leaf.
        shown: How many leaves were shown.
    """

    size: int
    seen: int
    first: int
    last: int
    begin: int
    finish: int
    anchor: int
    closing: int
    leaf: int = 0
    shown: int = 0

    def encode(self) -> str:
        """Gives it as text."""
        return base64.urlsafe_b64encode(".".join(map(str, self)).encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Reads it.

        Raises:
            PageTokenError: It is none.
        """
        try:
            numbers = base64.urlsafe_b64decode(text).decode()
        except (ValueError, binascii.Error):
            raise PageTokenError from None
        if not re.fullmatch(r"(?:-?[0-9]{1,18}\.){9}[0-9]{1,18}", numbers, re.ASCII):
            raise PageTokenError
        return cls(*map(int, numbers.split(".")))


class Exporting:
    """Exports.

    Args:
        stored: What is stored.
        notes: The checkpoints.
        chains: Where chains stood.
        trees: What the trees are made of.
        name: The log's name.
        signer: Who signs checkpoints: its key stands in an export, for whoever pins it on first use.
    """

    def __init__(  # one per part
        self, stored: Stored, notes: Notes, chains: Chains, trees: Trees, name: str, signer: Signer
    ) -> None:
        self._stored = stored
        self._notes = notes
        self._chains = chains
        self._trees = trees
        self._name = name
        self._signer = signer

    async def begin(  # one per choice
        self,
        trail: Trail,
        workspace: str,
        since: datetime | None,
        until: datetime | None,
        size: int,
        seen: int,
    ) -> tuple[bytes, Cursor]:
        """Begins an export of a checkpoint's tree; gives its first line, and how it goes on.

        Raises:
            NoCheckpointError: There is no such checkpoint.
        """
        note = await self._notes.note(trail, size)
        if not note:
            raise NoCheckpointError
        first, last = await self._stored.positions(trail, workspace, since, until, size)
        begin, anchor, finish, closing = 1, -1, last, -1
        if last:
            if first > 1:
                anchor = await self._stored.statement_before(trail, await self._stored.leaf_of(trail, workspace, first))
                begin = (await self._head(trail, workspace, anchor)).position + 1 if anchor >= 0 else 1
            finish = max(last, await self._stored.last_retention(trail, workspace, size))
            closing = await self._stored.statement_after(
                trail, await self._stored.leaf_of(trail, workspace, finish), size
            )
            if closing >= 0:
                finish = (await self._head(trail, workspace, closing)).position
        header = Header(
            trail.origin(self._name),
            workspace,
            since.isoformat() if since else "",
            until.isoformat() if until else "",
            str(VerifierKey(trail.origin(self._name), LOG_KEY, await self._signer.public_key())),
            note,
        )
        cursor = Cursor(size, min(seen, size), first, last, begin, finish, anchor, closing)
        return write_line(header), cursor

    async def page(self, trail: Trail, workspace: str, cursor: Cursor) -> tuple[bytes, Cursor | None]:
        """Gives the next lines, and how it goes on; none: that was all."""
        leaves = await self._stored.chain_leaves(
            trail, workspace, (cursor.begin, cursor.finish), (cursor.leaf, cursor.size), _PAGE_LEAVES
        )
        more = len(leaves) == _PAGE_LEAVES
        end = cursor.size
        if more:
            # A batch is shown on one page.
            (last,) = await self._stored.batches(trail, [leaves[-1].leaf])
            end = last.end
            leaves += await self._stored.chain_leaves(
                trail, workspace, (cursor.begin, cursor.finish), (leaves[-1].leaf + 1, end), end
            )
        lines: list[LeafLine] = [_shown(leaf, cursor) for leaf in leaves]
        statements = [each for each in {cursor.anchor, cursor.closing} if cursor.leaf <= each < end]
        lines = sorted([*lines, *[await self._statement(trail, workspace, each) for each in statements]])
        notes = await self._stored.checkpoints(trail, cursor.size, _CHECKPOINTS)
        signed = await self._signed(trail, [each.leaf for each in lines if each.record])
        written = await self._write(trail, lines, signed, Range(cursor.leaf, end), notes, cursor.seen)
        shown = cursor.shown + len(lines)
        if more:
            return written, cursor._replace(leaf=end, shown=shown)
        return written + write_line(End(shown)), None

    async def _signed(self, trail: Trail, shown: Sequence[int]) -> dict[int, list[Line]]:
        """Gives what stands before the first leaf of each batch of which a record is shown, by that leaf."""
        signed: dict[int, list[Line]] = {}
        chains: set[tuple[bytes, ...]] = set()
        for batch in await self._stored.batches(trail, shown):
            of_it = shown[bisect_left(shown, batch.leaf) : bisect_left(shown, batch.end)]
            certificate = [] if batch.chain in chains else [certificate_line(batch)]
            chains.add(batch.chain)
            signed[of_it[0]] = [*certificate, batch_line(batch, of_it)]
            # A large batch takes a millisecond, and others wait.
            await asyncio.sleep(0)
        return signed

    async def _write(  # one per kind of line
        self,
        trail: Trail,
        leaves: Sequence[LeafLine],
        signed: Mapping[int, Sequence[Line]],
        part: Range,
        notes: Mapping[int, str],
        seen: int,
    ) -> bytes:
        """Writes leaves, what emitters signed of them, what lies between them, and the checkpoints on the way."""
        breaks = sorted(each for each in {*notes, seen} if part.start < each < part.end)
        lines: list[Line] = []
        gaps: list[tuple[int, Range]] = []
        at = part.start
        for leaf in [*leaves, None]:
            until = leaf.leaf if leaf else part.end
            while at < until:
                cut = min(until, next((each for each in breaks if each > at), until))
                gaps.append((len(lines), Range(at, cut)))
                lines.append(Gap(Range(at, cut), ()))
                at = cut
                if at in notes and at < part.end:
                    lines.append(CheckpointLine(notes[at]))
            if leaf:
                lines += signed.get(leaf.leaf, ())
                lines.append(leaf)
                at += 1
                if at in notes and at < part.end:
                    lines.append(CheckpointLine(notes[at]))
        pieces = [gap_ranges(gap) for _, gap in gaps]
        roots = iter(await self._trees.roots(trail, [piece for parts in pieces for piece in parts]))
        for (place, gap), parts in zip(gaps, pieces, strict=True):
            lines[place] = Gap(gap, [next(roots) for _ in parts])
        return b"".join(write_line(line) for line in lines)

    async def _statement(self, trail: Trail, workspace: str, leaf: int) -> LeafLine:
        stored = await self._stored.leaf(trail, leaf)
        heads = await self._chains.heads(trail, leaf)
        path = map_path(map_leaves(heads), map_key(workspace))
        head = heads.get(workspace)
        # A statement of the time before the workspace had events says nothing of it: it is only a leaf.
        return LeafLine(leaf, 0, stored.entry, stored.record, stored.salt, head=head, path=path if head else ())

    async def _head(self, trail: Trail, workspace: str, statement: int) -> Head:
        return (await self._chains.heads(trail, statement)).get(workspace, Head(0, b""))


def _shown(leaf: StoredLeaf, cursor: Cursor) -> LeafLine:
    """Shows a leaf: with its body in the time that was asked for, and where it tells of retention."""
    asked = cursor.first <= leaf.position <= cursor.last
    if asked or _RETENTION in leaf.record:
        return LeafLine(leaf.leaf, leaf.position, leaf.entry, leaf.record, leaf.salt, expired=not leaf.record)
    return LeafLine(leaf.leaf, leaf.position, leaf.entry)
