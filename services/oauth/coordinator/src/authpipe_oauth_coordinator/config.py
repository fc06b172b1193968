"""Settings of coordinator, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        region: The region that grants name.
        lease_seconds: How long a lease lives without a heartbeat.
        spool_patience_seconds: For how long the answer to a refresh is waited for that a worker has on its disk.
        refresh_ahead: Whether tokens are refreshed before they end, though nobody asks.
        schedule_seconds: How often it is looked for what is due.
        claim_seconds: After what time another replica takes up a scheduled refresh that one took up and did not end.
        refreshes_at_once: How many scheduled refreshes one replica has under way, a quarter of them of one Provider.
        refreshes_per_provider: How many scheduled refreshes a second one Provider gets, from all replicas together.
        revocation_patience_seconds: For how long a Provider is asked to revoke before the rest is erased all the same.
        kept_days: For how many days a connection may be kept to be taken back, 0 to 30; 0: it is erased at once.
        health_check_seconds: How often each credential is tried by itself; 0: when somebody asks.
        discovery_seconds: After what time metadata that was found by issuer is fetched again; 0: never.
        sweep_seconds: How often unfinished disconnects and abandoned drafts are looked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    worker: PeerConfig
    vault: PeerConfig
    clientsecrets: PeerConfig
    audit: PeerConfig
    lease_seconds: float = 10.0
    spool_patience_seconds: float = 900.0
    refresh_ahead: bool = True
    schedule_seconds: float = 0.25
    claim_seconds: float = 60.0
    refreshes_at_once: int = 1_024
    refreshes_per_provider: int = 50
    sweep_seconds: float = 5.0
    revocation_patience_seconds: float = 86_400.0
    kept_days: float = Field(default=30.0, ge=0, le=30)
    health_check_seconds: float = Field(default=86_400.0, ge=0)
    discovery_seconds: float = Field(default=86_400.0, ge=0)
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
