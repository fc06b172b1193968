"""Counters and histograms by name, with checked attributes.

Instruments are kept per attribute set, so that the hot path pays for the check once.
"""

from __future__ import annotations

from opentelemetry import metrics

from authpipe_telemetry.attributes import Attribute, checked


class Counter:
    """Counts acts."""

    def __init__(self, name: str, unit: str) -> None:
        self._instrument = metrics.get_meter("authpipe").create_counter(name, unit=unit)

    def add(self, amount: int, **attributes: Attribute) -> None:
        """Adds to the count, under these attributes."""
        self._instrument.add(amount, checked(attributes))


class Histogram:
    """Collects durations or sizes."""

    def __init__(self, name: str, unit: str) -> None:
        self._instrument = metrics.get_meter("authpipe").create_histogram(name, unit=unit)

    def record(self, value: float, **attributes: Attribute) -> None:
        """Records one value, under these attributes."""
        self._instrument.record(value, checked(attributes))


def counter(name: str, unit: str = "1") -> Counter:
    """Makes a counter named as OpenTelemetry names them: ``authpipe.keyservice.releases``."""
    return Counter(name, unit)


def histogram(name: str, unit: str) -> Histogram:
    """Makes a histogram; the unit by UCUM: ``s``, ``By``."""
    return Histogram(name, unit)
