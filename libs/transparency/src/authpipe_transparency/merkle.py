"""Merkle trees of RFC 6962, section 2.1, and their proofs, verified as RFC 9162, section 2.1 says.

leaf hash  SHA-256(0x00 ‖ entry)       node hash  SHA-256(0x01 ‖ left ‖ right)

Who proves needs hashes of ranges of leaves; where these come from (a database, tiles) is not known here: a proof is
first a list of ranges, and then their hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from authpipe_transparency.errors import ProofError

EMPTY_ROOT = sha256(b"").digest()
HASH_SIZE = 32
_PAIR = 2 * HASH_SIZE


class Range(NamedTuple):
    """The leaves from `start` on and before `end`: one subtree of the tree it belongs to."""

    start: int
    end: int


def leaf_hash(entry: bytes) -> bytes:
    """Hashes an entry of the log; 32 bytes."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hashes two subtrees; 32 bytes."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree that only grows, kept as the roots of its full subtrees, largest first: one for each bit of its size.

    Args:
        size: How many leaves.
        roots: The roots.

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

    def append_subtree(self, hashed: bytes, size: int) -> None:
        """Adds a full subtree by its root.

        Args:
            hashed: Its root.
            size: How many leaves: a power of two.

        Raises:
            ValueError: No full subtree of that size begins here.
        """
        if size < 1 or size & (size - 1) or self.size % size:
            raise ValueError("No full subtree of that size begins here.")
        at = self.size // size
        while at & 1:
            hashed = node_hash(self.roots.pop(), hashed)
            at >>= 1
        self.roots.append(hashed)
        self.size += size

    def extend(self, hashes: bytes) -> None:
        """Adds leaves by their hashes, 32 bytes each: what `append` does, at half its cost where there are many."""
        start = self.size
        for part in gap_ranges(Range(start, start + len(hashes) // HASH_SIZE)):
            level = hashes[HASH_SIZE * (part.start - start) : HASH_SIZE * (part.end - start)]
            while len(level) > HASH_SIZE:
                level = b"".join(
                    [sha256(b"\x01" + level[at : at + _PAIR]).digest() for at in range(0, len(level), _PAIR)]
                )
            self.append_subtree(level, part.end - part.start)

    def root(self) -> bytes:
        """Gives the root hash; of an empty tree SHA-256 of nothing."""
        return fold(self.roots) if self.roots else EMPTY_ROOT


def fold(roots: Sequence[bytes]) -> bytes:
    """Gives the root over adjacent subtrees, largest first (at least one)."""
    result = roots[-1]
    for root in reversed(roots[:-1]):
        result = node_hash(root, result)
    return result


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Gives the root over leaf hashes, or over the roots of equally large full subtrees."""
    frontier = Frontier()
    frontier.extend(b"".join(hashes))
    return frontier.root()


def full_subtrees(whole: Range) -> list[Range]:
    """Cuts a subtree into full ones, largest first; `fold` over their roots is its root."""
    cut, start = [], whole.start
    while start < whole.end:
        size = 1 << (whole.end - start).bit_length() - 1
        cut.append(Range(start, start + size))
        start += size
    return cut


def gap_ranges(part: Range) -> list[Range]:
    """Cuts leaves into full subtrees, from left to right: each the largest that begins there and ends in it."""
    cut, start = [], part.start
    while start < part.end:
        size = 1 << (part.end - start).bit_length() - 1
        if start:
            size = min(size, start & -start)
        cut.append(Range(start, start + size))
        start += size
    return cut


def _split(whole: Range) -> int:
    """Gives where RFC 6962 cuts a tree in two: after the largest power of two that is smaller than its size."""
    return whole.start + (1 << (whole.end - whole.start - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """Gives the subtrees whose roots are the audit path of a leaf (RFC 6962, section 2.1.1), from the leaf upwards.

    Raises:
        ValueError: The tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError("The tree has no such leaf.")
    path, whole = [], Range(0, size)
    while whole.end - whole.start > 1:
        cut = _split(whole)
        left, right = Range(whole.start, cut), Range(cut, whole.end)
        whole, sibling = (left, right) if index < cut else (right, left)
        path.append(sibling)
    return path[::-1]


def consistency_ranges(old_size: int, size: int) -> list[Range]:
    """Gives the subtrees whose roots prove that a tree extends an older one (RFC 6962, section 2.1.2).

    Raises:
        ValueError: The older tree is the larger one.
    """
    if not 0 <= old_size <= size:
        raise ValueError("The older tree is the larger one.")
    if old_size in (0, size):
        return []
    path, whole, is_prefix = [], Range(0, size), True
    while whole.end != old_size:
        cut = _split(whole)
        left, right = Range(whole.start, cut), Range(cut, whole.end)
        if old_size <= cut:
            path.append(right)
            whole = left
        else:
            path.append(left)
            whole, is_prefix = right, False
    if not is_prefix:
        path.append(whole)
    return path[::-1]


def root_from_inclusion(index: int, size: int, hashed: bytes, path: Sequence[bytes]) -> bytes:
    """Gives the root that an audit path leads to (RFC 9162, section 2.1.3.2).

    Args:
        index: The leaf's place.
        size: Of the tree.
        hashed: The leaf's hash.
        path: From the leaf upwards.

    Raises:
        ProofError: The path is too long or too short, or the tree has no such leaf.
    """
    if not 0 <= index < size:
        raise ProofError
    node, last, result = index, size - 1, hashed
    for sibling in path:
        if last == 0:
            raise ProofError
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError
    return result


def verify_inclusion(index: int, size: int, hashed: bytes, path: Sequence[bytes], root: bytes) -> None:
    """Returns when a leaf is in the tree of this size and root, at this place.

    Raises:
        ProofError: It is not.
    """
    if root_from_inclusion(index, size, hashed, path) != root:
        raise ProofError


def verify_consistency(old_size: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> None:
    """Returns when a tree extends an older one (RFC 9162, section 2.1.4.2).

    Raises:
        ProofError: It does not.
    """
    if old_size in (0, size):
        # From an empty tree every tree grows; of one size there is one tree.
        if path or size < 0 or old_root != (root if old_size else EMPTY_ROOT):
            raise ProofError
    elif not 0 < old_size < size or _roots_from_consistency(old_size, old_root, size, path) != (old_root, root):
        raise ProofError


def _roots_from_consistency(old_size: int, old_root: bytes, size: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Gives the roots of both trees that a proof leads to."""
    # Where the older tree is a full subtree of the newer, its root is not sent.
    nodes = list(path) if old_size & (old_size - 1) else [old_root, *path]
    if not nodes:
        raise ProofError
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old, new = nodes[0], nodes[0]
    for sibling in nodes[1:]:
        if last == 0:
            raise ProofError
        if node & 1 or node == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        node, last = node >> 1, last >> 1
    if last:
        raise ProofError
    return old, new
