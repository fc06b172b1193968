"""Google Cloud KMS. The customer gives our service account the role to encrypt and decrypt with one key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import google.auth
import grpc
from google.api_core import exceptions
from google.auth.transport.grpc import AuthMetadataPlugin
from google.auth.transport.requests import Request
from google.cloud import kms_v1
from google.cloud.kms_v1.services.key_management_service.transports import KeyManagementServiceGrpcTransport

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, KeyTamperedError
from authpipe_keyservice.kms.canonical import canonical

# The version is disabled or destroyed (FAILED_PRECONDITION), the key is gone, or not ours to use any more.
_WITHDRAWN = (
    exceptions.Forbidden,
    exceptions.Unauthorized,
    exceptions.NotFound,
    exceptions.FailedPrecondition,
)
_SCOPE = "https://www.googleapis.com/auth/cloudkms"
_WAIT_SECONDS = 2.0
_load: Any = google.auth.load_credentials_from_file  # untyped
_plugin: Any = AuthMetadataPlugin  # untyped


def _credentials(file: Path) -> Any:
    return _load(str(file), scopes=[_SCOPE])[0]


class GoogleKey:
    """A key in Google Cloud KMS.

    Args:
        key_name: projects/…/locations/…/keyRings/…/cryptoKeys/….
        credentials_file: Who we are; None: as google-auth finds out.
        endpoint: Where the KMS is, host:port; empty: at Google.
        ca: The CA of that endpoint.
    """

    def __init__(self, *, key_name: str, credentials_file: Path | None, endpoint: str, ca: Path | None) -> None:
        self._key_name = key_name
        if not endpoint:
            credentials = (
                _credentials(credentials_file) if credentials_file else google.auth.default(scopes=[_SCOPE])[0]
            )
            self._client: Any = kms_v1.KeyManagementServiceClient(credentials=credentials)
            return
        secure = grpc.ssl_channel_credentials(ca.read_bytes() if ca else None)
        if credentials_file is not None:
            plugin = grpc.metadata_call_credentials(_plugin(_credentials(credentials_file), Request()))
            secure = grpc.composite_channel_credentials(secure, plugin)
        transport = KeyManagementServiceGrpcTransport(channel=grpc.secure_channel(endpoint, secure))
        self._client = kms_v1.KeyManagementServiceClient(transport=transport)

    def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps."""
        request = {
            "name": self._key_name,
            "plaintext": payload,
            "additional_authenticated_data": canonical(context),
        }
        return bytes(self._ask("encrypt", request).ciphertext)

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps."""
        request = {
            "name": self._key_name,
            "ciphertext": wrapped,
            "additional_authenticated_data": canonical(context),
        }
        return bytes(self._ask("decrypt", request).plaintext)

    def describe(self) -> str:
        """Names the key by its resource name, once Google knows it as one that encrypts."""
        found = self._ask("get_crypto_key", {"name": self._key_name})
        if found.purpose != kms_v1.CryptoKey.CryptoKeyPurpose.ENCRYPT_DECRYPT:
            raise CustomerKeyUnavailableError
        return str(found.name)

    def _ask(self, act: str, request: Mapping[str, object]) -> Any:
        try:
            return getattr(self._client, act)(request=request, timeout=_WAIT_SECONDS, retry=None)
        except _WITHDRAWN:
            raise CustomerKeyUnavailableError from None
        except exceptions.InvalidArgument:
            raise KeyTamperedError from None
        except exceptions.GoogleAPICallError:
            raise CustomerKmsUnavailableError from None
