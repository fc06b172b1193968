"""SQL for the log: insert and select. Its role has no right to update or delete; retention deletes bodies with another."""

from authpipe_audit.store.checkpoints import CheckpointTable
from authpipe_audit.store.exporting import ExportTable
from authpipe_audit.store.incidents import IncidentTable
from authpipe_audit.store.listing import Listing, Stored
from authpipe_audit.store.log import Log
from authpipe_audit.store.retention import RetentionTable
from authpipe_audit.store.tree import TreeTable
from authpipe_audit.store.watching import WatchedLog
from authpipe_audit.store.writes import LoggedWrite, Name, WriteTable

__all__ = [
    "CheckpointTable",
    "ExportTable",
    "IncidentTable",
    "Listing",
    "Log",
    "LoggedWrite",
    "Name",
    "RetentionTable",
    "Stored",
    "TreeTable",
    "WatchedLog",
    "WriteTable",
]
