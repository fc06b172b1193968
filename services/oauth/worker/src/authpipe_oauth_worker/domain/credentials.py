"""What an access record holds: the JSON object that is served, so that whoever serves it need not build it."""

from __future__ import annotations

import json
from datetime import datetime

from authpipe_oauth_worker.domain.answers import Tokens


def access_payload(tokens: Tokens, scopes: tuple[str, ...], expires_at: datetime | None) -> bytearray:
    """Gives the plaintext of an access record: UTF-8 JSON with access_token, token_type, expire_time and scopes."""
    shown = {
        "access_token": tokens.access_token.expose().decode(),
        "token_type": "Bearer",
        "expire_time": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ") if expires_at else None,
        "scopes": list(scopes),
    }
    return bytearray(json.dumps(shown, separators=(",", ":")).encode())
