"""Cosignatures of witnesses: whoever brings one, it is kept when a witness that is configured has made it.

audit reaches nobody. A feeder carries checkpoints to witnesses and brings back what they sign (sdks/witness); it need not be
trusted, for a cosignature proves itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import CosignatureError
from authpipe_transparency import FormatError, Note, NoteError, VerifierKey, parse_signatures


class Kept(Protocol):
    """The checkpoints we have."""

    async def note(self, trail: Trail, size: int) -> str:
        """Gives the checkpoint of a size; empty: there is none."""

    async def put_cosignature(self, trail: Trail, size: int, witness: str, line: str) -> None:
        """Keeps a cosignature."""


class Witnesses:
    """The witnesses that are known.

    Args:
        kept: Where their cosignatures are kept.
        keys: Their keys.
    """

    def __init__(self, kept: Kept, keys: Sequence[VerifierKey]) -> None:
        self._kept = kept
        self._keys = keys

    async def add(self, trail: Trail, size: int, signatures: str) -> int:
        """Keeps the cosignatures of known witnesses among these lines; gives how many. Others are ignored.

        Raises:
            CosignatureError: There is no such checkpoint, a line is none, or no known witness has made one of them.
        """
        note = await self._kept.note(trail, size)
        if not note:
            raise CosignatureError
        try:
            text = Note.parse(note).text
            lines = parse_signatures(signatures)
            known = [
                (key, line)
                for line in lines
                for key in self._keys
                if (line.name, line.key_id) == (key.name, key.key_id)
            ]
            for key, line in known:
                key.verify(text, line.signature)
        except (FormatError, NoteError):
            raise CosignatureError from None
        if not known:
            raise CosignatureError
        for key, line in known:
            await self._kept.put_cosignature(trail, size, key.name, str(line))
        return len(known)
