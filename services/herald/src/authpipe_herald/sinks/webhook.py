"""A webhook, signed as Standard Webhooks says: webhook-id, webhook-timestamp, webhook-signature (HMAC-SHA256)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import ssl
import time
from pathlib import Path

import httpx2

from authpipe_herald.config import WebhookConfig
from authpipe_herald.domain.messages import members
from authpipe_herald.domain.words import Notice
from authpipe_herald.errors import SinkError
from authpipe_sensitive import Secret

_PREFIX = b"whsec_"
_FEWEST, _MOST = 24, 64
_TIMEOUT_SECONDS = 10.0


class WebhookSink:
    """Posts notices to a URL, over TLS 1.3, without following redirects.

    Args:
        config: Which.
    """

    def __init__(self, config: WebhookConfig) -> None:
        self.name = config.name
        self._url = str(config.url)
        self._secret = read_secret(config.secret_file)
        context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._http = httpx2.AsyncClient(
            verify=context, timeout=_TIMEOUT_SECONDS, trust_env=False, follow_redirects=False
        )

    async def tell(self, notice: Notice) -> None:
        """Posts a notice.

        Raises:
            SinkError: It was not answered with 2xx within ten seconds.
        """
        body = json.dumps(members(notice), separators=(",", ":")).encode()
        sent_at = str(int(time.time()))
        headers = {
            "content-type": "application/json",
            "webhook-id": notice.id,
            "webhook-timestamp": sent_at,
            "webhook-signature": sign(self._secret, notice.id, sent_at, body),
        }
        try:
            # What stands in the answer is of no interest, however long it is.
            async with self._http.stream("POST", self._url, content=body, headers=headers) as answer:
                status, is_taken = answer.status_code, answer.is_success
        except httpx2.HTTPError:
            raise SinkError from None
        if not is_taken:
            raise SinkError(status=status)

    async def close(self) -> None:
        """Closes its connections."""
        await self._http.aclose()


def sign(secret: Secret, identifier: str, sent_at: str, body: bytes) -> str:
    """Gives the signature header of a message: `v1,` and the HMAC-SHA256 of id, time and body, with dots in between."""
    message = b".".join([identifier.encode(), sent_at.encode(), body])
    return "v1," + base64.b64encode(hmac.digest(secret.expose(), message, hashlib.sha256)).decode()


def read_secret(file: Path) -> Secret:
    """Reads a signing secret: `whsec_` and 24 to 64 bytes in base64.

    Raises:
        SystemExit: It is none.
    """
    try:
        key = base64.b64decode(file.read_bytes().strip().removeprefix(_PREFIX), validate=True)
    except (OSError, binascii.Error):
        key = b""
    if not _FEWEST <= len(key) <= _MOST:
        raise SystemExit(f"{file} has to hold whsec_ and 24 to 64 random bytes in base64.")
    return Secret(key)
