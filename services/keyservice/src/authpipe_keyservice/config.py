"""Settings of keyservice, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from authpipe_database import DatabaseConfig
from authpipe_keyservice.kms.settings import KmsSettings
from authpipe_rpc import Files, PeerConfig, ServerConfig


class Bound(BaseModel):
    """How many releases.

    Args:
        minute: In a minute.
        second: In a second: the burst.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    minute: int = Field(gt=0)
    second: int = Field(gt=0)


class Config(BaseModel):
    """Settings.

    Args:
        key_domain: Which keys this process has.
        region: The region that grants must name.
        pkcs11_module: The PKCS#11 library.
        token_label: The token of this key domain.
        pin_file: A file with the token's PIN, readable by this process alone.
        per_workspace: How many releases of one workspace.
        per_signer: How many releases under grants of one signer.
        per_consumer: How many releases to one consumer.
        workspaces_minute: Of how many workspaces one signer may have keys released in a minute.
        cache_seconds: For how long unwrapped DEKs and CKs are kept.
        kek_rotation_days: How long a KEK version stays primary.
        kek_grace_days: How long a KEK version has to be disabled before it can be destroyed.
        dek_rotation_days: How long a workspace's DEK stays primary.
        deployment: The name of the installation, as bound in the context of customers' keys.
        kms: What this installation may use as a customer's KMS.
        origins: The logs whose checkpoints audit-log signs; of another, it signs nothing.
        rewrap_share: The share of its time that re-wrapping may keep the HSM busy; 1: no pause.
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
    per_workspace: Bound = Bound(minute=600_000, second=20_000)
    per_signer: Bound = Bound(minute=2_000_000, second=60_000)
    per_consumer: Bound = Bound(minute=2_000_000, second=60_000)
    workspaces_minute: int = Field(default=50_000, gt=0)
    cache_seconds: float = 300.0
    kek_rotation_days: float = Field(default=90.0, gt=0)
    kek_grace_days: float = Field(default=30.0, ge=0)
    dek_rotation_days: float = Field(default=365.0, gt=0)
    deployment: str = ""
    kms: KmsSettings = KmsSettings()
    origins: tuple[str, ...] = ()
    rewrap_share: float = Field(default=0.1, gt=0, le=1)
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01

    @property
    def sink(self) -> PeerConfig:
        """Gives where events go.

        Raises:
            PydanticCustomError: Nowhere.
        """
        if self.audit is None:
            raise PydanticCustomError("audit_is_missing", "Without a sink for its events keyservice does not start.")
        return self.audit

    @model_validator(mode="after")
    def _events_go_somewhere(self) -> Config:
        if self.key_domain != "audit-log":
            _ = self.sink
        return self
