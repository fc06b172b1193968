"""A mailbox, by SMTP: over TLS from the first byte (RFC 8314) or by STARTTLS (RFC 3207), never without."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import ssl
from collections.abc import Awaitable, Callable, Sequence
from email.message import EmailMessage
from email.utils import format_datetime, localtime

from authpipe_herald.config import EmailConfig, OwnersConfig, ServerOfMail
from authpipe_herald.domain.messages import subject_line, text, text_for_owners
from authpipe_herald.domain.words import Notice
from authpipe_herald.errors import SinkError

_TIMEOUT_SECONDS = 20.0


class Mailer:
    """Sends messages by one server.

    Args:
        config: Which.
    """

    def __init__(self, config: ServerOfMail) -> None:
        self._config = config
        self._context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    async def send(self, notice: Notice, recipients: Sequence[str], content: str, part: str = "") -> None:
        """Sends one message.

        Args:
            notice: What it is of.
            recipients: To whom.
            content: What it says.
            part: What tells it from other messages of the same notice.

        Raises:
            SinkError: The server did not take it for every recipient.
        """
        message = EmailMessage()
        message["From"] = self._config.sender
        message["To"] = ", ".join(recipients)
        message["Subject"] = subject_line(notice)
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = f"<{notice.id}{part}@{self._config.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(content)
        try:
            await asyncio.to_thread(self._send, message)
        except (OSError, smtplib.SMTPException):
            raise SinkError from None

    def _send(self, message: EmailMessage) -> None:
        config = self._config
        made: smtplib.SMTP
        if config.implicit_tls:
            made = smtplib.SMTP_SSL(config.host, config.port, timeout=_TIMEOUT_SECONDS, context=self._context)
        else:
            made = smtplib.SMTP(config.host, config.port, timeout=_TIMEOUT_SECONDS)
        with made as server:
            if not config.implicit_tls:
                server.starttls(context=self._context)
            if config.user and config.password_file:
                server.login(config.user, config.password_file.read_text().strip())
            if server.send_message(message):
                raise smtplib.SMTPException


class EmailSink:
    """Mails notices to those who run this.

    Args:
        config: Whereto.
    """

    def __init__(self, config: EmailConfig) -> None:
        self.name = config.name
        self._config = config
        self._mailer = Mailer(config)

    async def tell(self, notice: Notice) -> None:
        """Mails a notice.

        Raises:
            SinkError: The server did not take it for every recipient.
        """
        await self._mailer.send(notice, self._config.recipients, text(notice))

    async def close(self) -> None:
        """Has nothing to close: each message has a connection of its own."""


class OwnersSink:
    """Mails what a customer has to be told to the owners of the workspace, each alone: none sees who the others are.

    Args:
        config: By which server.
        owners: Gives a workspace's name and its owners' addresses.
    """

    def __init__(self, config: OwnersConfig, owners: Callable[[str], Awaitable[tuple[str, Sequence[str]]]]) -> None:
        self.name = config.name
        self._config = config
        self._owners = owners
        self._mailer = Mailer(config)

    async def tell(self, notice: Notice) -> None:
        """Mails a notice, if it is for owners. One that was mailed to some of them is mailed to all when it is tried again.

        Raises:
            SinkError: The server did not take it for one of them.
            DomainError: authority is away.
        """
        if not notice.is_for_owners:
            return
        workspace, addresses = await self._owners(notice.workspace)
        content = text_for_owners(notice, workspace, self._config.dashboard_url)
        for address in addresses:
            part = hashlib.sha256(address.encode()).hexdigest()[:8]
            await self._mailer.send(notice, (address,), content, f".{part}")

    async def close(self) -> None:
        """Has nothing to close: each message has a connection of its own."""
