"""The certificate that a server shows, read again when its files have changed."""

from __future__ import annotations

import time
from pathlib import Path

import grpc

# grpc asks for the certificate under a lock, and lets go of it before the handshake has counted itself among the users
# of what it got. Whoever left just before a change has this long to do so (grpc/grpc#36693).
_SETTLED_SECONDS = 0.05


def server_credentials(key: Path, certificate: Path, clients_ca: Path | None = None) -> grpc.ServerCredentials:
    """Gives credentials that follow their files: whoever connects after a change sees the new certificate.

    A new configuration is given only when a file has changed. Given at every handshake, two handshakes at the same
    moment free what the other still uses, and the process ends (grpc/grpc#36693): anybody who can connect could end it.

    Args:
        key: The private key (PEM).
        certificate: Its certificate and what leads to the root (PEM).
        clients_ca: Who signs the certificates of callers (PEM), who must show one then; None: callers show none.

    Raises:
        OSError: A file cannot be read now. Later, the certificate stays what it was.
    """
    following = _Files([key, certificate, *([clients_ca] if clients_ca else [])])
    return grpc.dynamic_ssl_server_credentials(
        following.first(),
        following.changed,  # type: ignore[arg-type]  # None says that nothing has changed; the stubs do not know it
        require_client_authentication=clients_ca is not None,
    )


class _Files:
    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._given = self._read()

    def first(self) -> grpc.ServerCertificateConfiguration:
        return _configuration(self._given)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpc at every handshake, one at a time; None: all is as it was."""
        found = self._read()
        if found == self._given:
            return None
        time.sleep(_SETTLED_SECONDS)
        self._given = found
        return _configuration(found)

    def _read(self) -> list[bytes]:
        return [path.read_bytes() for path in self._paths]


def _configuration(contents: list[bytes]) -> grpc.ServerCertificateConfiguration:
    key, certificate, *ca = contents
    return grpc.ssl_server_certificate_configuration([(key, certificate)], ca[0] if ca else None)
