"""Where people listen: a webhook, a mailbox."""

from authpipe_herald.sinks.email import EmailSink
from authpipe_herald.sinks.webhook import WebhookSink

__all__ = ["EmailSink", "WebhookSink"]
