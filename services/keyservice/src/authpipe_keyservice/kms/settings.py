"""What an installation may use as a customer's KMS, and how it shows who it is there. Secrets are paths."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class CustomerToken(BaseModel):
    """A PKCS#11 token of a customer.

    Args:
        token_label: The token.
        pin_file: The file with its PIN.
        module: Its PKCS#11 library; None: the one of this process's own token, whose one thread it shares then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_label: str
    pin_file: Path
    module: Path | None = None


class KmsSettings(BaseModel):
    """Settings of customers' keys.

    Args:
        aws_credentials_file: Who we are to AWS; None: as boto3 finds out (a web identity on Kubernetes).
        aws_endpoint: Where AWS is; empty: at AWS.
        google_credentials_file: Who we are to Google; None: as google-auth finds out.
        google_endpoint: Where Google's KMS is, host:port; empty: at Google.
        azure_hosts: Ends of the hosts of a vault.
        azure_token_file: A bearer token for Azure, renewed by somebody else; None: as azure-identity finds out.
        transit_hosts: The hosts, with port, at which an OpenBao or Vault may be.
        transit_tokens: Our tokens at them, files by the name that a locator gives.
        tokens: PKCS#11 tokens by the name that a locator gives.
        ca: The CA of endpoints that are named here; None: the public ones.
        timeout_seconds: How long one call may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    aws_credentials_file: Path | None = None
    aws_endpoint: str = ""
    google_credentials_file: Path | None = None
    google_endpoint: str = ""
    azure_hosts: tuple[str, ...] = (".vault.azure.net", ".managedhsm.azure.net")
    azure_token_file: Path | None = None
    transit_hosts: tuple[str, ...] = ()
    transit_tokens: dict[str, Path] = {}
    tokens: dict[str, CustomerToken] = {}
    ca: Path | None = None
    timeout_seconds: float = 3.0
