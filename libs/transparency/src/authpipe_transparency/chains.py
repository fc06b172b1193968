r"""The chain of a workspace, and the map of all chains' heads: by these an event that is left out shows.

chain of a workspace in a trail (h is a leaf hash, in the order of the tree):
    c0 = SHA-256("authpipe-audit-chain/v1\n" ‖ origin ‖ "\n" ‖ workspace)      cn = SHA-256(cn-1 ‖ hn)

Every 30 s the log itself says, in an event of its own, where all chains stand: the root of a map from workspace to
(n, cn). It is a prefix tree over the bits of key = SHA-256(workspace), as in CONIKS (Melara et al., 2015):
    empty    SHA-256(0x02)
    one key  SHA-256(0x00 ‖ key ‖ n (8, big-endian) ‖ cn)        as high up as it is alone
    more     SHA-256(0x01 ‖ root of keys whose next bit is 0 ‖ root of those whose next bit is 1)
So in one map a workspace has one value and cannot be shown another, whoever made the map; and nobody else's id shows.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

from authpipe_transparency.errors import ProofError
from authpipe_transparency.merkle import HASH_SIZE

EMPTY_MAP = sha256(b"\x02").digest()
_KEY_BITS = 256


class Head(NamedTuple):
    """Where a chain stands: after how many events, and its hash there."""

    position: int
    chain: bytes


class Leaf(NamedTuple):
    """A workspace in the map: SHA-256 of its id, and its head."""

    key: bytes
    head: Head


def chain_start(origin: str, workspace: str) -> bytes:
    """Gives the hash of a chain before its first event."""
    return sha256(f"authpipe-audit-chain/v1\n{origin}\n{workspace}".encode()).digest()


def chain_next(chain: bytes, hashed: bytes) -> bytes:
    """Gives the hash of a chain after one more leaf."""
    return sha256(chain + hashed).digest()


def chain_over(chain: bytes, hashes: bytes) -> bytes:
    """Gives the hash of a chain after more leaves, 32 bytes each."""
    for at in range(0, len(hashes), HASH_SIZE):
        chain = sha256(chain + hashes[at : at + HASH_SIZE]).digest()
    return chain


def map_key(workspace: str) -> bytes:
    """Gives the key under which a workspace stands in the map."""
    return sha256(workspace.encode()).digest()


def map_root(leaves: Sequence[Leaf]) -> bytes:
    """Gives the root of the map of these heads, sorted by key, each key once."""
    return _subtree(leaves, 0, len(leaves), 0)


def map_path(leaves: Sequence[Leaf], key: bytes) -> list[bytes]:
    """Gives the siblings from the root down to a workspace's leaf, or to where it would stand.

    Args:
        leaves: Sorted by key, each key once.
        key: Whose.
    """
    start, end, path = 0, len(leaves), []
    for depth in range(_KEY_BITS):
        if end - start <= 1:
            break
        cut = _cut(leaves, start, end, depth)
        if _bit(key, depth):
            path.append(_subtree(leaves, start, cut, depth + 1))
            start = cut
        else:
            path.append(_subtree(leaves, cut, end, depth + 1))
            end = cut
    return path


def verify_in_map(root: bytes, key: bytes, head: Head, path: Sequence[bytes]) -> None:
    """Returns when the map of this root gives a workspace this head.

    Raises:
        ProofError: It does not.
    """
    if len(path) >= _KEY_BITS:
        raise ProofError
    result = _leaf(Leaf(key, head))
    for depth in range(len(path) - 1, -1, -1):
        sibling = path[depth]
        result = _node(sibling, result) if _bit(key, depth) else _node(result, sibling)
    if result != root:
        raise ProofError


def _subtree(leaves: Sequence[Leaf], start: int, end: int, depth: int) -> bytes:
    if start == end:
        return EMPTY_MAP
    if end - start == 1:
        return _leaf(leaves[start])
    cut = _cut(leaves, start, end, depth)
    return _node(_subtree(leaves, start, cut, depth + 1), _subtree(leaves, cut, end, depth + 1))


def _cut(leaves: Sequence[Leaf], start: int, end: int, depth: int) -> int:
    """Gives where the keys whose bit at this depth is 1 begin."""
    return bisect.bisect_left(leaves, 1, start, end, key=lambda leaf: _bit(leaf.key, depth))


def _bit(key: bytes, depth: int) -> int:
    return key[depth >> 3] >> (7 - (depth & 7)) & 1


def _leaf(leaf: Leaf) -> bytes:
    return sha256(b"\x00" + leaf.key + struct.pack(">Q", leaf.head.position) + leaf.head.chain).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
