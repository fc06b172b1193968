"""The Merkle tree of RFC 6962, section 2.1, kept as its frontier: the roots of its full subtrees, largest first.

leaf hash  SHA-256(0x00 ‖ commitment)       node hash  SHA-256(0x01 ‖ left ‖ right)
commitment SHA-256(salt (32) ‖ event)       the salt goes with the body, so a kept hash cannot be guessed
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def commitment(salt: bytes, event: bytes) -> bytes:
    """Commits to an event; 32 bytes."""
    return hashlib.sha256(salt + event).digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hashes a leaf (RFC 6962, section 2.1)."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hashes two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows.

    Args:
        size: How many leaves.
        roots: The roots of its full subtrees, largest first: one per bit of `size`.

    Raises:
        ValueError: The number of roots does not fit the size.
    """

    def __init__(self, size: int = 0, roots: Sequence[bytes] = ()) -> None:
        if len(roots) != size.bit_count():
            raise ValueError("A frontier has one root per bit of its size.")
        self.size = size
        self.roots = list(roots)

    def append(self, hashed: bytes) -> None:
        """Adds a leaf by its hash."""
        size = self.size
        while size & 1:
            hashed = node_hash(self.roots.pop(), hashed)
            size >>= 1
        self.roots.append(hashed)
        self.size += 1

    def root(self) -> bytes:
        """Gives the root hash; of an empty tree SHA-256 of nothing."""
        if not self.roots:
            return hashlib.sha256(b"").digest()
        result = self.roots[-1]
        for root in reversed(self.roots[:-1]):
            result = node_hash(root, result)
        return result
