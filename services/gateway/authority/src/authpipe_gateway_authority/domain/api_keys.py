"""API keys and workspaces as stored: rows that give access, each under a MAC; of a key only its keyed hash."""

from __future__ import annotations

from dataclasses import dataclass

from authpipe_gateway_authority.domain.row_mac import is_genuine, row_mac
from authpipe_sensitive import Secret

SCOPES = (
    "tokens:read",
    "tokens:refresh",
    "connections:read",
    "connections:write",
    "provider_configs:read",
    "provider_configs:write",
    "proxy:use",
    "connect_sessions:write",
    "audit:read",
    "workspace:contain",
)


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """An API key as stored.

    Args:
        workspace: Its workspace.
        api_key_id: Its id.
        display_name: A name to show.
        key_hash: The keyed hash, 32 bytes.
        scopes: What it may do.
        state: "active" or "revoked".
        epoch: The workspace's epoch when the row was written.
        mac: The MAC over all of it.
    """

    workspace: str
    api_key_id: str
    display_name: str
    key_hash: bytes
    scopes: tuple[str, ...]
    state: str
    epoch: int
    mac: bytes = b""

    def fields(self) -> tuple[str, ...]:
        """Gives the fields under the MAC: all but the MAC."""
        scopes = ",".join(self.scopes)
        return (
            self.workspace,
            self.api_key_id,
            self.display_name,
            self.key_hash.hex(),
            scopes,
            self.state,
            str(self.epoch),
        )

    def sealed(self, key: Secret) -> ApiKeyRow:
        """Gives the row with its MAC."""
        mac = row_mac(key, "api_keys", self.fields())
        return ApiKeyRow(
            self.workspace,
            self.api_key_id,
            self.display_name,
            self.key_hash,
            self.scopes,
            self.state,
            self.epoch,
            mac,
        )

    def is_genuine(self, key: Secret) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "api_keys", self.fields(), self.mac)


@dataclass(frozen=True, slots=True)
class WorkspaceRow:
    """A workspace as stored.

    Args:
        workspace: Its id.
        display_name: A name to show.
        epoch: How often something was revoked in it, or it was frozen or unfrozen, from 1 on.
        is_frozen: Whether nothing of it is served or changed.
        mac: The MAC over all of it.
    """

    workspace: str
    display_name: str
    epoch: int
    is_frozen: bool = False
    mac: bytes = b""

    def fields(self) -> tuple[str, ...]:
        """Gives the fields under the MAC."""
        return (self.workspace, self.display_name, str(self.epoch), "frozen" if self.is_frozen else "")

    def sealed(self, key: Secret) -> WorkspaceRow:
        """Gives the row with its MAC."""
        mac = row_mac(key, "workspaces", self.fields())
        return WorkspaceRow(self.workspace, self.display_name, self.epoch, self.is_frozen, mac)

    def is_genuine(self, key: Secret) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "workspaces", self.fields(), self.mac)
