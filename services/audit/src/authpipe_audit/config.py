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
        retention_database: The same database, as the role that deletes bodies.
        watch_database: The same database, as the role that watches.
        signer: keyservice audit-log.
        origin: The log's name. The origin of a trail's checkpoints is it, a slash, and the trail's name; keyservice
            audit-log must have these three in its `origins`.
        witnesses: The verifier keys of witnesses whose cosignatures are kept (C2SP tlog-cosignature).
        cosignatures_wanted: How many of them have to have cosigned a checkpoint before it is published.
        checkpoint_seconds: How often a tree that grew is signed.
        retention_days: Of workspaces of which authority has said nothing else.
        retention_seconds: How often it is looked for bodies that are to go.
        watch_seconds: How often detectors look at what is new.
        remember_seconds: How often what they remember is written down; whoever dies looks at what came since again.
        release_bound: How many keys keyservice releases of a workspace in a minute (`per_workspace` there).
        statement_seconds: How often the log states where the chains of all workspaces stand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str
    origin: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    retention_database: DatabaseConfig
    watch_database: DatabaseConfig
    signer: PeerConfig
    witnesses: tuple[str, ...] = ()
    cosignatures_wanted: int = Field(default=0, ge=0)
    checkpoint_seconds: float = Field(default=0.5, gt=0)
    retention_days: int = Field(default=90, ge=1, le=36_500)
    retention_seconds: float = Field(default=3600.0, gt=0)
    watch_seconds: float = Field(default=1.0, gt=0)
    remember_seconds: float = Field(default=10.0, gt=0)
    release_bound: int = Field(default=600_000, ge=1)
    statement_seconds: float = Field(default=30.0, gt=0)
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
