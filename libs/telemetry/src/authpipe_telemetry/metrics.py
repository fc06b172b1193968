"""Counters, gauges and histograms by name. Their attributes are Labels: words of ours, few of each, never a number or an id."""

from __future__ import annotations

from opentelemetry import metrics

from authpipe_sensitive import Label, RedactedError


class Counter:
    """Counts acts."""

    def __init__(self, name: str, unit: str) -> None:
        self._instrument = metrics.get_meter("authpipe").create_counter(name, unit=unit)

    def add(self, amount: int, **attributes: Label) -> None:
        """Adds to the count, under these attributes."""
        self._instrument.add(amount, _words(attributes))


class Gauge:
    """Shows how much there is of something now."""

    def __init__(self, name: str, unit: str) -> None:
        self._instrument = metrics.get_meter("authpipe").create_gauge(name, unit=unit)

    def set(self, value: int, **attributes: Label) -> None:
        """Sets it, under these attributes."""
        self._instrument.set(value, _words(attributes))


class Histogram:
    """Collects durations or sizes."""

    def __init__(self, name: str, unit: str) -> None:
        self._instrument = metrics.get_meter("authpipe").create_histogram(name, unit=unit)

    def record(self, value: float, **attributes: Label) -> None:
        """Records one value, under these attributes."""
        self._instrument.record(value, _words(attributes))


def _words(attributes: dict[str, Label]) -> dict[str, Label]:
    if all(isinstance(value, Label) for value in attributes.values()):
        return attributes
    raise RedactedError("A metric takes Labels.")


def counter(name: str, unit: str = "1") -> Counter:
    """Makes a counter named as OpenTelemetry names them: ``authpipe.keyservice.releases``."""
    return Counter(name, unit)


def gauge(name: str, unit: str = "1") -> Gauge:
    """Makes a gauge."""
    return Gauge(name, unit)


def histogram(name: str, unit: str) -> Histogram:
    """Makes a histogram; the unit by UCUM: ``s``, ``By``."""
    return Histogram(name, unit)
