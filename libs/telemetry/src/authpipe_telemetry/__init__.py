"""Traces and metrics whose attributes cannot hold a secret.

Spans are made by hand, one a batch: OpenTelemetry's own gRPC interceptor costs 30-60 % of a call (FACTS). Attributes
are numbers, enums and Labels; exceptions are recorded by class.
"""

from authpipe_telemetry.metrics import Counter, Gauge, Histogram, counter, gauge, histogram
from authpipe_telemetry.setup import TelemetryConfig, configure_telemetry
from authpipe_telemetry.traces import TRACEPARENT, current_trace_id, current_traceparent, span

__all__ = [
    "TRACEPARENT",
    "Counter",
    "Gauge",
    "Histogram",
    "TelemetryConfig",
    "configure_telemetry",
    "counter",
    "current_trace_id",
    "current_traceparent",
    "gauge",
    "histogram",
    "span",
]
