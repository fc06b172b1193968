"""Door: what customers hold, `ap_<kind>_<43 characters><6 of checksum>`; the one room that looks at one.

    ap_     an API key        aps_    a session of the dashboard        api_    an invitation

    random    32 bytes as base62, 43 characters        checksum  CRC-32 of all before it, base62, 6 characters

The checksum lets a scanner, and us, tell a key from a typing error without asking a database. It is no protection.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from enum import Enum

from authpipe_sensitive import Secret

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Form(Enum):
    """Which of them."""

    API_KEY = "ap"
    SESSION = "aps"
    INVITATION = "api"


_SHAPES = {form: re.compile(rb"%s_[a-z]{1,8}_[0-9A-Za-z]{49}" % form.value.encode()) for form in Form}


def new_token(form: Form, kind: str, randomness: Callable[[int], bytes]) -> Secret:
    """Makes one."""
    head = f"{form.value}_{kind}_{_base62(int.from_bytes(randomness(32), 'big'), 43)}"
    return Secret((head + _base62(zlib.crc32(head.encode()), 6)).encode())


def is_well_formed(form: Form, token: Secret) -> bool:
    """Says whether it has the shape and its checksum fits."""
    if not token.matches(_SHAPES[form]):
        return False
    text = token.expose()
    return _base62(zlib.crc32(text[:-6]), 6).encode() == text[-6:]


def hash_token(key: Secret, token: Secret) -> bytes:
    """Gives the keyed hash under which it is stored, 32 bytes."""
    return key.hmac_sha256(token)


def hash_of(key: Secret, form: Form, sent: bytes) -> bytes | None:
    """Gives the keyed hash of what was sent; None: it is none of the form of ours."""
    with Secret(sent) as token:
        return hash_token(key, token) if is_well_formed(form, token) else None


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
