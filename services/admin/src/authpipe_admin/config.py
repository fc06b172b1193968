"""Where the key services are, and who the operator is; unknown names are refused; secrets are paths."""

from __future__ import annotations


from pydantic import BaseModel, ConfigDict

from authpipe_rpc import Files, PeerConfig


class Config(BaseModel):
    """Settings.

    Args:
        files: The operator's certificate, key and CA.
        keyservices: The keyservice of each key domain, by its name.
        stores: vault and clientsecrets, by their names.
        audit: The log.
        authority: Who keeps workspaces.
        coordinator: The coordinator, which has records sealed again; None: this operator does not reach it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: Files
    keyservices: dict[str, PeerConfig]
    coordinator: PeerConfig | None = None
    stores: dict[str, PeerConfig] = {}
    audit: PeerConfig | None = None
    authority: PeerConfig | None = None
