"""Who emitted: the certificates of an installation's processes, under the CA that its operator published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authpipe_grants import GrantError, TrustAnchor
from authpipe_transparency import ProofError
from authpipe_transparency.emitting import Certified, VerifyChain


class CaError(Exception):
    """The file has no certificate of a CA."""


def verifier(ca: Path, trust_domain: str) -> VerifyChain:
    """Makes what verifies emitters' certificates.

    A certificate lives for hours and an export for years: it is verified at the time at which it ended, and what it signed
    may not be later than that.

    Args:
        ca: The CA's certificates, PEM; also those that were its before.
        trust_domain: The installation's SPIFFE trust domain.

    Raises:
        CaError: There is no certificate in the file.
    """
    try:
        anchor = TrustAnchor(ca.read_bytes(), trust_domain)
    except (OSError, ValueError):
        raise CaError(f"There is no certificate in {ca}: it has to be the CA's, as PEM.") from None

    def verify_chain(chain: Sequence[bytes]) -> Certified:
        try:
            until = x509.load_der_x509_certificate(chain[0]).not_valid_after_utc
            leaf, path = anchor.verify_chain(chain, until)
        except (GrantError, ValueError):
            raise ProofError from None
        return Certified(leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), path, until)

    return verify_chain
