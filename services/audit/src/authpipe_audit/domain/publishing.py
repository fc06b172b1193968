"""What anybody may see: checkpoints, and of the trees what the newest checkpoint has (C2SP tlog-tiles).

Entries are commitments: they say nothing of the events, but how many there are.
"""

from __future__ import annotations

from typing import Protocol

from authpipe_audit.domain.checkpointing import Kept
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import NoCheckpointError, NoSuchTileError
from authpipe_transparency import FormatError, Tile, parse_tile


class Tiles(Protocol):
    """The trees."""

    async def tile(self, trail: Trail, tile: Tile) -> bytes:
        """Gives a tile or an entry bundle as it is published."""


class Publishing:
    """Publishes the log.

    Args:
        kept: The checkpoints.
        tiles: The trees.
    """

    def __init__(self, kept: Kept, tiles: Tiles) -> None:
        self._kept = kept
        self._tiles = tiles

    async def checkpoint(self, trail: Trail) -> str:
        """Gives a trail's newest checkpoint.

        Raises:
            NoCheckpointError: None was signed yet.
        """
        _, note = await self._kept.newest(trail)
        if not note:
            raise NoCheckpointError
        return note

    async def sizes(self) -> dict[Trail, int]:
        """Gives the sizes of the trees of the newest checkpoints; 0: there is none."""
        return {trail: (await self._kept.newest(trail))[0] for trail in Trail}

    async def tile(self, trail: Trail, path: str) -> bytes:
        """Gives a tile or an entry bundle, by what stands behind `<prefix>/tile/`.

        Raises:
            NoSuchTileError: The newest checkpoint's tree has no such tile.
        """
        try:
            tile = parse_tile(path)
        except FormatError:
            raise NoSuchTileError from None
        size, _ = await self._kept.newest(trail)
        if not tile.is_in(size):
            raise NoSuchTileError
        return await self._tiles.tile(trail, tile)
