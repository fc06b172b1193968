"""A process's own mTLS leaf as its signing identity: grants, sealed keys and batches of audit events, and nothing else.

The files are re-read when they change: a leaf lives for hours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from authpipe_grants.consumer import Kind, ReleasedKey, SealedBundle, seal_to_consumer
from authpipe_grants.issuing import Issuer
from authpipe_transparency import sign_batch

# How often the files are looked at.
_LOOK_SECONDS = 1.0


class SignedBatch(NamedTuple):
    """Audit events, in their canonical encoding, as their emitter signed them.

    Args:
        first_sequence: The emitter's number of the first.
        events: The events.
        signature: Of the batch's statement (authpipe_transparency.batches), DER.
        chain: The emitter's certificate, DER, leaf first.
    """

    first_sequence: int
    events: Sequence[bytes]
    signature: bytes
    chain: tuple[bytes, ...]


class Leaf:
    """Signs with the leaf key.

    Args:
        certificate: PEM chain file, leaf first.
        key: PEM key file, P-256.
        trust_domain: The SPIFFE trust domain.
        clock: Seconds since the epoch.
    """

    def __init__(self, certificate: Path, key: Path, trust_domain: str, clock: Callable[[], float]) -> None:
        self._certificate = certificate
        self._key = key
        self._trust_domain = trust_domain
        self._clock = clock
        self._seen = 0.0
        self._look_at = 0.0
        self._load()

    def seal(
        self, public_key: bytes, challenge: bytes, kind: Kind, keys: Iterable[tuple[int, ReleasedKey]]
    ) -> SealedBundle:
        """Seals keys to a consumer, as this process."""
        self._refresh()
        return seal_to_consumer(public_key, challenge, kind, keys, self._signing_key, self._chain)

    def sign_batch(self, first_sequence: int, events: Sequence[bytes]) -> SignedBatch:
        """Signs audit events, as this process."""
        self._refresh()
        signature = sign_batch(self._signing_key, self._issuer.name, first_sequence, events)
        return SignedBatch(first_sequence, events, signature, self._chain)

    @property
    def issuer(self) -> Issuer:
        """Signs grants, as this process."""
        self._refresh()
        return self._issuer

    def _refresh(self) -> None:
        now = self._clock()
        if not self._look_at - _LOOK_SECONDS <= now < self._look_at:  # also when the clock was put back
            self._look_at = now + _LOOK_SECONDS
            if self._certificate.stat().st_mtime != self._seen:
                self._load()

    def _load(self) -> None:
        seen = self._certificate.stat().st_mtime
        certificate, key = self._certificate.read_bytes(), self._key.read_bytes()
        signing_key = load_pem_private_key(key, None)
        if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
            raise TypeError("The leaf's key is not a P-256 key.")
        self._signing_key = signing_key
        self._chain = tuple(each.public_bytes(Encoding.DER) for each in x509.load_pem_x509_certificates(certificate))
        self._issuer = Issuer(certificate, key, self._trust_domain, self._clock)
        self._seen = seen
