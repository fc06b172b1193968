"""Which stored hashes the root of a subtree is made of: leaves, and the full subtrees that stand in tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from authpipe_transparency import TILE_HEIGHT, Range, fold, full_subtrees, root_of


class Run(NamedTuple):
    """Hashes that stand beside each other: at a level of tiles, from an index on, so many.

    Args:
        level: 0: leaves; 1: roots of 256 leaves; 2: of 65,536; and so on.
        first: The index of the first, in its level.
        width: How many, at most 256.
    """

    level: int
    first: int
    width: int


def run_of(full: Range) -> Run:
    """Gives the stored hashes whose root is that of a full subtree."""
    height = (full.end - full.start).bit_length() - 1
    level = height // TILE_HEIGHT
    return Run(level, full.start >> (level * TILE_HEIGHT), 1 << (height - level * TILE_HEIGHT))


def runs_of(parts: Sequence[Range]) -> list[Run]:
    """Gives what has to be read for the roots of these subtrees."""
    return [run_of(full) for part in parts for full in full_subtrees(part)]


def roots_of(parts: Sequence[Range], read: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Gives the roots of subtrees.

    Args:
        parts: The subtrees.
        read: The hashes of `runs_of(parts)`.
    """
    following = iter(read)
    return [fold([root_of(next(following)) for _ in full_subtrees(part)]) for part in parts]
