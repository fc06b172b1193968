"""Where secrets are values of a type that cannot be shown.

Everything that leaves a process as text (logs, spans, errors) is built here from types that cannot hold a secret:
redaction belongs to the type, not to a filter over finished text (promise P07). Depends on no other lib of ours.
"""

from authpipe_sensitive.entries import AuditEntry
from authpipe_sensitive.errors import DomainError, Status
from authpipe_sensitive.hardening import harden_process
from authpipe_sensitive.labels import Label, RedactedError
from authpipe_sensitive.logs import Log, configure_logs, get_log
from authpipe_sensitive.masking import mask
from authpipe_sensitive.redaction import guard_generated_code, guard_services, redacted
from authpipe_sensitive.secret import Secret

__all__ = [
    "AuditEntry",
    "DomainError",
    "Label",
    "Log",
    "RedactedError",
    "Secret",
    "Status",
    "configure_logs",
    "get_log",
    "guard_generated_code",
    "guard_services",
    "harden_process",
    "mask",
    "redacted",
]
