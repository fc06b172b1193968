"""The wire side of audit: protobuf to rules and back."""

from authpipe_audit.servicer.grants import workspace_reader
from authpipe_audit.servicer.incidents import IncidentsServicer
from authpipe_audit.servicer.log import AuditServicer

__all__ = ["AuditServicer", "IncidentsServicer", "workspace_reader"]
