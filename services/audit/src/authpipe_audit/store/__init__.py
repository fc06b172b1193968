"""SQL for the log: insert and select, nothing else. The role has no right to update or delete."""

from authpipe_audit.store.checkpoints import CheckpointTable
from authpipe_audit.store.exporting import ExportTable
from authpipe_audit.store.listing import Listing, Stored
from authpipe_audit.store.log import Log
from authpipe_audit.store.tree import TreeTable

__all__ = ["CheckpointTable", "ExportTable", "Listing", "Log", "Stored", "TreeTable"]
