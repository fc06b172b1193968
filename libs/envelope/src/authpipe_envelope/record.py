"""The record `AP1`, byte by byte.

    offset  size
    0       2     magic "AP"
    2       1     format, 1
    3       1     suite, 1: HKDF-SHA512, AES-256-GCM, 64-byte padding
    4       4     key version, big-endian: which version of the connection key
    8       32    salt
    40      32    key commitment
    72      64·n  ciphertext of plaintext ‖ 0x80 ‖ 0x00… (n ≥ 1)
    72+64·n 16    tag

Associated data = the 72 header bytes ‖ the canonical context. An unknown format or suite is refused; there is no
plaintext marker and no switch that turns encryption off. A new format gets a new number and a new module.

Every fault has one and the same error: an attacker who changes bytes learns nothing from which one it was.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authpipe_envelope.context import Context
from authpipe_envelope.keys import FORMAT, SUITE, RecordKey
from authpipe_sensitive import DomainError, Secret, Status

_HEADER = struct.Struct(">2sBBI32s32s")
HEADER_SIZE = _HEADER.size
_STEP = 64
_TAG = 16


class IntegrityError(DomainError):
    """A stored record does not open in its place: it was changed, moved or rolled back. It was not used.

    Restore it from a backup, or connect the account again.
    """

    reason = "RECORD_INTEGRITY_VIOLATION"
    status = Status.DATA_LOSS


class Header(NamedTuple):
    """The first 72 bytes of a record: all that keyservice sees of it.

    Args:
        key_version: The version of the connection key.
        salt: 32 bytes.
        commitment: 32 bytes.
    """

    key_version: int
    salt: bytes
    commitment: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Reads a header.

        Raises:
            IntegrityError: It is not an AP1 header of a known format and suite.
        """
        if len(data) != HEADER_SIZE:
            raise IntegrityError
        magic, form, suite, key_version, salt, commitment = _HEADER.unpack(data)
        if magic != b"AP" or form != FORMAT or suite != SUITE:
            raise IntegrityError
        return cls(key_version, salt, commitment)

    def encode(self) -> bytes:
        """Gives the 72 bytes."""
        return _HEADER.pack(b"AP", FORMAT, SUITE, self.key_version, self.salt, self.commitment)


def seal_record(key: RecordKey, context: Context, plaintext: bytes | bytearray) -> bytes:
    """Seals a plaintext as an AP1 record. The write key is used up: it is destroyed, so that it cannot seal twice.

    Raises:
        ContextError: The context cannot be encoded.
        ValueError: The key was used before.
    """
    material = key.material.expose()
    if not material:
        raise ValueError("A write key seals one record.")
    header = Header(key.key_version, key.salt, bytes(material[44:76])).encode()
    padded = bytearray(plaintext) + b"\x80"
    padded.extend(bytes(-len(padded) % _STEP))
    with key.material:
        sealed = AESGCM(material[:32]).encrypt(bytes(material[32:44]), padded, header + context.encode())
    padded[:] = bytes(len(padded))
    return header + sealed


def open_record(key: RecordKey, context: Context, record: bytes) -> Secret:
    """Opens an AP1 record. The record key is used up.

    Raises:
        IntegrityError: Anything at all does not fit: a byte, a length, the key, the place, the version, the hosts.
    """
    with key.material:
        return _open(key, context, record)


def _open(key: RecordKey, context: Context, record: bytes) -> Secret:
    header = record[:HEADER_SIZE]
    sealed = record[HEADER_SIZE:]
    size = len(sealed) - _TAG
    material = key.material.expose()
    if size < _STEP or size % _STEP or len(material) != 76:
        raise IntegrityError
    parsed = Header.parse(header)
    # The commitment comes first: a wrong key must not reach GCM, which some other key could satisfy.
    if not key.commits_to(parsed.commitment) or parsed.salt != key.salt or parsed.key_version != key.key_version:
        raise IntegrityError
    padded = bytearray(size)
    try:
        AESGCM(material[:32]).decrypt_into(bytes(material[32:44]), sealed, header + context.encode(), padded)
    except (InvalidTag, ValueError):
        raise IntegrityError from None
    end = padded.rfind(b"\x80", size - _STEP)
    if end < 0 or any(padded[end + 1 :]):
        padded[:] = bytes(size)
        raise IntegrityError
    del padded[end:]
    return Secret.adopt(padded)
