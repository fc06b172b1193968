"""Wrapping a key with a key, in software: AES-256-GCM, nonce (12) ‖ ciphertext (32) ‖ tag (16), bound to associated data."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from authpipe_sensitive import Secret

KEY_SIZE = 32
NONCE_SIZE = 12


class UnwrapError(Exception):
    """What was wrapped was changed, or belongs elsewhere."""


def wrap_key(wrapping: Secret, key: Secret, aad: bytes, nonce: bytes) -> bytes:
    """Wraps a key.

    Args:
        wrapping: 32 bytes.
        key: 32 bytes.
        aad: What it is bound to.
        nonce: 12 random bytes, fresh for each call.

    Raises:
        ValueError: A size is wrong.
    """
    if len(wrapping) != KEY_SIZE or len(key) != KEY_SIZE or len(nonce) != NONCE_SIZE:
        raise ValueError("Keys have 32 bytes, a nonce 12.")
    return nonce + AESGCM(wrapping.expose()).encrypt(nonce, key.expose(), aad)


def unwrap_key(wrapping: Secret, wrapped: bytes, aad: bytes) -> Secret:
    """Unwraps a key.

    Raises:
        UnwrapError: It was changed, or was wrapped by another key or for another place.
    """
    buffer = bytearray(KEY_SIZE)
    try:
        AESGCM(wrapping.expose()).decrypt_into(wrapped[:NONCE_SIZE], wrapped[NONCE_SIZE:], aad, buffer)
    except (InvalidTag, ValueError):
        raise UnwrapError from None
    return Secret.adopt(buffer)
