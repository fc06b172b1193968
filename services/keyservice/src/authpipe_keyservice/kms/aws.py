"""AWS KMS. The customer's key policy lets a role use it; we take the role with the external id that the customer chose."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
from botocore.exceptions import ClientError
from botocore.session import get_session

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, KeyTamperedError

# The key is off, gone, or not ours to use any more.
_WITHDRAWN = {
    "AccessDenied",
    "AccessDeniedException",
    "DisabledException",
    "InvalidKeyUsageException",
    "KMSInvalidStateException",
    "NotFoundException",
}
_CHANGED = {"InvalidCiphertextException", "IncorrectKeyException"}


class AwsKey:
    """A key in AWS KMS.

    Args:
        key_arn: The key; its region is in it.
        role_arn: The role to take; empty: we use the key as who we are.
        external_id: The external id for that role.
        credentials_file: Who we are; None: as boto3 finds out.
        endpoint: Where AWS is; empty: at AWS.
        ca: The CA of that endpoint.
    """

    def __init__(
        self,
        *,
        key_arn: str,
        role_arn: str,
        external_id: str,
        credentials_file: Path | None,
        endpoint: str,
        ca: Path | None,
    ) -> None:
        self._key_arn = key_arn
        region = key_arn.split(":")[3]
        # No retry of the library's: a batch may wait for this, and it is asked again anyway.
        config = Config(connect_timeout=1, read_timeout=2, retries={"total_max_attempts": 1}, max_pool_connections=2)
        options: dict[str, Any] = {"region_name": region, "config": config, "verify": str(ca) if ca else None}
        if endpoint:
            options["endpoint_url"] = endpoint
        inner = get_session()
        if credentials_file is not None:
            inner.set_config_variable("credentials_file", str(credentials_file))
        if role_arn:
            source = inner.get_credentials()
            if source is None:
                raise CustomerKmsUnavailableError
            fetcher = AssumeRoleCredentialFetcher(
                client_creator=lambda service, **more: inner.create_client(service, **{**options, **more}),
                source_credentials=source,
                role_arn=role_arn,
                extra_args={"ExternalId": external_id, "RoleSessionName": "authpipe"},
            )
            taken = get_session()
            taken._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")  # noqa: SLF001  # botocore's documented way
            inner = taken
        self._client: Any = boto3.Session(botocore_session=inner).client("kms", **options)

    def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps."""
        answer = self._ask("encrypt", Plaintext=payload, EncryptionContext=dict(context))
        return bytes(answer["CiphertextBlob"])

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps."""
        answer = self._ask("decrypt", CiphertextBlob=wrapped, EncryptionContext=dict(context))
        return bytes(answer["Plaintext"])

    def describe(self) -> str:
        """Names the key by its ARN, once AWS knows it as one that encrypts."""
        found = self._ask("describe_key")["KeyMetadata"]
        if found["KeyUsage"] != "ENCRYPT_DECRYPT":
            raise CustomerKeyUnavailableError
        return str(found["Arn"])

    def _ask(self, act: str, **values: Any) -> Any:
        try:
            return getattr(self._client, act)(KeyId=self._key_arn, **values)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _CHANGED:
                raise KeyTamperedError from None
            if code in _WITHDRAWN:
                raise CustomerKeyUnavailableError from None
            raise CustomerKmsUnavailableError from None
