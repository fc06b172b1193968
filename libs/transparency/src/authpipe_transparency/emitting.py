"""What emitters signed, in an export: every event that is shown is one of a batch that its emitter signed, at its place in it.

So whoever has taken over the log, its database and its process, cannot invent an event, give it to another emitter, or
change one before it becomes a leaf. That nothing was dropped is what chains are for, and the emitters' own numbers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from authpipe_transparency.batches import batch_statement, verify_batch
from authpipe_transparency.errors import FormatError, ProofError
from authpipe_transparency.events import parse_time
from authpipe_transparency.exports import BatchLine, CertificateLine
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.merkle import HASH_SIZE, Frontier, Range, gap_ranges

# So much may an emitter's clock be ahead of that of who issued its certificate.
_SKEW = dt.timedelta(minutes=5)


class Certified(NamedTuple):
    """What a certificate says.

    Args:
        key: Its public key: SubjectPublicKeyInfo, DER.
        emitter: The path of its SPIFFE id.
        until: When it ends.
    """

    key: bytes
    emitter: str
    until: dt.datetime


# Gives what a chain (DER, leaf first) says when it leads to the CA that is known; raises ProofError when it does not.
VerifyChain = Callable[[Sequence[bytes]], Certified]


def verify_signature(line: BatchLine) -> None:
    """Returns when a batch is signed with the key that it names; whose key that is, certificates say.

    Raises:
        Finding: EMITTER: it is not.
    """
    try:
        statement = batch_statement(line.emitter, line.sequence, line.root, line.events)
        verify_batch(_key(line.key), statement, line.signature)
    except (ProofError, ValueError, UnsupportedAlgorithm):
        raise Finding(Kind.EMITTER, f"the batch at leaf {line.leaf}") from None


@lru_cache(256)
def _key(data: bytes) -> object:
    return load_der_public_key(data)


class BatchTree:
    """The tree that an emitter signed, of the events that are shown of a batch, in order, and the roots of what is not.

    Args:
        line: The batch.
    """

    def __init__(self, line: BatchLine) -> None:
        self._line = line
        self._frontier = Frontier()
        self._roots = list(line.roots)

    def take(self, leaf: int, emitter: str, sequence: int, hashes: bytes) -> None:
        """Takes events that stand beside each other.

        Args:
            leaf: The index of the first.
            emitter: Who says them.
            sequence: The emitter's number of the first.
            hashes: The leaf hash of each event's own encoding, 32 bytes each.

        Raises:
            Finding: EMITTER: they are none of the batch.
        """
        line, at, size = self._line, leaf - self._line.leaf, len(hashes) // HASH_SIZE
        is_there = self._frontier.size <= at <= line.events - size
        if not is_there or (emitter, sequence) != (line.emitter, line.sequence + at):
            raise Finding(Kind.EMITTER, f"leaf {leaf}")
        self._skip(at)
        self._frontier.extend(hashes)

    def end(self) -> None:
        """Ends it.

        Raises:
            Finding: EMITTER: it is not as it was signed.
        """
        self._skip(self._line.events)
        if self._roots or self._frontier.root() != self._line.root:
            raise Finding(Kind.EMITTER, f"the batch at leaf {self._line.leaf}")

    def _skip(self, to: int) -> None:
        """Takes what is not shown, by its roots."""
        parts = gap_ranges(Range(self._frontier.size, to))
        roots, self._roots = self._roots[: len(parts)], self._roots[len(parts) :]
        for part, root in zip(parts, roots, strict=False):
            self._frontier.append_subtree(root, part.end - part.start)


class Emitters:
    """Puts batches together with the events that are shown of them, in order.

    Args:
        verify_chain: Verifies certificates; none: whose keys they are is not looked at.
    """

    def __init__(self, verify_chain: VerifyChain | None) -> None:
        self._verify_chain = verify_chain
        self._certified: dict[tuple[bytes, str], dt.datetime] = {}
        # The batch that is open; without a tree, when its events were compared with what was signed.
        self._line: BatchLine | None = None
        self._tree: BatchTree | None = None
        self._until: dt.datetime | None = None
        self.batches = 0

    def certificate(self, line: CertificateLine) -> None:
        """Takes a certificate.

        Raises:
            Finding: EMITTER: it does not lead to the CA that is known.
        """
        if self._verify_chain is None:
            return
        try:
            key, emitter, until = self._verify_chain(line.chain)
        except ProofError:
            raise Finding(Kind.EMITTER, f"a certificate after {self.batches} batches is not of the CA") from None
        self._certified[key, emitter] = max(until, self._certified.get((key, emitter), until))

    def begin(self, line: BatchLine, *, is_whole: bool = False) -> None:
        """Takes a batch whose signature was verified; what follows are its events.

        Args:
            line: The batch.
            is_whole: Whether all of its events were compared with what was signed.

        Raises:
            Finding: EMITTER: the batch before it is not as it was signed, or this one has no certificate of its emitter.
        """
        self.end()
        self._line, self._tree = line, None if is_whole else BatchTree(line)
        if self._verify_chain is not None:
            self._until = self._certified.get((line.key, line.emitter))
            if self._until is None:
                raise Finding(Kind.EMITTER, f"the batch at leaf {line.leaf} has no certificate of {line.emitter}")

    def take(self, leaf: int, emitter: str, sequence: int, hashes: bytes, latest: str) -> None:
        """Takes events that stand beside each other.

        Args:
            leaf: The index of the first.
            emitter: Who says them.
            sequence: The emitter's number of the first.
            hashes: The leaf hash of each event's own encoding, 32 bytes each.
            latest: When the latest was.

        Raises:
            Finding: EMITTER: they are none of the batch.
        """
        if self._line is None:
            raise Finding(Kind.EMITTER, f"leaf {leaf}")
        if self._tree is not None:
            self._tree.take(leaf, emitter, sequence, hashes)
        try:
            if self._until is not None and parse_time(latest) > self._until + _SKEW:
                raise Finding(Kind.EMITTER, f"leaf {leaf} is later than the certificate of {emitter}")
        except FormatError:
            raise Finding(Kind.FORMAT, f"leaf {leaf}") from None

    def end(self, size: int | None = None) -> None:
        """Ends the batch that is open.

        Args:
            size: Only if it is in the tree of so many leaves as a whole.

        Raises:
            Finding: EMITTER: it is not as it was signed.
        """
        if self._line is None or (size is not None and self._line.leaf + self._line.events > size):
            return
        if self._tree is not None:
            self._tree.end()
        self._line = self._tree = self._until = None
        self.batches += 1
