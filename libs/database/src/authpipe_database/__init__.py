"""PostgreSQL over mutual TLS 1.3, and the audit outbox: no state change without its event.

A process's own database and no other: the role is the CN of its certificate, and enters only its own (promise P24).
"""

from authpipe_database.connect import Database, DatabaseConfig, DatabaseUnavailableError, columns
from authpipe_database.outbox import OUTBOX_SQL, AuditBacklogError, Outbox, outbox_grants

__all__ = [
    "OUTBOX_SQL",
    "AuditBacklogError",
    "Database",
    "DatabaseConfig",
    "DatabaseUnavailableError",
    "Outbox",
    "columns",
    "outbox_grants",
]
