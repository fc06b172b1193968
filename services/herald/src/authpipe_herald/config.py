"""Settings of herald, parsed once; unknown names are refused; secrets are paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, UrlConstraints, model_validator
from pydantic_core import PydanticCustomError

from authpipe_rpc import Files, PeerConfig, ServerConfig

_NAME = r"^[a-z][a-z0-9-]{0,31}$"
_HOST = r"^[A-Za-z0-9.:-]{1,253}$"
# What goes into a header of a message as it is: no line break, nothing that quotes.
_ADDRESS = r"^[^\s@,;<>\"()]{1,64}@[A-Za-z0-9.-]{1,253}$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WebhookConfig(_Frozen):
    """A webhook.

    Args:
        name: What audit remembers by what it was told. A new name is told of the last seven days.
        url: Where notices are posted.
        secret_file: The signing secret, as Standard Webhooks has it: whsec_ and base64.
        ca: Whom to believe, PEM; None: whom this machine trusts.
    """

    name: str = Field(pattern=_NAME)
    url: Annotated[HttpUrl, UrlConstraints(allowed_schemes=["https"], max_length=2000)]
    secret_file: Path
    ca: Path | None = None


class ServerOfMail(_Frozen):
    """An SMTP server.

    Args:
        name: What audit remembers by what it was told.
        host: The SMTP server.
        port: Its port.
        implicit_tls: Whether TLS begins with the first byte (port 465), and not with STARTTLS (port 587).
        sender: From whom.
        user: As whom to log in; empty: not at all.
        password_file: The password.
        ca: Whom to believe, PEM; None: whom this machine trusts.
    """

    name: str = Field(pattern=_NAME)
    host: str = Field(pattern=_HOST)
    port: int = Field(default=465, ge=1, le=65_535)
    implicit_tls: bool = True
    sender: str = Field(pattern=_ADDRESS)
    user: str = ""
    password_file: Path | None = None
    ca: Path | None = None


class EmailConfig(ServerOfMail):
    """A mailbox.

    Args:
        recipients: To whom.
    """

    recipients: tuple[Annotated[str, Field(pattern=_ADDRESS)], ...] = Field(min_length=1)


class OwnersConfig(ServerOfMail):
    """The owners of the workspace concerned: who they are authority knows. They are told what a customer has to be told.

    Args:
        dashboard_url: Where they see it, "https://authpipe.example".
    """

    dashboard_url: str = Field(pattern=r"^https://[a-z0-9.-]+(:[0-9]+)?$")


class Config(_Frozen):
    """Settings.

    Args:
        audit: Who knows the incidents.
        webhooks: Webhooks.
        emails: Mailboxes. Of both together there is one at least: without anybody who listens it does not start.
        owners: By which mail server a workspace's owners are told; None: whoever runs this tells them.
        authority: Who knows them; it belongs to owners.
        tell_seconds: How often audit is asked.
    """

    region: str
    files: Files
    server: ServerConfig
    audit: PeerConfig
    webhooks: tuple[WebhookConfig, ...] = ()
    emails: tuple[EmailConfig, ...] = ()
    owners: OwnersConfig | None = None
    authority: PeerConfig | None = None
    tell_seconds: float = Field(default=5.0, gt=0)
    log_level: str = "info"
    telemetry_file: Path | None = None
    trace_ratio: float = 0.01

    @model_validator(mode="after")
    def _somebody_listens(self) -> Config:
        names = [each.name for each in self.webhooks] + [each.name for each in self.emails]
        if not names:
            raise PydanticCustomError(
                "webhooks_or_emails_are_missing", "Without anybody who listens herald does not start."
            )
        names += [self.owners.name] if self.owners else []
        if self.owners and not self.authority:
            raise PydanticCustomError("authority_is_missing", "Without authority nobody knows the owners.")
        if len(set(names)) < len(names):
            raise PydanticCustomError("two_sinks_have_one_name", "Two sinks have one name.")
        return self
