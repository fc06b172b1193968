"""Door: requests that are signed with a secret which is not sent itself; it looks inside a pair.

hmac    HMAC (RFC 2104) over what the Provider's entry says
sigv4   AWS Signature Version 4, by AWS's own library
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib
import json
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from authpipe_oauth_worker.domain.proxying import Outgoing
from authpipe_oauth_worker.errors import MaterialError, NotProxiableError
from authpipe_providers import Signing
from authpipe_sensitive import Secret

_PLACE = re.compile(r"\{([a-z_]+)\}")
_TIMES: Mapping[str, Callable[[datetime], str]] = {
    "seconds": lambda now: str(int(now.timestamp())),
    "milliseconds": lambda now: str(int(now.timestamp() * 1000)),
    "rfc3339": lambda now: now.strftime("%Y-%m-%dT%H:%M:%SZ"),
}


def sign(pair: Secret, signing: Signing, outgoing: Outgoing, body: bytes, now: datetime) -> Outgoing:
    """Gives a request with a signature on it.

    Args:
        pair: The username, which names the secret, and the password, which is the secret.
        signing: How it is signed.
        outgoing: The request.
        body: Its body; empty where the signature does not cover it.
        now: The time.

    Raises:
        MaterialError: The secret is not base64, where it has to be.
        NotProxiableError: AWS's library is not installed here.
    """
    words = json.loads(bytes(pair.expose()))
    if signing.scheme == "sigv4":
        return _sigv4(words["username"], words["password"], signing, outgoing, body)
    return _hmac(words["username"], words["password"], signing, outgoing, body, now)


def _hmac(name: str, secret: str, signing: Signing, outgoing: Outgoing, body: bytes, now: datetime) -> Outgoing:
    key = secret.encode()
    if signing.secret_base64:
        try:
            key = base64.b64decode(key, validate=True)
        except binascii.Error:
            raise MaterialError from None
    parts = urlsplit(outgoing.url)
    words = {
        "key": name.encode(),
        "method": outgoing.method.encode(),
        "host": parts.netloc.encode(),
        "path": parts.path.encode() or b"/",
        "body": body,
        "body_hash": _written(hashlib.new(signing.algorithm, body).digest(), signing.body_encoding),
        "timestamp": _TIMES[signing.time](now).encode(),
        "nonce": secrets.token_hex(16).encode(),
    }
    # Step 1: what is added to the query and has no signature in it is signed with the rest of it.
    signed = [each for each in signing.query if "{signature}" not in each[1]]
    added = _query(signed, words)
    query = "&".join(filter(None, (parts.query, added))).encode()
    words |= {"query": query, "target": words["path"] + (b"?" + query if query else b"")}
    # Step 2: the signature.
    mac = hmac.new(key, _filled(signing.signed, words), signing.algorithm).digest()
    words["signature"] = _written(mac, signing.encoding)
    # Step 3: it goes where the API looks for it.
    added = "&".join(filter(None, (added, _query([each for each in signing.query if each not in signed], words))))
    headers = {each.lower(): Secret(_filled(text, words)) for each, text in signing.headers}
    return outgoing._replace(headers={**outgoing.headers, **headers}, query=Secret(added.encode()) if added else None)


def _query(pairs: list[tuple[str, str]], words: Mapping[str, bytes]) -> str:
    return "&".join(f"{quote(name)}={quote(_filled(text, words), safe='')}" for name, text in pairs)


def _filled(text: str, words: Mapping[str, bytes]) -> bytes:
    """Fills a text in, once: what is filled in is not looked at again."""
    pieces = _PLACE.split(text)
    return b"".join(words[each] if at % 2 else each.encode() for at, each in enumerate(pieces))


def _written(value: bytes, encoding: str) -> bytes:
    return value.hex().encode() if encoding == "hex" else base64.b64encode(value)


def _sigv4(key_id: str, secret: str, signing: Signing, outgoing: Outgoing, body: bytes) -> Outgoing:
    try:
        # Its library is there only where the installation uses it.
        auth, requests, credentials = (
            importlib.import_module(f"botocore.{each}") for each in ("auth", "awsrequest", "credentials")
        )
    except ImportError:
        raise NotProxiableError from None
    headers = {name: value.decode("latin-1") for name, value in outgoing.headers.items() if isinstance(value, bytes)}
    request = requests.AWSRequest(outgoing.method, outgoing.url, headers, body)
    signer: Any = auth.S3SigV4Auth if signing.service == "s3" else auth.SigV4Auth
    signer = signer(credentials.Credentials(key_id, secret), signing.service, signing.region)
    if not signing.covers_body:
        signer.payload = lambda _: "UNSIGNED-PAYLOAD"
    signer.add_auth(request)
    return outgoing._replace(headers={name.lower(): Secret(value.encode()) for name, value in request.headers.items()})
