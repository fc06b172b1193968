"""What may be signed: a tree that grows, and never two roots for one size."""

from __future__ import annotations

from authpipe_keyservice.errors import ForkError


def require_growth(signed_size: int, signed_root: bytes, size: int, root: bytes) -> None:
    """Returns when a checkpoint may be signed after the last one.

    Raises:
        ForkError: It is smaller, or has another root at the same size.
    """
    if size < signed_size or (size == signed_size and root != signed_root and signed_size > 0):
        raise ForkError


def checkpoint_body(origin: str, size: int, root_base64: str) -> bytes:
    """Gives the bytes that are signed (C2SP tlog-checkpoint): three lines."""
    return f"{origin}\n{size}\n{root_base64}\n".encode()
