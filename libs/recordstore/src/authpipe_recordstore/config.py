"""Settings of a store, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class StoreConfig(BaseModel):
    """Settings.

    Args:
        region: The region that grants must name.
        keyservice: The keyservice of this store's key domain.
        audit: Where events are delivered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    keyservice: PeerConfig
    audit: PeerConfig
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
