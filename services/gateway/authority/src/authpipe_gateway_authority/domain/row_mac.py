"""The MAC over rows that give access (case 14).

HMAC-SHA256 over the table's name and every field, each length-prefixed, with a key that is not in the database. Each row
carries the epoch of its workspace, which rises with every revocation: a row restored from before it does not fit.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterable

from authpipe_sensitive import Secret


def row_mac(key: Secret, table: str, fields: Iterable[str]) -> bytes:
    """Gives the MAC of a row, 32 bytes."""
    encoded = [table.encode(), *(field.encode() for field in fields)]
    return key.hmac_sha256(b"".join(struct.pack(">I", len(each)) + each for each in encoded))


def is_genuine(key: Secret, table: str, fields: Iterable[str], mac: bytes) -> bool:
    """Says, in constant time, whether a row is as we wrote it."""
    return hmac.compare_digest(row_mac(key, table, fields), mac)
