"""Settings of audit, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        region: The region that grants must name.
        signer: keyservice audit-log.
        origin: The log's name. The origin of a trail's checkpoints is it, a slash, and the trail's name; keyservice
            audit-log must have these three in its `origins`.
        checkpoint_seconds: How often a tree that grew is signed.
        statement_seconds: How often the log states where the chains of all workspaces stand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    origin: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    signer: PeerConfig
    checkpoint_seconds: float = Field(default=1.0, gt=0)
    statement_seconds: float = Field(default=30.0, gt=0)
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
