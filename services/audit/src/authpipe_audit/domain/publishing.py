"""What anybody may see: checkpoints, and of the trees what the newest checkpoint has (C2SP tlog-tiles).

Entries are commitments: they say nothing of the events, but how many there are. Where witnesses are waited for, what is
published is the newest checkpoint that enough of them have cosigned; what waits for them is shown apart.
"""

from __future__ import annotations

from typing import Protocol

from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import NoCheckpointError, NoSuchTileError
from authpipe_transparency import FormatError, Tile, parse_tile


class Kept(Protocol):
    """The checkpoints we have."""

    async def newest(self, trail: Trail, cosignatures: int = 0) -> tuple[int, str]:
        """Gives the size and note of the newest with so many cosignatures; 0 and nothing: there is none."""


class Tiles(Protocol):
    """The trees."""

    async def tile(self, trail: Trail, tile: Tile) -> bytes:
        """Gives a tile or an entry bundle as it is published."""


class Publishing:
    """Publishes the log.

    Args:
        kept: The checkpoints.
        tiles: The trees.
        cosignatures: How many witnesses have to have cosigned what is published.
    """

    def __init__(self, kept: Kept, tiles: Tiles, cosignatures: int) -> None:
        self._kept = kept
        self._tiles = tiles
        self._cosignatures = cosignatures

    async def checkpoint(self, trail: Trail, *, is_pending: bool = False) -> str:
        """Gives a trail's newest checkpoint; or the newest that is signed, whoever has cosigned it.

        Raises:
            NoCheckpointError: There is none yet.
        """
        _, note = await self._kept.newest(trail, 0 if is_pending else self._cosignatures)
        if not note:
            raise NoCheckpointError
        return note

    async def sizes(self) -> dict[Trail, int]:
        """Gives the sizes of the trees of the newest checkpoints; 0: there is none."""
        return {trail: (await self._kept.newest(trail, self._cosignatures))[0] for trail in Trail}

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
