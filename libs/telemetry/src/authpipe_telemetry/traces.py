"""Spans made by hand: one a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import StatusCode

from authpipe_telemetry.attributes import Attribute, checked


@cache  # asked for after the provider is set; asking again for each span costs 4 % of a call
def _tracer() -> trace.Tracer:
    return trace.get_tracer("authpipe")


@contextmanager
def span(name: str, **attributes: Attribute) -> Iterator[None]:
    """Makes a span around a block. An exception that leaves it is recorded by its class, never by its text."""
    with _tracer().start_as_current_span(
        name, attributes=checked(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR)
            current.set_attribute("error.type", type(error).__qualname__)
            raise
