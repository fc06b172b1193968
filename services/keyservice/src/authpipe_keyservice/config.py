"""Settings of keyservice, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from authpipe_database import DatabaseConfig
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Config(BaseModel):
    """Settings.

    Args:
        key_domain: Which keys this process has.
        region: The region that grants must name.
        pkcs11_module: The PKCS#11 library.
        token_label: The token of this key domain.
        pin_file: A file with the token's PIN, readable by this process alone.
        release_per_workspace_minute: Releases of one workspace a minute.
        release_per_signer_minute: Releases under grants of one signer a minute.
        cache_seconds: For how long unwrapped DEKs and CKs are kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_domain: Literal["user-credentials", "client-secrets", "audit-log"]
    region: str
    files: Files
    server: ServerConfig
    database: DatabaseConfig
    audit: PeerConfig | None = None
    pkcs11_module: Path
    token_label: str
    pin_file: Path
    release_per_workspace_minute: int = 600_000
    release_per_signer_minute: int = 2_000_000
    cache_seconds: float = 300.0
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01
