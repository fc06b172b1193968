"""A passkey in software, from the specification alone (W3C Web Authentication Level 3): it signs what it is told, also lies."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_PRESENT, _VERIFIED, _ATTESTED = 0x01, 0x04, 0x40


def b64(value: bytes) -> str:
    """Gives base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


class Passkey:
    """An authenticator with one ES256 key.

    Args:
        origin: What the browser says that the page's origin is.
    """

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.id = os.urandom(16)
        self.user = b""
        self.count = 0
        self.verifies = True
        self.cross_origin = False

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """Gives RegistrationResponseJSON for PublicKeyCredentialCreationOptionsJSON."""
        self.user = base64.urlsafe_b64decode(options["user"]["id"] + "==")
        point = self.key.public_key().public_numbers()
        # COSE_Key (RFC 9053, section 7.1.1): EC2, ES256, P-256, x, y.
        x, y = point.x.to_bytes(32, "big"), point.y.to_bytes(32, "big")
        cose = b"\xa5\x01\x02\x03\x26\x20\x01\x21\x58\x20" + x + b"\x22\x58\x20" + y
        attested = bytes(16) + struct.pack(">H", len(self.id)) + self.id + cose
        data = self._authenticator_data(_ATTESTED) + attested
        # The attestation object, CBOR (section 6.5): fmt none, no statement, the authenticator data.
        whole = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59" + struct.pack(">H", len(data)) + data
        client = self._client_data("webauthn.create", options["challenge"])
        return self._answer(
            {"clientDataJSON": b64(client), "attestationObject": b64(whole), "transports": ["internal"]}
        )

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """Gives AuthenticationResponseJSON for PublicKeyCredentialRequestOptionsJSON."""
        self.count += bool(self.count)
        data = self._authenticator_data(0)
        client = self._client_data("webauthn.get", options["challenge"])
        signature = self.key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(
            {
                "clientDataJSON": b64(client),
                "authenticatorData": b64(data),
                "signature": b64(signature),
                "userHandle": b64(self.user),
            }
        )

    def _authenticator_data(self, flags: int) -> bytes:
        host = urlsplit(self.origin).hostname or ""
        flags |= _PRESENT | (_VERIFIED if self.verifies else 0)
        return hashlib.sha256(host.encode()).digest() + struct.pack(">BI", flags, self.count)

    def _client_data(self, kind: str, challenge: str) -> bytes:
        said = {"type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": self.cross_origin}
        return json.dumps(said).encode()

    def _answer(self, response: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": b64(self.id),
            "rawId": b64(self.id),
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
        }
