"""How a real Chromium is started for a test."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def chromium_flags(*, trusts: Path | None = None) -> list[str]:
    """Gives Chromium's flags: nothing leaves this machine but what a test asks for.

    Args:
        trusts: A certificate, PEM, that is believed as if a public CA had signed it: passkeys need one.
    """
    flags = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")
    if trusts is not None:
        key = x509.load_pem_x509_certificate(trusts.read_bytes()).public_key()
        digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
        flags.append(f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}")
    return flags
