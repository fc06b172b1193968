"""API keys: `ap_<kind>_<43 characters><6 of checksum>`, stored only as a keyed hash.

    random    32 bytes as base62, 43 characters        checksum  CRC-32 of all before it, base62, 6 characters

The checksum lets a scanner, and us, tell a key from a typing error without asking a database. It is no protection.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Callable
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
    "connect_sessions:write",
    "audit:read",
)
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(rb"ap_[a-z]{1,8}_[0-9A-Za-z]{49}")


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

    def sealed(self, key: bytes) -> ApiKeyRow:
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

    def is_genuine(self, key: bytes) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "api_keys", self.fields(), self.mac)


@dataclass(frozen=True, slots=True)
class WorkspaceRow:
    """A workspace as stored.

    Args:
        workspace: Its id.
        display_name: A name to show.
        epoch: How often something was revoked in it, from 1 on.
        mac: The MAC over all of it.
    """

    workspace: str
    display_name: str
    epoch: int
    mac: bytes = b""

    def fields(self) -> tuple[str, ...]:
        """Gives the fields under the MAC."""
        return (self.workspace, self.display_name, str(self.epoch))

    def sealed(self, key: bytes) -> WorkspaceRow:
        """Gives the row with its MAC."""
        mac = row_mac(key, "workspaces", self.fields())
        return WorkspaceRow(self.workspace, self.display_name, self.epoch, mac)

    def is_genuine(self, key: bytes) -> bool:
        """Says whether the row is as we wrote it."""
        return is_genuine(key, "workspaces", self.fields(), self.mac)


def new_api_key(kind: str, randomness: Callable[[int], bytes]) -> Secret:
    """Makes an API key."""
    head = f"ap_{kind}_{_base62(int.from_bytes(randomness(32), 'big'), 43)}"
    return Secret((head + _base62(zlib.crc32(head.encode()), 6)).encode())


def is_well_formed(api_key: bytes) -> bool:
    """Says whether an API key has the shape and its checksum fits."""
    if _SHAPE.fullmatch(api_key) is None:
        return False
    return _base62(zlib.crc32(api_key[:-6]), 6).encode() == api_key[-6:]


def hash_api_key(key: bytes, api_key: bytes) -> bytes:
    """Gives the keyed hash under which an API key is stored, 32 bytes."""
    return hmac.digest(key, api_key, hashlib.sha256)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
