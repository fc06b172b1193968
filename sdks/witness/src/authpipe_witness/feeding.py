"""Carrying a log's checkpoints to a witness, and its cosignature back: the log itself reaches nobody.

A feeder is trusted by neither side: the witness checks proof and signature, the log checks the cosignature.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import httpx2
from authpipe_transparency import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Checkpoint,
    FormatError,
    Note,
    Range,
    Tile,
    consistency_ranges,
    fold,
    full_subtrees,
    root_of,
    unpack_hashes,
)
from authpipe_transparency.witnessing import AddCheckpoint

_PATIENCE_SECONDS = 10.0
_CONFLICT = 409


class FeedError(Exception):
    """A checkpoint could not be carried. The message says whose fault it is."""


def client(ca: Path | None) -> httpx2.Client:
    """Makes an HTTP client that speaks TLS 1.3 alone."""
    context = ssl.create_default_context(cafile=str(ca) if ca else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return httpx2.Client(verify=context, timeout=_PATIENCE_SECONDS, trust_env=False)


class Feeder:
    """Carries checkpoints of one log to one witness.

    Args:
        http: The HTTP client.
        log: The log's prefix, such as https://api.example.com/log/control.
        witness: The witness's prefix.
    """

    def __init__(self, http: httpx2.Client, log: str, witness: str) -> None:
        self._http = http
        self._log = log.rstrip("/")
        self._witness = witness.rstrip("/")
        self._cosigned = 0

    def feed(self) -> int:
        """Carries the newest checkpoint, if it is newer than the last one that was cosigned; gives its size.

        Raises:
            FeedError: The log or the witness does not answer as it should, or the witness refuses.
        """
        try:
            return self._carry()
        except (FormatError, ValueError):
            # A text that is none, a tile with other hashes than its width says.
            raise FeedError("The log shows what is not a checkpoint or a tile.") from None

    def _carry(self) -> int:
        note = self._get("pending").decode()
        checkpoint = Checkpoint.parse(Note.parse(note).text)
        if checkpoint.size == self._cosigned:
            return checkpoint.size
        answer = self._ask(note, checkpoint, self._cosigned)
        if answer.status_code == _CONFLICT and answer.text.strip().isdigit():
            # It knows another tree than we remember.
            known = int(answer.text)
            if known > checkpoint.size:
                raise FeedError(f"The witness has cosigned a tree of {known} leaves; the log shows {checkpoint.size}.")
            answer = self._ask(note, checkpoint, known)
        if answer.status_code != httpx2.codes.OK:
            raise FeedError(f"The witness refuses the checkpoint of {checkpoint.size} leaves ({answer.status_code}).")
        body = {"size": checkpoint.size, "signatures": answer.text}
        taken = self._post(f"{self._log}/cosignatures", json=body)
        if taken.status_code not in {httpx2.codes.OK, httpx2.codes.NO_CONTENT}:
            raise FeedError(f"The log does not take the witness's cosignature ({taken.status_code}).")
        self._cosigned = checkpoint.size
        return checkpoint.size

    def _ask(self, note: str, checkpoint: Checkpoint, old_size: int) -> httpx2.Response:
        parts = consistency_ranges(old_size, checkpoint.size)
        proof = [fold([self._root(full, checkpoint.size) for full in full_subtrees(part)]) for part in parts]
        return self._post(f"{self._witness}/add-checkpoint", content=AddCheckpoint(old_size, proof, note).encode())

    def _root(self, full: Range, size: int) -> bytes:
        """Gives the root of a full subtree, from the tile it stands in."""
        height = (full.end - full.start).bit_length() - 1
        level = height // TILE_HEIGHT
        first, width = full.start >> (level * TILE_HEIGHT), 1 << (height - level * TILE_HEIGHT)
        place = first // TILE_WIDTH
        there = min(TILE_WIDTH, (size >> (level * TILE_HEIGHT)) - place * TILE_WIDTH)
        hashes = unpack_hashes(self._get(f"tile/{Tile(level, place, there).path}"))
        at = first % TILE_WIDTH
        return root_of(hashes[at : at + width])

    def _get(self, path: str) -> bytes:
        return self._try(lambda: self._http.get(f"{self._log}/{path}").raise_for_status()).content

    def _post(self, url: str, **body: object) -> httpx2.Response:
        return self._try(lambda: self._http.post(url, **body))  # type: ignore[arg-type]

    @staticmethod
    def _try(call: Callable[[], httpx2.Response]) -> httpx2.Response:
        try:
            return call()
        except httpx2.HTTPError as error:
            raise FeedError(f"The log or the witness does not answer ({type(error).__name__}).") from None
