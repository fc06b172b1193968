"""What is said with every call."""

from __future__ import annotations

import secrets


def new_request_id() -> str:
    """Gives the id of a request, by which the log joins what it led to."""
    return f"req_{secrets.token_hex(12)}"
