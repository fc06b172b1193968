"""Where people listen: a webhook, a mailbox."""

from authpipe_herald.sinks.email import EmailSink, OwnersSink
from authpipe_herald.sinks.webhook import WebhookSink

__all__ = ["EmailSink", "OwnersSink", "WebhookSink"]
