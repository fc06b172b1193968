"""The wire side of coordinator: protobuf to rules and back. The workspace comes from the grant, never from a request."""

from authpipe_oauth_coordinator.servicer.acting import ActingOf
from authpipe_oauth_coordinator.servicer.broker import CoordinatorServicer
from authpipe_oauth_coordinator.servicer.containment import ContainmentServicer

__all__ = ["ActingOf", "ContainmentServicer", "CoordinatorServicer"]
