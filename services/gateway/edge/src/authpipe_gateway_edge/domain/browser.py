"""What binds a flow to the browser that began it, and a form to our own page (promises P14, P16)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

COOKIE = "__Host-authpipe_flow"
_SIZE = 32


def new_binding(randomness: bytes) -> str:
    """Gives the value of the cookie: 32 random bytes, base64url."""
    return base64.urlsafe_b64encode(randomness).rstrip(b"=").decode()


def binding_of(cookie: str) -> bytes:
    """Gives the 32 bytes of a cookie; empty when it is not one of ours."""
    try:
        value = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
    except (binascii.Error, ValueError):
        return b""
    return value if len(value) == _SIZE else b""


def csrf_token(binding: bytes, session: str) -> str:
    """Gives the token of a form: nobody without the cookie can make it."""
    return hmac.new(binding, b"csrf" + session.encode(), hashlib.sha256).hexdigest()


def is_own_form(binding: bytes, session: str, token: str, origin: str, own_origin: str) -> bool:
    """Says whether a form came from our page in this browser: its token and, always, the Origin header."""
    if len(binding) != _SIZE or origin != own_origin:
        return False
    return hmac.compare_digest(csrf_token(binding, session), token)
