r"""Signed notes, checkpoints and cosignatures, to the letter of C2SP signed-note, tlog-checkpoint, tlog-cosignature.

<origin>\n<size>\n<root, base64>\n\n— <name> <base64(key id (4) ‖ signature)>\n…

A log signs the text (Ed25519, type 0x01). A witness signs `cosignature/v1\ntime <t>\n` ‖ text (type 0x04); what stands
in its line is t (8 bytes, big-endian) ‖ signature.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from authpipe_transparency.errors import FormatError

LOG_KEY, WITNESS_KEY = 0x01, 0x04
_KEY_SIZE, _SIGNATURE_SIZE, _ROOT_SIZE = 32, 64, 32
_MOST_SIGNATURES = 64
_LONGEST_NOTE = 1 << 20
_LINE = re.compile(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class NoteError(Exception):
    """A note is not signed by whom it has to be signed by, or a signature of a known key is wrong."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """Who may sign, and how (C2SP signed-note, verifier keys).

    Args:
        name: The key's name: of a log, its origin.
        kind: LOG_KEY or WITNESS_KEY.
        public_key: Ed25519, 32 bytes.
    """

    name: str
    kind: int
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Gives the four bytes by which a signature names its key."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:4]

    def __str__(self) -> str:
        """Gives the vkey: `<name>+<key id>+<base64(kind ‖ key)>`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(bytes([self.kind]) + self.public_key).decode()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads a vkey.

        Raises:
            FormatError: It is none, or its key id is not that of its key.
        """
        name, _, rest = text.strip().partition("+")
        identifier, _, encoded = rest.partition("+")
        data = _unbase64(encoded)
        if len(data) != 1 + _KEY_SIZE or data[0] not in (LOG_KEY, WITNESS_KEY) or not name:
            raise FormatError("This is not a verifier key of type Ed25519 (C2SP signed-note).")
        key = cls(name, data[0], data[1:])
        if key.key_id.hex() != identifier or re.search(r"\s", name):
            raise FormatError("This verifier key's id is not that of its name and key: it was cut or changed.")
        return key

    def verify(self, text: str, signature: bytes) -> int:
        """Returns when a signature is this key's over a note's text; gives a cosignature's time, or 0.

        Raises:
            NoteError: It is not.
        """
        message, time = text.encode(), 0
        if self.kind == WITNESS_KEY:
            if len(signature) != 8 + _SIGNATURE_SIZE:
                raise NoteError("A cosignature has another length than it must have.")
            (time,) = struct.unpack_from(">Q", signature)
            message, signature = cosigned_message(text, time), signature[8:]
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message)
        except InvalidSignature:
            raise NoteError(f"The signature of {self.name} is wrong.") from None
        return time


class SignatureLine(NamedTuple):
    """One signature of a note: the key's name, its id (4 bytes), the signature."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        """Gives the line, with its newline."""
        return f"— {self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures."""

    text: str
    signatures: tuple[SignatureLine, ...]

    def __str__(self) -> str:
        """Gives the note as it is published."""
        return self.text + "\n" + "".join(str(line) for line in self.signatures)

    @classmethod
    def parse(cls, data: str) -> Self:
        """Reads a note strictly.

        Raises:
            FormatError: It is none.
        """
        text, blank, lines = data.rpartition("\n\n")
        if not blank or not lines.endswith("\n") or len(data) > _LONGEST_NOTE:
            raise FormatError("This is not a signed note.")
        if any(ord(char) < 0x20 and char != "\n" for char in data):
            raise FormatError("A signed note holds no control characters.")
        return cls(text + "\n", parse_signatures(lines))

    def verify(self, *keys: VerifierKey) -> dict[str, int]:
        """Gives who of these signed, by name, with the time of each cosignature (0: none). Unknown signatures are ignored.

        Raises:
            NoteError: A known key's signature is wrong.
        """
        signed = {}
        for line in self.signatures:
            for key in keys:
                if (line.name, line.key_id) == (key.name, key.key_id):
                    signed[key.name] = key.verify(self.text, line.signature)
        return signed


def parse_signatures(lines: str) -> tuple[SignatureLine, ...]:
    """Reads signature lines.

    Raises:
        FormatError: A line is none, or there are too many.
    """
    found: list[SignatureLine] = []
    for line in lines.removesuffix("\n").split("\n"):
        match = _LINE.fullmatch(line)
        data = _unbase64(match[2]) if match else b""
        if match is None or len(data) <= 4 or len(found) >= _MOST_SIGNATURES:
            raise FormatError("A line of the note is not a signature line.")
        found.append(SignatureLine(match[1], data[:4], data[4:]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The head of a log's tree at one size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """Gives the three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the text of a note. Extension lines are refused: our logs have none.

        Raises:
            FormatError: It is no checkpoint.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
            raise FormatError("The note's text is not a checkpoint of three lines.")
        root = _unbase64(lines[2])
        if len(root) != _ROOT_SIZE:
            raise FormatError("The checkpoint's root is not 32 bytes.")
        return cls(lines[0], int(lines[1]), root)


def cosigned_message(text: str, time: int) -> bytes:
    """Gives what a witness signs (C2SP tlog-cosignature, Ed25519)."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosign(key: VerifierKey, text: str, time: int, sign: Callable[[bytes], bytes]) -> SignatureLine:
    """Cosigns a checkpoint.

    Args:
        key: The witness's own.
        text: The checkpoint's.
        time: Seconds since the epoch.
        sign: Signs with the witness's private key.
    """
    return SignatureLine(key.name, key.key_id, struct.pack(">Q", time) + sign(cosigned_message(text, time)))


def open_checkpoint(note: str, key: VerifierKey, witnesses: Sequence[VerifierKey] = ()) -> tuple[Checkpoint, set[str]]:
    """Gives a checkpoint that its log has signed, and which of the known witnesses cosigned it.

    Raises:
        FormatError: It is no checkpoint.
        NoteError: The log has not signed it, its origin is another log's, or a known key's signature is wrong.
    """
    parsed = Note.parse(note)
    checkpoint = Checkpoint.parse(parsed.text)
    signed = parsed.verify(key, *witnesses)
    if key.name not in signed:
        raise NoteError(f"{key.name} has not signed this checkpoint.")
    if checkpoint.origin != key.name:
        raise NoteError(f"This is a checkpoint of another log than {key.name}.")
    return checkpoint, set(signed) - {key.name}


def _unbase64(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raise FormatError("This is not base64.") from None
    if base64.b64encode(data).decode() != text:
        raise FormatError("This is not base64 in its one canonical form.")
    return data
