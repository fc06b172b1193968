"""Settings of audit, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        region: The region that grants must name.
        signer: keyservice audit-log.
        origin: The log's origin line (C2SP tlog-checkpoint).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    origin: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    signer: PeerConfig
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
