"""Settings of edge, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        deployment: The installation, as bound in contexts.
        region: The region, as bound in contexts.
        public_url: How browsers reach us, without a slash at the end.
        rest: Where REST listens.
        grpc: Where the public gRPC listens.
        server: Where health is served to our own processes.
        public_certificate: PEM chain for customers.
        public_key: Its key, PKCS#8.
        rest_connections: How many connections REST has open at most, idle ones counted; each is a file descriptor.
        trusted_proxies: The networks of our own proxies, whose X-Forwarded-For is believed: "10.0.0.0/8".
        security_contact: Where to report a vulnerability (RFC 9116).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: str
    region: str
    public_url: str
    rest: ServerConfig
    grpc: ServerConfig
    server: ServerConfig
    public_certificate: Path
    public_key: Path
    files: Files
    authority: PeerConfig
    vault: PeerConfig
    clientsecrets: PeerConfig
    coordinator: PeerConfig
    worker: PeerConfig
    audit: PeerConfig
    rest_connections: int = Field(default=8_192, gt=0)
    trusted_proxies: tuple[str, ...] = ()
    security_contact: str = "mailto:security@authpipe.invalid"
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
