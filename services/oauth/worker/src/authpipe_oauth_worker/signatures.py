"""Door: HMACs over what came, compared in constant time; it looks inside a webhook secret."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from authpipe_oauth_worker.errors import WebhookSchemeError
from authpipe_providers import WebhookScheme
from authpipe_sensitive import Secret

_ALGORITHMS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1, "sha512": hashlib.sha512}


def matches(secret: Secret, scheme: WebhookScheme, message: bytes, signatures: Sequence[str]) -> bool:
    """Says whether one of some signatures is the secret's over a message. All of them are compared, always.

    Raises:
        WebhookSchemeError: The secret has not the form that the scheme says.
    """
    key = bytes(secret.expose()).removeprefix(scheme.secret_prefix.encode())
    if scheme.secret_base64:
        try:
            key = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise WebhookSchemeError from None
    mac = hmac.new(key, message, _ALGORITHMS[scheme.algorithm]).digest()
    expected = mac.hex().encode() if scheme.encoding == "hex" else base64.b64encode(mac)
    found = False
    for signature in signatures:
        given = signature.encode()
        if scheme.encoding == "hex":
            given = given.lower()
        found |= hmac.compare_digest(expected, given)
    return found
