"""Checkpoints: the head of a trail's tree, signed elsewhere, when it is proved that the tree extends the one signed last.

Whoever can write to the log's database can write another tree there; nobody signs it. Signing stops rather than fork.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import SignedLaterError
from authpipe_transparency import (
    LOG_KEY,
    Checkpoint,
    Frontier,
    Note,
    Range,
    SignatureLine,
    VerifierKey,
    consistency_ranges,
)


class Signer(Protocol):
    """keyservice audit-log."""

    async def sign(self, checkpoint: Checkpoint, old_size: int, proof: Sequence[bytes]) -> bytes:
        """Has a checkpoint signed; 64 bytes.

        Raises:
            SignedLaterError: It has signed another tree last; its size is in the error.
            DomainError: It does not sign.
        """

    async def public_key(self) -> bytes:
        """Gives the verification key; 32 bytes."""


class Growing(Protocol):
    """The trails as they grow."""

    async def frontier(self, trail: Trail) -> Frontier:
        """Gives a trail's tree as it stands."""


class Trees(Protocol):
    """What the trees are made of."""

    async def roots(self, trail: Trail, parts: Sequence[Range]) -> list[bytes]:
        """Gives the root hashes of subtrees."""


class Kept(Protocol):
    """The checkpoints we have."""

    async def newest(self, trail: Trail) -> tuple[int, str]:
        """Gives the size and note of the newest; 0 and nothing before the first."""

    async def put_checkpoint(self, trail: Trail, size: int, note: str) -> None:
        """Keeps one."""


class Checkpoints:
    """Has checkpoints signed.

    Args:
        log: The trails as they grow.
        trees: What their trees are made of.
        kept: Where they are kept.
        signer: Who signs.
        name: The log's name, which the origins of its trails begin with.
    """

    def __init__(self, log: Growing, trees: Trees, kept: Kept, signer: Signer, name: str) -> None:
        self._log = log
        self._trees = trees
        self._kept = kept
        self._signer = signer
        self._name = name

    async def advance(self, trail: Trail) -> int:
        """Has the trail's tree signed as it stands, if it grew; gives the size of the newest checkpoint's tree.

        Raises:
            DomainError: It is not signed: the signer is away, or the tree does not extend what was signed last.
        """
        signed, _ = await self._kept.newest(trail)
        frontier = await self._log.frontier(trail)
        if frontier.size == signed:
            return signed
        checkpoint = Checkpoint(trail.origin(self._name), frontier.size, frontier.root())
        try:
            signature = await self._sign(trail, checkpoint, signed)
        except SignedLaterError as error:
            # It signed, and we died before we kept it. Where our tree is smaller than that, it was set back: no proof
            # can be made, and the error goes on.
            if error.size > frontier.size:
                raise
            signature = await self._sign(trail, checkpoint, error.size)
        key = VerifierKey(checkpoint.origin, LOG_KEY, await self._signer.public_key())
        key.verify(checkpoint.text, signature)
        note = Note(checkpoint.text, (SignatureLine(key.name, key.key_id, signature),))
        await self._kept.put_checkpoint(trail, checkpoint.size, str(note))
        return checkpoint.size

    async def _sign(self, trail: Trail, checkpoint: Checkpoint, old_size: int) -> bytes:
        parts = consistency_ranges(min(old_size, checkpoint.size), checkpoint.size)
        proof = await self._trees.roots(trail, parts)
        return await self._signer.sign(checkpoint, old_size, proof)
