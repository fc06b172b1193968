r"""What a witness is asked and when it cosigns, to the letter of C2SP tlog-witness: a core without I/O.

old <size>\n<proof hash, base64>\n…\n\n<checkpoint>          the body of POST <prefix>/add-checkpoint

A witness keeps of each log the newest tree that it has cosigned, and cosigns one that is proved to extend it. Never two
trees of one size, never a smaller one after a larger.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from authpipe_transparency.errors import FormatError, ProofError
from authpipe_transparency.merkle import EMPTY_ROOT, HASH_SIZE, verify_consistency
from authpipe_transparency.notes import Checkpoint, Note, NoteError, VerifierKey

_MOST_HASHES = 63
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})", re.ASCII)


class WitnessRefusal(Exception):
    """A witness does not cosign.

    Args:
        status: The HTTP status that says why.
        size: With 409: the size of the tree that it cosigned last.
    """

    def __init__(self, status: int, size: int | None = None) -> None:
        super().__init__(f"The witness refuses: {status}.")
        self.status = status
        self.size = size


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """What a witness is asked.

    Args:
        old_size: Of the tree from which the proof leads.
        proof: RFC 6962, section 2.1.2.
        note: The checkpoint.
    """

    old_size: int
    proof: Sequence[bytes]
    note: str

    def encode(self) -> str:
        """Gives the body of the request."""
        lines = [f"old {self.old_size}\n", *(base64.b64encode(each).decode() + "\n" for each in self.proof)]
        return "".join(lines) + "\n" + self.note

    @classmethod
    def parse(cls, body: str) -> Self:
        """Reads the body of a request.

        Raises:
            FormatError: It is none.
        """
        head, blank, note = body.partition("\n\n")
        first, *hashes = head.split("\n")
        old = _OLD.fullmatch(first)
        if old is None or not blank or len(hashes) > _MOST_HASHES:
            raise FormatError("This is not a request to add a checkpoint.")
        try:
            proof = [base64.b64decode(line, validate=True) for line in hashes]
        except (ValueError, binascii.Error):
            raise FormatError("A line of the proof is not base64.") from None
        if any(len(each) != HASH_SIZE for each in proof):
            raise FormatError("A line of the proof is not a hash.")
        return cls(int(old[1]), proof, note)


def checkpoint_of(asked: AddCheckpoint, logs: Mapping[str, VerifierKey]) -> Checkpoint:
    """Gives the checkpoint that is asked about, when its log has signed it.

    Raises:
        WitnessRefusal: 400 it is none, 404 the log is not known, 403 it is not signed.
    """
    try:
        note = Note.parse(asked.note)
        checkpoint = Checkpoint.parse(note.text)
    except FormatError:
        raise WitnessRefusal(400) from None
    key = logs.get(checkpoint.origin)
    if key is None:
        raise WitnessRefusal(404)
    try:
        signed = note.verify(key)
    except NoteError:
        raise WitnessRefusal(403) from None
    if key.name not in signed:
        raise WitnessRefusal(403)
    if asked.old_size > checkpoint.size:
        raise WitnessRefusal(400)
    return checkpoint


def require_extension(asked: AddCheckpoint, checkpoint: Checkpoint, cosigned: Checkpoint | None) -> None:
    """Returns when a checkpoint may be cosigned after the one before.

    Args:
        asked: The request.
        checkpoint: Its checkpoint, which its log has signed.
        cosigned: The newest that was cosigned; none: this is the first.

    Raises:
        WitnessRefusal: 409 the proof leads from another tree than that one, or the same size has another root; 422 it
            proves nothing.
    """
    size, root = (cosigned.size, cosigned.root) if cosigned else (0, EMPTY_ROOT)
    if asked.old_size != size:
        raise WitnessRefusal(409, size)
    if checkpoint.size == size and checkpoint.root != root:
        raise WitnessRefusal(409, size)
    try:
        verify_consistency(size, root, checkpoint.size, checkpoint.root, asked.proof)
    except ProofError:
        raise WitnessRefusal(422) from None
