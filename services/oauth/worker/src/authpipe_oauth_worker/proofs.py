"""Door: keys that tokens are bound to, and proofs of having them (RFC 9449): a JWT for one request, with its own key in its head.

A key is kept as a JWK (RFC 7517), P-256: ES256 is what every server has to know that has any (RFC 9449, section 5.1, by way of
what it registers; FAPI 2.0 wants it).
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from datetime import datetime
from urllib.parse import urlsplit, urlunsplit

from joserfc import jwt
from joserfc.jwk import ECKey

from authpipe_sensitive import Secret

_ALGORITHM = "ES256"


class Proofs:
    """Makes keys and proofs."""

    def new_key(self) -> Secret:
        """Makes a key, as it is kept."""
        return Secret(json.dumps(ECKey.generate_key("P-256").as_dict(private=True)).encode())

    def thumbprint(self, key: Secret) -> str:
        """Gives the thumbprint of its public half (RFC 7638), by which a server is told what it is to bind to."""
        return _read(key).thumbprint()

    def proof(
        self, key: Secret, method: str, url: str, now: datetime, *, nonce: str = "", token: Secret | None = None
    ) -> Secret:
        """Makes the proof for one request (RFC 9449, section 4.2).

        Args:
            key: The key, as it is kept.
            method: The HTTP method.
            url: Where the request goes; its query is no part of the proof.
            now: The time.
            nonce: What the server wanted in it; empty: nothing.
            token: The access token that the request carries; None: none.
        """
        own = _read(key)
        parts = urlsplit(url)
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": urlunsplit((parts.scheme, parts.netloc, parts.path, "", "")),
            "iat": int(now.timestamp()),
        }
        if nonce:
            claims["nonce"] = nonce
        if token is not None:
            digest = hashlib.sha256(bytes(token.expose())).digest()
            claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        header = {"typ": "dpop+jwt", "alg": _ALGORITHM, "jwk": own.as_dict(private=False)}
        return Secret(jwt.encode(header, claims, own, algorithms=[_ALGORITHM]).encode())


def _read(key: Secret) -> ECKey:
    return ECKey.import_key(json.loads(bytes(key.expose())))
