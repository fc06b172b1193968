"""A mailbox, by SMTP: over TLS from the first byte (RFC 8314) or by STARTTLS (RFC 3207), never without."""

from __future__ import annotations

import asyncio
import smtplib
import ssl
from email.message import EmailMessage
from email.utils import format_datetime, localtime

from authpipe_herald.config import EmailConfig
from authpipe_herald.domain.messages import subject_line, text
from authpipe_herald.domain.words import Notice
from authpipe_herald.errors import SinkError

_TIMEOUT_SECONDS = 20.0


class EmailSink:
    """Mails notices.

    Args:
        config: Whereto.
    """

    def __init__(self, config: EmailConfig) -> None:
        self.name = config.name
        self._config = config
        self._context = ssl.create_default_context(cafile=str(config.ca) if config.ca else None)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    async def tell(self, notice: Notice) -> None:
        """Mails a notice.

        Raises:
            SinkError: The server did not take it for every recipient.
        """
        message = EmailMessage()
        message["From"] = self._config.sender
        message["To"] = ", ".join(self._config.recipients)
        message["Subject"] = subject_line(notice)
        message["Date"] = format_datetime(localtime())
        message["Message-ID"] = f"<{notice.id}@{self._config.sender.rpartition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text(notice))
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

    async def close(self) -> None:
        """Has nothing to close: each message has a connection of its own."""
