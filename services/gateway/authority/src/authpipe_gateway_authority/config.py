"""Settings of authority, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        region: The region that grants name.
        mac_key_file: 64 random bytes: 32 for the MAC over rows, 32 for the keyed hash of API keys.
        key_kind: "test" or "live": the middle of an API key.
        dashboard_url: How browsers reach the dashboard, "https://authpipe.example": the origin that passkeys are bound to,
            and its host the Relying Party's id. A passkey works at no other.
        session_seconds: How long a session of the dashboard lasts, whatever is done in it.
        reuse_ms: For how long edge may reuse a verdict: how long a revoked key may still work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    audit: PeerConfig
    mac_key_file: Path
    dashboard_url: str = Field(pattern=r"^https://[a-z0-9.-]+(:[0-9]+)?$")
    session_seconds: int = Field(default=8 * 3600, gt=0, le=7 * 86_400)
    key_kind: str = "test"
    reuse_ms: int = 2_000
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
