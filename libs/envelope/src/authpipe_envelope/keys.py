"""The record key: derived from the connection key for one record, never stored.

    HKDF-SHA512 (RFC 5869), input CK (32 bytes), salt of the record (32 bytes),
    info = "authpipe AP1 record" ‖ format ‖ suite ‖ class  (one byte each)
    → key 32 bytes ‖ nonce 12 bytes ‖ commitment 32 bytes

The salt is random for each version, so a key seals one plaintext and the nonce need not be chosen by anybody. The
commitment makes the record key-committing, which AES-GCM alone is not.
"""

from __future__ import annotations

import hmac
import os
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from authpipe_sensitive import Secret

FORMAT = 1
SUITE = 1
SALT_SIZE = 32
COMMITMENT_SIZE = 32
MATERIAL_SIZE = 32 + 12 + COMMITMENT_SIZE


class RecordKey(NamedTuple):
    """The key of one record.

    Args:
        material: Key, nonce and commitment, 76 bytes.
        key_version: The version of the connection key it came from.
        salt: The record's salt, 32 bytes.
    """

    material: Secret
    key_version: int
    salt: bytes

    def commits_to(self, commitment: bytes) -> bool:
        """Says, in constant time, whether a header's commitment is this key's."""
        return hmac.compare_digest(commitment, self.material.expose()[44:76])


def new_salt() -> bytes:
    """Gives a salt for a new version of a record."""
    return os.urandom(SALT_SIZE)


def derive_record_key(connection_key: Secret, key_version: int, salt: bytes, record_class: int) -> RecordKey:
    """Derives the key of a record.

    Args:
        connection_key: The CK, 32 bytes.
        key_version: The CK's version.
        salt: The record's salt, 32 bytes.
        record_class: The number of the RecordClass, 1 to 255.

    Raises:
        ValueError: A size is wrong.
    """
    if len(connection_key) != 32 or len(salt) != SALT_SIZE:
        raise ValueError("A connection key and a salt have 32 bytes.")
    info = b"authpipe AP1 record" + bytes([FORMAT, SUITE, record_class])
    material = HKDF(algorithm=SHA512(), length=MATERIAL_SIZE, salt=salt, info=info).derive(connection_key.expose())
    return RecordKey(Secret(material), key_version, salt)
