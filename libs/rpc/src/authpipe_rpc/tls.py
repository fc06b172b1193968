"""TLS 1.3 only, with a grpc that has no argument for it (promise P02).

`GRPC_SSL_CIPHER_SUITES` governs only TLS 1.2 and older. With one PSK suite in it and no PSK ever installed, no 1.2
handshake finds a shared cipher, on either side; 1.3 is untouched. grpc reads the variable when it is imported, so this
module sets it first and refuses to work where it came too late. Each server also probes itself at start.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from pathlib import Path

from authpipe_sensitive import DomainError, Status

_VARIABLE = "GRPC_SSL_CIPHER_SUITES"
_NONE_OF_TLS_1_2 = "ECDHE-PSK-CHACHA20-POLY1305"


class TlsError(DomainError):
    """This process would speak TLS below 1.3 and does not start.

    Import authpipe_rpc before grpc, or set GRPC_SSL_CIPHER_SUITES=ECDHE-PSK-CHACHA20-POLY1305 in its environment.
    """

    reason = "TLS_TOO_OLD"
    status = Status.INTERNAL


if os.environ.get(_VARIABLE) != _NONE_OF_TLS_1_2:
    if "grpc" in sys.modules:
        raise TlsError
    os.environ[_VARIABLE] = _NONE_OF_TLS_1_2


async def require_tls_1_3_only(host: str, port: int, ca: Path, certificate: Path, key: Path, server_name: str) -> None:
    """Proves that a port of ours refuses TLS 1.2 and takes 1.3.

    The probe brings a valid client certificate, so that what refuses it is the version and nothing else.

    Raises:
        TlsError: TLS 1.2 was accepted, or 1.3 refused.
    """
    for version, wanted in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2"])
        try:
            _, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname=server_name)
        except (ssl.SSLError, ConnectionError):
            accepted = False
        else:
            accepted = True
            writer.close()
        if accepted is not wanted:
            raise TlsError
