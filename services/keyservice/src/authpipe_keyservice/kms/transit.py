"""Transit of OpenBao or Vault, with a key of type aes256-gcm96, which binds associated data."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hvac
from hvac import exceptions

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, KeyTamperedError
from authpipe_keyservice.kms.canonical import canonical

_WAIT_SECONDS = 2.0
_TYPE = "aes256-gcm96"
# Transit says 400 both for what does not open and for a key that is gone; by its words they are told apart.
_GONE = ("encryption key not found", "no existing key", "disallowed by policy", "not found", "soft deleted")


class TransitKey:
    """A key in Transit.

    Args:
        address: https://host:port.
        mount: Where Transit is mounted.
        key_name: The key.
        token_file: Our token there; it is read with every call, so that it can be renewed by somebody else.
        ca: The CA of that address.
    """

    def __init__(self, *, address: str, mount: str, key_name: str, token_file: Path, ca: Path | None) -> None:
        self._mount = mount
        self._key_name = key_name
        self._token_file = token_file
        self._client: Any = hvac.Client(
            address, verify=str(ca) if ca else True, timeout=_WAIT_SECONDS, allow_redirects=False
        )

    def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps."""
        answer = self._ask("encrypt_data", plaintext=_text(payload), associated_data=_text(canonical(context)))
        return str(answer["data"]["ciphertext"]).encode()

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps."""
        answer = self._ask(
            "decrypt_data", ciphertext=wrapped.decode("ascii"), associated_data=_text(canonical(context))
        )
        return base64.b64decode(answer["data"]["plaintext"])

    def describe(self) -> str:
        """Names the key by its path, once it is of the type that binds what it has to."""
        found = self._ask("read_key")
        if found["data"]["type"] != _TYPE or found["data"].get("exportable"):
            raise CustomerKeyUnavailableError
        return f"{self._mount}/{self._key_name}"

    def _ask(self, act: str, **values: Any) -> Any:
        self._client.token = self._token_file.read_text().strip()
        try:
            return getattr(self._client.secrets.transit, act)(name=self._key_name, mount_point=self._mount, **values)
        except (exceptions.Forbidden, exceptions.Unauthorized, exceptions.InvalidPath):
            raise CustomerKeyUnavailableError from None
        except exceptions.InvalidRequest as error:
            said = " ".join(map(str, error.errors or ())).lower()
            if any(each in said for each in _GONE):
                raise CustomerKeyUnavailableError from None
            raise KeyTamperedError from None
        except exceptions.VaultError:
            raise CustomerKmsUnavailableError from None


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
