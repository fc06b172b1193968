"""What an emitter signs: a batch of its events, in its order, so that one which is dropped, changed or invented shows.

The statement is four lines, each with its newline:

authpipe-audit-batch/v1
<emitter>                     the path of its SPIFFE id
<first sequence> <count>
<root, base64>                the RFC 6962 root over the events' encodings, as leaves

It is signed with ECDSA P-256 over SHA-256, by the key of the emitter's own mTLS leaf. With an audit path in this small
tree, one event of the batch is proved to be the emitter's without the others.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from authpipe_transparency.errors import ProofError
from authpipe_transparency.merkle import leaf_hash, root_of

_ALGORITHM = ec.ECDSA(hashes.SHA256())


def batch_statement(emitter: str, first_sequence: int, root: bytes, count: int) -> bytes:
    """Gives the bytes that are signed."""
    return f"authpipe-audit-batch/v1\n{emitter}\n{first_sequence} {count}\n{base64.b64encode(root).decode()}\n".encode()


def batch_root(events: Sequence[bytes]) -> bytes:
    """Gives the root over a batch of encoded events."""
    return root_of([leaf_hash(event) for event in events])


def sign_batch(key: ec.EllipticCurvePrivateKey, emitter: str, first_sequence: int, events: Sequence[bytes]) -> bytes:
    """Signs a batch; DER."""
    statement = batch_statement(emitter, first_sequence, batch_root(events), len(events))
    return key.sign(statement, _ALGORITHM)


def verify_batch(key: object, statement: bytes, signature: bytes) -> None:
    """Returns when a batch is signed with this public key.

    Raises:
        ProofError: It is not.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ProofError
    try:
        key.verify(signature, statement, _ALGORITHM)
    except InvalidSignature:
        raise ProofError from None
