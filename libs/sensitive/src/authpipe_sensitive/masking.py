"""The masked prefix: all of a credential that a listing may show (promise P08).

Computed once by the consumer that has the plaintext, stored beside the ciphertext; no listing opens anything.
"""

from __future__ import annotations

from authpipe_sensitive.secret import Secret

_SHOWN = 4
_AT_LEAST = 24


def mask(value: Secret) -> str:
    """Gives the first four characters of a long value and an ellipsis; of a short one, only the ellipsis.

    A value below 24 bytes shows nothing: four characters of a short secret are too much of it.
    """
    if len(value) < _AT_LEAST:
        return "…"
    head = bytes(value.expose()[:_SHOWN])
    if not all(0x21 <= byte < 0x7F for byte in head):
        return "…"
    return head.decode("ascii") + "…"
