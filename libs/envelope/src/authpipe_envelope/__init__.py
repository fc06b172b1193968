"""The AP1 record: how a credential is sealed, and to what it is bound (docs/envelope.md, promise P01).

A core without I/O: no file, no socket, no clock. keyservice derives record keys here, consumers seal and open here,
stores only read a header's shape.
"""

from authpipe_envelope.classes import CLIENT_SECRETS, SERVABLE, TRANSIENT, RecordClass
from authpipe_envelope.context import Context, ContextError, hosts_digest
from authpipe_envelope.keys import RecordKey, derive_record_key, new_salt
from authpipe_envelope.wrapping import UnwrapError, unwrap_key, wrap_key
from authpipe_envelope.record import HEADER_SIZE, Header, IntegrityError, open_record, seal_record

__all__ = [
    "CLIENT_SECRETS",
    "HEADER_SIZE",
    "SERVABLE",
    "TRANSIENT",
    "Context",
    "ContextError",
    "Header",
    "IntegrityError",
    "RecordClass",
    "RecordKey",
    "UnwrapError",
    "derive_record_key",
    "hosts_digest",
    "new_salt",
    "open_record",
    "seal_record",
    "unwrap_key",
    "wrap_key",
]
