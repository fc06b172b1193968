"""A context as bytes, for KMS that bind bytes: its names in order, each name and value with its length in front."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping


def canonical(context: Mapping[str, str]) -> bytes:
    """Gives the bytes of a context; two contexts that differ have different ones."""
    parts = [part.encode() for name in sorted(context) for part in (name, context[name])]
    return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def digest(context: Mapping[str, str]) -> bytes:
    """Gives the SHA-256 of a context's bytes, 32 bytes."""
    return hashlib.sha256(canonical(context)).digest()
