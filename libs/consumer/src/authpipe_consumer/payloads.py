"""What is inside a record that may be served: the JSON that a customer gets, so that whoever serves it need not build it.

access   {"access_token": …, "token_type": "Bearer" or "DPoP", "expire_time": RFC 3339 or null, "scopes": […]}
oauth1   {"access_token": …, "token_secret": …}
basic    {"username": …, "password": …}
material {name: text, …}: what tokens are asked for with, in the place of a refresh token
others   the bare value
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

from authpipe_sensitive import Secret


def access_payload(
    access_token: Secret,
    scopes: Sequence[str],
    expires_at: datetime | None,
    token_type: str = "Bearer",  # noqa: S107  # a word
) -> Secret:
    """Gives the plaintext of an access record."""
    return _json(
        {
            "access_token": access_token.expose().decode(),
            "token_type": token_type,
            "expire_time": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ") if expires_at else None,
            "scopes": list(scopes),
        }
    )


def oauth1_payload(token: Secret, token_secret: Secret) -> Secret:
    """Gives the plaintext of an oauth1 record."""
    return _json({"access_token": token.expose().decode(), "token_secret": token_secret.expose().decode()})


def oauth1_of(payload: Secret) -> tuple[Secret, Secret]:
    """Gives token and token secret in the plaintext of an oauth1 record."""
    data = json.loads(bytes(payload.expose()))
    return Secret(data["access_token"].encode()), Secret(data["token_secret"].encode())


def basic_payload(username: Secret, password: Secret) -> Secret:
    """Gives the plaintext of a basic record."""
    return _json({"username": username.expose().decode(), "password": password.expose().decode()})


def material_payload(brought: Mapping[str, Secret]) -> Secret:
    """Gives the plaintext of what tokens are asked for with."""
    return _json({name: value.expose().decode() for name, value in brought.items()})


def access_token_of(payload: Secret) -> Secret:
    """Gives the access token in the plaintext of an access record."""
    return Secret(json.loads(bytes(payload.expose()))["access_token"].encode())


def token_type_of(payload: Secret) -> str:
    """Gives how the access token in the plaintext of an access record is used: Bearer, or DPoP."""
    return str(json.loads(bytes(payload.expose())).get("token_type", "Bearer"))


def _json(value: Mapping[str, object]) -> Secret:
    return Secret.adopt(bytearray(json.dumps(value, separators=(",", ":")).encode()))
