"""What emitters signed, as an export shows it: so that nobody has to believe us that an event is its emitter's.

A batch is shown before the first of its events. Of those events whose record is not shown, of other workspaces or beyond
retention, the roots of their subtrees stand for them: we keep the leaf hash of each event, of which nobody guesses the
event, for it has 16 random bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authpipe_transparency import Frontier, Range, gap_ranges, root_of
from authpipe_transparency.exports import BatchLine, CertificateLine

_HASH_SIZE = 32


class StoredBatch(NamedTuple):
    """A batch as it is stored.

    Args:
        leaf: The index of its first leaf.
        emitter: Who signed it.
        sequence: The emitter's number of its first event.
        hashes: The leaf hash of each event's encoding, 32 bytes each.
        signature: The emitter's.
        chain: The emitter's certificate chain, DER, its own first.
    """

    leaf: int
    emitter: str
    sequence: int
    hashes: bytes
    signature: bytes
    chain: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """Gives the index after its last leaf."""
        return self.leaf + len(self.hashes) // _HASH_SIZE


def certificate_line(batch: StoredBatch) -> CertificateLine:
    """Shows whose key signed a batch."""
    return CertificateLine(batch.chain)


def batch_line(batch: StoredBatch, shown: Sequence[int]) -> BatchLine:
    """Shows a batch.

    Args:
        batch: Which.
        shown: The indices of those of its leaves whose records are shown, in their order.
    """
    hashes = [batch.hashes[at : at + _HASH_SIZE] for at in range(0, len(batch.hashes), _HASH_SIZE)]
    frontier, roots = Frontier(), []
    for leaf in [*shown, batch.end]:
        for part in gap_ranges(Range(frontier.size, leaf - batch.leaf)):
            roots.append(root_of(hashes[part.start : part.end]))
            frontier.append_subtree(roots[-1], part.end - part.start)
        if frontier.size < len(hashes):
            frontier.append(hashes[frontier.size])
    key = x509.load_der_x509_certificate(batch.chain[0]).public_key()
    return BatchLine(
        batch.leaf,
        batch.sequence,
        len(hashes),
        batch.emitter,
        frontier.root(),
        batch.signature,
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        roots,
    )
