"""What herald meets, and what helps."""

from __future__ import annotations

from authpipe_sensitive import DomainError, Status


class SinkError(DomainError):
    """A sink did not take a notice. It is told again in a while; look at where it points to."""

    reason = "SINK_FAILED"
    status = Status.UNAVAILABLE
