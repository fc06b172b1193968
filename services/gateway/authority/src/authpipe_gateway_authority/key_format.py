"""Door: API keys as customers hold them, `ap_<kind>_<43 characters><6 of checksum>`; the one room that looks at one.

    random    32 bytes as base62, 43 characters        checksum  CRC-32 of all before it, base62, 6 characters

The checksum lets a scanner, and us, tell a key from a typing error without asking a database. It is no protection.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable

from authpipe_sensitive import Secret

_SHAPE = re.compile(rb"ap_[a-z]{1,8}_[0-9A-Za-z]{49}")
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def new_api_key(kind: str, randomness: Callable[[int], bytes]) -> Secret:
    """Makes an API key."""
    head = f"ap_{kind}_{_base62(int.from_bytes(randomness(32), 'big'), 43)}"
    return Secret((head + _base62(zlib.crc32(head.encode()), 6)).encode())


def is_well_formed(api_key: Secret) -> bool:
    """Says whether an API key has the shape and its checksum fits."""
    if not api_key.matches(_SHAPE):
        return False
    text = api_key.expose()
    return _base62(zlib.crc32(text[:-6]), 6).encode() == text[-6:]


def hash_api_key(key: Secret, api_key: Secret) -> bytes:
    """Gives the keyed hash under which an API key is stored, 32 bytes."""
    return key.hmac_sha256(api_key)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
