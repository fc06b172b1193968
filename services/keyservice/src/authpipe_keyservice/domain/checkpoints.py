"""What may be signed: a tree that is proved to extend the one signed last, and never two roots for one size."""

from __future__ import annotations

from collections.abc import Sequence

from authpipe_keyservice.errors import CheckpointBaseError, ForkError
from authpipe_transparency import Checkpoint, ProofError, verify_consistency


def require_growth(signed: Checkpoint | None, wanted: Checkpoint, old_size: int, proof: Sequence[bytes]) -> None:
    """Returns when a checkpoint may be signed after the last one.

    Args:
        signed: The one signed last; none: this is the first of its log.
        wanted: The one to sign.
        old_size: From which tree the proof leads.
        proof: RFC 6962, section 2.1.2.

    Raises:
        ForkError: It is smaller, or is not proved to extend it.
        CheckpointBaseError: The proof leads from another tree.
    """
    if signed is None:
        if old_size or proof:
            raise CheckpointBaseError(signed_size=0)
        return
    if wanted.size < signed.size:
        raise ForkError
    if old_size != signed.size:
        raise CheckpointBaseError(signed_size=signed.size)
    try:
        verify_consistency(signed.size, signed.root, wanted.size, wanted.root, proof)
    except ProofError:
        raise ForkError from None
