"""Door: how a credential is put on a request, small pieces that know nothing of each other."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

from authpipe_consumer.payloads import access_token_of, oauth1_of, token_type_of
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.proxying import Credential, Outgoing, Ways, is_form
from authpipe_oauth_worker.errors import NotProxiableError
from authpipe_oauth_worker.proofs import Proofs
from authpipe_oauth_worker.signing import sign, sign_oauth1
from authpipe_providers import Placement
from authpipe_sensitive import Secret

_PROOFS = Proofs()
Processor = Callable[[Secret, Placement, Outgoing], Outgoing]


def place(credential: Credential, ways: Ways, outgoing: Outgoing, body: bytes, now: datetime) -> Outgoing:
    """Gives a request with a credential on it.

    Raises:
        NotProxiableError: Nobody knows where this API wants a credential of this kind.
        MaterialError: The credential cannot be used in the way that the API wants.
    """
    match credential.record_class:
        case RecordClass.OAUTH1:
            return signed(credential, ways, outgoing, body)
        case RecordClass.BASIC if ways.pair is not None:
            return sign(credential.payload, ways.pair, outgoing, body, now)
        case RecordClass.BASIC:
            pair = json.loads(bytes(credential.payload.expose()))
            return basic(Secret(f"{pair['username']}:{pair['password']}".encode()), Placement(), outgoing)
        case RecordClass.ACCESS if token_type_of(credential.payload) == "DPoP":
            return bound(credential, outgoing, now)
        case RecordClass.ACCESS:
            placement, value = ways.token, access_token_of(credential.payload)
        case _:
            placement, value = ways.api_key, credential.payload.copy()
    processor = _PROCESSORS.get(placement.where)
    if processor is None:
        raise NotProxiableError
    with value:
        if placement.where == "basic":
            # An API key alone is the name, without a password (as with Stripe or Greenhouse).
            value = Secret(bytes(value.expose()) + b":")
        return processor(value, placement, outgoing)


def signed(credential: Credential, ways: Ways, outgoing: Outgoing, body: bytes) -> Outgoing:
    """Signs it with a token's secret and our client's (RFC 5849, section 3.4)."""
    if ways.oauth1 is None or credential.client is None:
        raise NotProxiableError
    token, secret = oauth1_of(credential.payload)
    form = body if is_form(outgoing.headers) else b""
    with token, secret:
        placed = sign_oauth1(
            credential.client, ways.oauth1, outgoing.method, outgoing.url, pair=(token, secret), form=form
        )
    return outgoing._replace(headers={**outgoing.headers, "authorization": placed})


def bound(credential: Credential, outgoing: Outgoing, now: datetime) -> Outgoing:
    """Puts a token on it that is bound to a key, with the proof of having that (RFC 9449, section 7.1)."""
    if credential.key is None:
        raise NotProxiableError
    with access_token_of(credential.payload) as token:
        proof = _PROOFS.proof(credential.key, outgoing.method, outgoing.url, now, nonce=credential.nonce, token=token)
        placed = Secret(b"DPoP " + bytes(token.expose()))
    return outgoing._replace(headers={**outgoing.headers, "authorization": placed, "dpop": proof})


def header(value: Secret, placement: Placement, outgoing: Outgoing) -> Outgoing:
    """Puts it in a header, with what stands before it there, such as `Bearer `."""
    placed = Secret(placement.prefix.encode() + bytes(value.expose()))
    return outgoing._replace(headers={**outgoing.headers, placement.name.lower(): placed})


def query(value: Secret, placement: Placement, outgoing: Outgoing) -> Outgoing:
    """Puts it in the query."""
    return outgoing._replace(query=Secret(f"{placement.name}={quote(value.expose().decode(), safe='')}".encode()))


def basic(pair: Secret, _: Placement, outgoing: Outgoing) -> Outgoing:
    """Puts a name and a password in an HTTP Basic header (RFC 7617)."""
    placed = Secret(b"Basic " + b64encode(bytes(pair.expose())))
    return outgoing._replace(headers={**outgoing.headers, "authorization": placed})


_PROCESSORS: dict[str, Processor] = {"header": header, "query": query, "basic": basic}
