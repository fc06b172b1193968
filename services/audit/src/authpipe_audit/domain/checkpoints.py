r"""Checkpoints as signed notes, to the letter of C2SP tlog-checkpoint and signed-note.

<origin>\n<size>\n<root, base64>\n\n— <origin> <base64(key id (4) ‖ signature (64))>\n
"""

from __future__ import annotations

import base64
import hashlib

_ED25519 = b"\x01"


def key_id(origin: str, public_key: bytes) -> bytes:
    """Gives the key id of an Ed25519 key (C2SP signed-note): 4 bytes."""
    return hashlib.sha256(origin.encode() + b"\n" + _ED25519 + public_key).digest()[:4]


def signed_note(origin: str, size: int, root: bytes, public_key: bytes, signature: bytes) -> str:
    """Gives a checkpoint with its signature."""
    body = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    line = base64.b64encode(key_id(origin, public_key) + signature).decode()
    return f"{body}\n— {origin} {line}\n"
