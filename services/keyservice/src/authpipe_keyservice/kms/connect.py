"""From a locator, as an operator gave it, to a key in its KMS. What a locator may say is decided here, before any call."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from authpipe_keyservice.domain.customer_keys import Binding, Kms
from authpipe_keyservice.errors import CustomerKeyLocatorError
from authpipe_keyservice.kms.pool import PooledKms
from authpipe_keyservice.kms.settings import CustomerToken, KmsSettings
from authpipe_keyservice.kms.token import Token, TokenKey
from authpipe_sensitive import Label

# Per provider: the fields of a locator, each with its form; those that end in "?" may be left out.
FIELDS: Mapping[str, Mapping[str, str]] = {
    "aws": {
        "key_arn": r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+",
        "role_arn?": r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]+",
        "external_id?": r"[A-Za-z0-9+=,.@:/_-]{2,128}",
    },
    "google": {
        "key_name": r"projects/[a-z0-9:.-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+"
    },
    "azure": {"key_id": r"https://[a-z0-9.-]+(:[0-9]+)?/keys/[A-Za-z0-9-]+/[a-f0-9]{32}"},
    "transit": {
        "address": r"https://[A-Za-z0-9.-]+(:[0-9]+)?",
        "mount": r"[A-Za-z0-9_-]+",
        "key_name": r"[A-Za-z0-9_-]+",
        "credential": r"[A-Za-z0-9_-]+",
    },
    "token": {"token": r"[A-Za-z0-9_-]+", "key_label": r"[A-Za-z0-9_ .-]{1,64}"},
}


class Connector:
    """Gives the KMS of a binding.

    Args:
        settings: What this installation may use.
        token: Opens a customer's PKCS#11 token.
    """

    def __init__(self, settings: KmsSettings, token: Callable[[CustomerToken], Token]) -> None:
        self._settings = settings
        self._token = token
        self._tokens: dict[str, Token] = {}

    def __call__(self, binding: Binding) -> Kms:
        """Gives the KMS of a binding; no call is made yet.

        Raises:
            CustomerKeyLocatorError: The key cannot be there.
        """
        where = require_locator(binding.provider, binding.locator)
        match binding.provider:
            case "aws":
                return self._pooled("aws", "AwsKey", **self._aws(where))
            case "google":
                return self._pooled(
                    "google",
                    "GoogleKey",
                    key_name=where["key_name"],
                    credentials_file=self._settings.google_credentials_file,
                    endpoint=self._settings.google_endpoint,
                    ca=self._settings.ca,
                )
            case "azure":
                host = urlsplit(where["key_id"]).hostname or ""
                _require(host.endswith(self._settings.azure_hosts), "key_id")
                return self._pooled(
                    "azure",
                    "AzureKey",
                    key_id=where["key_id"],
                    token_file=self._settings.azure_token_file,
                    ca=self._settings.ca,
                )
            case "transit":
                _require(urlsplit(where["address"]).netloc in self._settings.transit_hosts, "address")
                _require(where["credential"] in self._settings.transit_tokens, "credential")
                return self._pooled(
                    "transit",
                    "TransitKey",
                    address=where["address"],
                    mount=where["mount"],
                    key_name=where["key_name"],
                    token_file=self._settings.transit_tokens[where["credential"]],
                    ca=self._settings.ca,
                )
            case _:
                _require(where["token"] in self._settings.tokens, "token")
                name = where["token"]
                if name not in self._tokens:
                    self._tokens[name] = self._token(self._settings.tokens[name])
                return TokenKey(self._tokens[name], where["key_label"])

    def _aws(self, where: Mapping[str, str]) -> dict[str, Any]:
        # A role without an external id could be taken by whoever talks us into it (the confused deputy).
        _require(("role_arn" in where) == ("external_id" in where), "external_id")
        return {
            "key_arn": where["key_arn"],
            "role_arn": where.get("role_arn", ""),
            "external_id": where.get("external_id", ""),
            "credentials_file": self._settings.aws_credentials_file,
            "endpoint": self._settings.aws_endpoint,
            "ca": self._settings.ca,
        }

    def _pooled(self, module: str, name: str, **options: Any) -> PooledKms:
        try:
            # Its library is there only where the installation uses it.
            kind = getattr(importlib.import_module(f"authpipe_keyservice.kms.{module}"), name)
        except ImportError:
            raise CustomerKeyLocatorError(field=Label("provider"), extra=Label(module)) from None
        return PooledKms(kind(**options), self._settings.timeout_seconds)


def require_locator(provider: str, locator: Mapping[str, str]) -> Mapping[str, str]:
    """Returns a locator whose fields are those of its provider, each of its form.

    Raises:
        CustomerKeyLocatorError: They are not; `field` says which.
    """
    fields = FIELDS.get(provider)
    if fields is None:
        raise CustomerKeyLocatorError(field=Label("provider"))
    for name, form in fields.items():
        value = locator.get(name.rstrip("?"))
        _require(value is not None or name.endswith("?"), name.rstrip("?"))
        _require(value is None or re.fullmatch(form, value) is not None, name.rstrip("?"))
    _require(set(locator) <= {name.rstrip("?") for name in fields}, "unknown")
    return locator


def _require(holds: object, field: str) -> None:
    if not holds:
        raise CustomerKeyLocatorError(field=Label(field))
