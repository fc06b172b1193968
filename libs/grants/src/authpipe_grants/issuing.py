"""Signing grants with the key of the signer's own mTLS leaf, so that no further keys are distributed."""

from __future__ import annotations

import base64
import json
import secrets
from collections import OrderedDict
from collections.abc import Callable, Hashable

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from joserfc import jws
from joserfc.jwk import ECKey

from authpipe_grants.claims import LONGEST_LIFE_SECONDS, Grant
from authpipe_grants.trust import spiffe_path


class Issuer:
    """Signs grants as one process.

    Args:
        certificate_chain: PEM, leaf first.
        private_key: PEM of the leaf's P-256 key.
        trust_domain: The SPIFFE trust domain.
        clock: Gives seconds since the epoch.
    """

    def __init__(
        self, certificate_chain: bytes, private_key: bytes, trust_domain: str, clock: Callable[[], float]
    ) -> None:
        chain = x509.load_pem_x509_certificates(certificate_chain)
        self.name = spiffe_path(chain[0], trust_domain)
        self._key = ECKey.import_key(private_key)
        self._header = {
            "alg": "ES256",
            "typ": "txntoken+jwt",
            "x5c": [base64.b64encode(each.public_bytes(Encoding.DER)).decode() for each in chain],
        }
        self._clock = clock

    def issue(  # required means argument: each of these narrows the grant
        self,
        *,
        audience: tuple[str, ...],
        consumer: str,
        consumer_thumbprint: str,
        purpose: str,
        workspace: str,
        connections: tuple[str, ...],
        classes: tuple[int, ...],
        actor: str,
        request_id: str,
        fence: int = 0,
        forced: bool = False,
        source: str = "",
        life_seconds: int = LONGEST_LIFE_SECONDS,
    ) -> str:
        """Signs a grant and gives it as a compact JWS (RFC 7515).

        Raises:
            ValueError: The life asked for is over 60 s.
        """
        if not 0 < life_seconds <= LONGEST_LIFE_SECONDS:
            raise ValueError("A grant lives 1 to 60 seconds.")
        now = int(self._clock())
        grant = Grant(
            issuer=self.name,
            audience=audience,
            consumer=consumer,
            consumer_thumbprint=consumer_thumbprint,
            purpose=purpose,
            workspace=workspace,
            connections=connections,
            classes=classes,
            fence=fence,
            forced=forced,
            actor=actor,
            request_id=request_id,
            grant_id=secrets.token_hex(16),
            issued_at=now,
            expires_at=now + life_seconds,
            source=source,
        )
        return jws.serialize_compact(self._header, json.dumps(grant.to_claims()).encode(), self._key)


class GrantCache:
    """Keeps signed grants until shortly before they end, so that a busy connection costs one signature in ten seconds.

    Args:
        clock: Gives seconds.
        keep_seconds: For how long a grant is handed out again; the rest of its life is left to whoever gets it last.
        size: How many grants at most.
    """

    def __init__(self, clock: Callable[[], float], keep_seconds: float = 10, size: int = 50_000) -> None:
        self._clock = clock
        self._keep = keep_seconds
        self._size = size
        self._grants: OrderedDict[Hashable, tuple[float, str]] = OrderedDict()

    def get_or_issue(self, key: Hashable, issue: Callable[[], str]) -> str:
        """Gives the grant kept under a key, or signs one."""
        now = self._clock()
        kept = self._grants.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        grant = issue()
        self._grants[key] = (now + self._keep, grant)
        self._grants.move_to_end(key)
        while len(self._grants) > self._size:
            self._grants.popitem(last=False)
        return grant
