"""Azure Key Vault. RSA-OAEP-256 binds no context of its own: its digest goes inside, and is compared when it comes back.

wrapped   RSA-OAEP-256( SHA-256(context) (32) ‖ payload ), at most 96 bytes of payload with a key of 2048 bits
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, EncryptionAlgorithm

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, KeyTamperedError
from authpipe_keyservice.kms.canonical import digest

_DIGEST = 32
_WITHDRAWN = {401, 403, 404, 409}
_CHANGED = {400}


class _TokenFile:
    """A bearer token that somebody else renews in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def get_token(self, *_: str, **__: object) -> AccessToken:
        return AccessToken(self._file.read_text().strip(), int(time.time()) + 300)


class AzureKey:
    """A key in an Azure Key Vault.

    Args:
        key_id: https://<vault>/keys/<name>/<version>.
        token_file: Who we are; None: as azure-identity finds out.
        ca: The CA of the vault, where it is not a public one.
    """

    def __init__(self, *, key_id: str, token_file: Path | None, ca: Path | None) -> None:
        self._key_id = key_id
        credential: Any = _TokenFile(token_file) if token_file else DefaultAzureCredential()
        options: dict[str, Any] = {
            "connection_timeout": 1,
            "read_timeout": 2,
            "retry_total": 0,
            "connection_verify": str(ca) if ca else True,
            # The host was compared with those that are allowed; a private cloud's has another end.
            "verify_challenge_resource": ca is None,
        }
        self._crypto: Any = CryptographyClient(key_id, credential, **options)
        vault, _, rest = key_id.partition("/keys/")
        self._name, _, self._version = rest.partition("/")
        self._keys: Any = KeyClient(vault, credential, **options)

    def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps."""
        bound = digest(context) + payload
        return bytes(self._ask(lambda: self._crypto.encrypt(EncryptionAlgorithm.rsa_oaep_256, bound)).ciphertext)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps."""
        bound = bytes(self._ask(lambda: self._crypto.decrypt(EncryptionAlgorithm.rsa_oaep_256, wrapped)).plaintext)
        if not hmac.compare_digest(bound[:_DIGEST], digest(context)):
            raise KeyTamperedError
        return bound[_DIGEST:]

    def describe(self) -> str:
        """Names the key by its id."""
        return str(self._ask(lambda: self._keys.get_key(self._name, self._version or None)).id)

    def _ask(self, act: Any) -> Any:
        try:
            return act()
        except (ClientAuthenticationError, ResourceNotFoundError):
            raise CustomerKeyUnavailableError from None
        except HttpResponseError as error:
            if error.status_code in _WITHDRAWN:
                raise CustomerKeyUnavailableError from None
            if error.status_code in _CHANGED:
                raise KeyTamperedError from None
            raise CustomerKmsUnavailableError from None
