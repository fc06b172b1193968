"""Where spans and metrics go: a file of JSON lines, or nowhere.

Export by OTLP comes with the deployment on Kubernetes; until then nothing listens and nothing calls out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from authpipe_sensitive import Label
from authpipe_telemetry.traces import keep


class TelemetryConfig:
    """Where telemetry goes and how many traces are kept.

    Args:
        file: A file for spans and metrics, as JSON; None: they are dropped.
        sampling_ratio: The share of traces kept, 0 to 1.
    """

    def __init__(self, file: Path | None = None, sampling_ratio: float = 0.01) -> None:
        self.file = file
        self.sampling_ratio = sampling_ratio


def configure_telemetry(process: Label, config: TelemetryConfig) -> None:
    """Sets traces and metrics up for a process."""
    if config.file is None:
        return
    resource = Resource({"service.name": process})
    out: TextIO = os.fdopen(os.open(config.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a")
    traces = TracerProvider(resource=resource, sampler=ParentBased(ALWAYS_ON))
    traces.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=out)))
    trace.set_tracer_provider(traces)
    keep(config.sampling_ratio)
    reader = PeriodicExportingMetricReader(ConsoleMetricExporter(out=out), export_interval_millis=15_000)
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))
