"""Who signed: certificates under our CA, by their SPIFFE id."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from authpipe_grants.claims import GrantError


def spiffe_path(certificate: x509.Certificate, trust_domain: str) -> str:
    """Gives the path of a certificate's SPIFFE id, without the slash in front (SPIFFE X.509-SVID, section 2).

    Raises:
        GrantError: There is no SPIFFE id, more than one URI, or another trust domain.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise GrantError from None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    prefix = f"spiffe://{trust_domain}/"
    if len(uris) != 1 or not uris[0].startswith(prefix):
        raise GrantError
    return uris[0].removeprefix(prefix)


class TrustAnchor:
    """Verifies certificate chains against the private CA.

    Verified leaves are remembered until they end: a chain costs about 0.2 ms, and signers are few.

    Args:
        roots: The CA's certificates, PEM.
        trust_domain: The SPIFFE trust domain.
    """

    def __init__(self, roots: bytes, trust_domain: str) -> None:
        self._store = Store(x509.load_pem_x509_certificates(roots))
        self._trust_domain = trust_domain
        self._verified: dict[bytes, tuple[x509.Certificate, str]] = {}

    def verify_chain(self, chain: Sequence[bytes], now: dt.datetime) -> tuple[x509.Certificate, str]:
        """Verifies a chain and gives its leaf and the leaf's SPIFFE path.

        Args:
            chain: DER, leaf first.
            now: With time zone.

        Raises:
            GrantError: The chain does not lead to our CA, is expired, or names nobody.
        """
        if not chain:
            raise GrantError
        known = self._verified.get(chain[0])
        if known is not None:
            if not known[0].not_valid_before_utc <= now <= known[0].not_valid_after_utc:
                del self._verified[chain[0]]
                raise GrantError
            return known
        try:
            certificates = [x509.load_der_x509_certificate(der) for der in chain]
            verifier = PolicyBuilder().store(self._store).time(now).build_client_verifier()
            verifier.verify(certificates[0], certificates[1:])
        except (ValueError, VerificationError):
            raise GrantError from None
        found = certificates[0], spiffe_path(certificates[0], self._trust_domain)
        if len(self._verified) > 256:
            self._verified.clear()
        self._verified[chain[0]] = found
        return found
