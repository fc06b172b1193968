"""Door: requests that are signed with a secret which is not sent itself; it looks inside a pair.

oauth1  OAuth 1.0a (RFC 5849, section 3), by Authlib
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

from authlib.oauth1.rfc5849.client_auth import ClientAuth
from authlib.oauth1.rfc5849.signature import generate_signature_base_string
from authlib.oauth1.rfc5849.util import escape

from authpipe_oauth_worker.domain.ports import Client
from authpipe_oauth_worker.domain.proxying import Outgoing
from authpipe_oauth_worker.errors import ClientKeyError, MaterialError, NotProxiableError
from authpipe_providers import Dialect, Signing
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


def sign_oauth1(
    client: Client,
    dialect: Dialect,
    method: str,
    url: str,
    *,
    pair: tuple[Secret, Secret] | None = None,
    callback: str = "",
    verifier: str = "",
    form: bytes = b"",
) -> Secret:
    """Gives the value of the Authorization header of RFC 5849, section 3.5.1.

    Args:
        client: Our client; with RSA-SHA1 its secret is a private key, PEM.
        dialect: How the Provider wants requests signed.
        method: The HTTP method.
        url: Where it goes, with its query.
        pair: Token and token secret; None: there is none yet.
        callback: Where the browser comes back to; empty: not said.
        verifier: What the browser came back with; empty: nothing.
        form: The body, if it is a form: a signature is over its parameters too (section 3.4.1.3.1).

    Raises:
        ClientKeyError: The client's key cannot be used.
    """
    secret = client.secret.expose().decode() if client.secret is not None else ""
    token, token_secret = (each.expose().decode() for each in pair) if pair is not None else ("", "")
    auth = ClientAuth(
        client.id,
        secret,
        token=token,
        token_secret=token_secret,
        redirect_uri=callback,
        rsa_key=secret,
        verifier=verifier,
        signature_method=dialect.signature_method,
        realm=dialect.realm or None,
    )
    headers = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
    try:
        _, signed, _ = auth.prepare(method, url, headers, form.decode("latin-1"))
    except (ValueError, TypeError):
        raise ClientKeyError from None
    return Secret(signed["Authorization"].encode())


def _hmac_sha256(auth: ClientAuth, request: Any) -> str:
    """Signs as HMAC-SHA1 does, with the hash that came after it (as NetSuite and others want it)."""
    text = generate_signature_base_string(request)
    key = f"{escape(auth.client_secret or '')}&{escape(auth.token_secret or '')}"
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), "sha256")).decode()


ClientAuth.register_signature_method("HMAC-SHA256", _hmac_sha256)


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
