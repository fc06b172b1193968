"""Where tiles and entry bundles stand, to the letter of C2SP tlog-tiles.

<prefix>/tile/<L>/<N>[.p/<W>]        hashes:   W (or 256) of 32 bytes
<prefix>/tile/entries/<N>[.p/<W>]    entries:  W (or 256), each with its length before it, uint16, big-endian
N        in groups of three digits, all but the last with an x before: 1234067 is x001/x234/067
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

from authpipe_transparency.errors import FormatError
from authpipe_transparency.merkle import HASH_SIZE

TILE_WIDTH = 256
TILE_HEIGHT = 8
ENTRIES = -1
_LONGEST_ENTRY = 0xFFFF
_HIGHEST_LEVEL = 63
_PATH = re.compile(r"(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


class Tile(NamedTuple):
    """One tile, or one entry bundle.

    Args:
        level: 0 to 63; `ENTRIES`: a bundle of entries.
        place: Its number in the level.
        width: How many hashes or entries, 1 to 256; 256: a full one.
    """

    level: int
    place: int
    width: int

    @property
    def path(self) -> str:
        """Gives its path behind `<prefix>/tile/`."""
        digits = f"{self.place:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
        level = "entries" if self.level == ENTRIES else str(self.level)
        return f"{level}/{number}" + ("" if self.width == TILE_WIDTH else f".p/{self.width}")

    def is_in(self, size: int) -> bool:
        """Says whether a tree of this size has all of it."""
        leaves = int(TILE_WIDTH ** max(self.level, 0))
        return (self.place * TILE_WIDTH + self.width) * leaves <= size


def parse_tile(path: str) -> Tile:
    """Reads the path behind `<prefix>/tile/`: one spelling for each tile, and no other.

    Raises:
        FormatError: It is not the path of a tile.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise FormatError("This is not the path of a tile (C2SP tlog-tiles).")
    level, number, width = found.groups()
    tile = Tile(
        ENTRIES if level == "entries" else int(level),
        int(number.replace("x", "").replace("/", "")),
        int(width or TILE_WIDTH),
    )
    if tile.level > _HIGHEST_LEVEL or tile.path != path:
        raise FormatError("This is not the path of a tile (C2SP tlog-tiles).")
    return tile


def bundle(entries: Sequence[bytes]) -> bytes:
    """Gives an entry bundle."""
    return b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


def unbundle(data: bytes) -> list[bytes]:
    """Reads an entry bundle.

    Raises:
        FormatError: It ends in the middle of an entry.
    """
    entries, at = [], 0
    while at < len(data):
        if at + 2 > len(data):
            raise FormatError("The entry bundle ends in the middle of a length.")
        (length,) = struct.unpack_from(">H", data, at)
        at += 2 + length
        if at > len(data):
            raise FormatError("The entry bundle ends in the middle of an entry.")
        entries.append(data[at - length : at])
    return entries


def unpack_hashes(data: bytes) -> list[bytes]:
    """Reads a tile of hashes.

    Raises:
        FormatError: It is no whole number of hashes.
    """
    if len(data) % HASH_SIZE:
        raise FormatError("The tile is no whole number of hashes.")
    return [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
