"""Verifying grants: signature, chain, type, time. What the claims allow is the caller's own table."""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from authpipe_grants.claims import LONGEST_LIFE_SECONDS, Grant, GrantError, GrantTimeError
from authpipe_grants.trust import TrustAnchor

_LONGEST_TOKEN = 16_384
_MOST_LEAVES = 256
# By so much the signer's clock may be ahead of ours; whoever releases keys raises an alarm long before.
CLOCK_DIFFERENCE_SECONDS = 30


class _Registry(jws.JWSRegistry):
    """Takes a header with a certificate chain in it; joserfc's own limit is 512 bytes."""

    max_header_length = _LONGEST_TOKEN


_REGISTRY = _Registry(algorithms=["ES256"])


class Verifier:
    """Verifies grants and remembers the verified ones until they end.

    Args:
        anchor: Our CA.
        clock: Gives seconds since the epoch.
        size: How many verified grants to remember.
    """

    def __init__(self, anchor: TrustAnchor, clock: Callable[[], float], size: int = 50_000) -> None:
        self._anchor = anchor
        self._clock = clock
        self._size = size
        self._verified: OrderedDict[bytes, Grant] = OrderedDict()
        self._keys: dict[bytes, ECKey] = {}

    def verify(self, token: str) -> Grant:
        """Verifies a grant and gives its claims.

        Raises:
            GrantError: It is not a grant of a signer under our CA, or its time is not now.
        """
        if len(token) > _LONGEST_TOKEN or not token.isascii():
            raise GrantError
        now = self._clock()
        digest = hashlib.sha256(token.encode()).digest()
        grant = self._verified.get(digest)
        if grant is None:
            grant = self._verify_signature(token, now)
            self._verified[digest] = grant
            while len(self._verified) > self._size:
                self._verified.popitem(last=False)
        if not grant.issued_at - CLOCK_DIFFERENCE_SECONDS <= now < grant.expires_at:
            raise GrantTimeError(ahead_s=int(grant.issued_at - now))
        if grant.expires_at - grant.issued_at > LONGEST_LIFE_SECONDS:
            raise GrantError
        return grant

    def _verify_signature(self, token: str, now: float) -> Grant:
        try:
            signed = jws.extract_compact(token.encode(), registry=_REGISTRY)
            header = signed.headers()
            # Step 1: only the one type and algorithm (RFC 8725, sections 3.1 and 3.11); nothing else in the header.
            if set(header) != {"alg", "typ", "x5c"} or header["alg"] != "ES256" or header["typ"] != "txntoken+jwt":
                raise GrantError
            # Step 2: the signer's certificate leads to our CA and is valid now.
            chain = [base64.b64decode(der, validate=True) for der in header["x5c"]]
            leaf, signer = self._anchor.verify_chain(chain, dt.datetime.fromtimestamp(now, dt.UTC))
            public_key = leaf.public_key()
            if not isinstance(public_key, ec.EllipticCurvePublicKey):
                raise GrantError
            # Step 3: the signature, with that certificate's key and no other.
            if not jws.validate_compact(signed, self._key(chain[0], public_key), registry=_REGISTRY):
                raise GrantError
            claims = json.loads(signed.payload)
        except (JoseError, ValueError, TypeError, KeyError, binascii.Error):
            raise GrantError from None
        if not isinstance(claims, dict):
            raise GrantError
        grant = Grant.from_claims(claims)
        # Step 4: who it says signed it is who did.
        if grant.issuer != signer:
            raise GrantError
        return grant

    def _key(self, leaf: bytes, public_key: ec.EllipticCurvePublicKey) -> ECKey:
        """Gives the key of a verified leaf as joserfc wants it; signers are few, and making one costs 25 µs."""
        key = self._keys.get(leaf)
        if key is None:
            if len(self._keys) > _MOST_LEAVES:
                self._keys.clear()
            key = self._keys[leaf] = ECKey.import_key(_pem(public_key))
        return key


def _pem(public_key: ec.EllipticCurvePublicKey) -> bytes:
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
