"""Where a process listens, whom it calls, and the files that say who it is. Secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Files(_Frozen):
    """The certificate, key and CA of a process; re-read when they change.

    Args:
        certificate: PEM chain, leaf first.
        key: PEM of the P-256 key.
        ca: PEM of the private CA.
        trust_domain: The SPIFFE trust domain.
    """

    certificate: Path
    key: Path
    ca: Path
    trust_domain: str


class ServerConfig(_Frozen):
    """Where a process listens.

    Args:
        host: The address.
        port: The port.
        connection_age_seconds: How long a connection lives; a certificate that ended meanwhile ends with it.
        grace_seconds: How long running calls may go on when the process stops.
    """

    host: str
    port: int
    connection_age_seconds: float = 300.0
    grace_seconds: float = 5.0


class PeerConfig(_Frozen):
    """Where a peer listens.

    Args:
        name: The path of its SPIFFE id.
        address: host:port, a DNS name of several (dns:///…), or a list (ipv4:host:port,host:port).
    """

    name: str
    address: str
