"""Settings of the worker, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        deployment: The installation, as bound in contexts.
        region: The region, as bound in contexts.
        provider_ca: A further CA to believe of Providers; None: the usual ones alone.
        unsafe_allow_loopback: Whether Providers on this machine may be called. For development alone.
        provider_timeout_seconds: How long a Provider may take.
        spool: The folder for answers that vault could not take, on a disk that outlives this process.
        deliver_seconds: How often it is tried to deliver them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    deployment: str
    region: str
    files: Files
    server: ServerConfig
    vault: PeerConfig
    clientsecrets: PeerConfig
    coordinator: PeerConfig
    spool: Path
    deliver_seconds: float = 1.0
    provider_ca: Path | None = None
    unsafe_allow_loopback: bool = False
    provider_timeout_seconds: float = 40.0
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
