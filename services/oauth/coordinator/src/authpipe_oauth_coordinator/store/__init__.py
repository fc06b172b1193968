"""SQL for coordinator's own tables, a room for each kind; no rule."""

from authpipe_oauth_coordinator.store.configs import ConfigTable
from authpipe_oauth_coordinator.store.connections import ConnectionTable
from authpipe_oauth_coordinator.store.devices import DeviceTable
from authpipe_oauth_coordinator.store.entries import EntryTable
from authpipe_oauth_coordinator.store.flows import FlowTable
from authpipe_oauth_coordinator.store.leases import LeaseTable
from authpipe_oauth_coordinator.store.rotations import RotationTable
from authpipe_oauth_coordinator.store.subjects import SubjectTable

__all__ = [
    "ConfigTable",
    "ConnectionTable",
    "DeviceTable",
    "EntryTable",
    "FlowTable",
    "LeaseTable",
    "RotationTable",
    "SubjectTable",
]
