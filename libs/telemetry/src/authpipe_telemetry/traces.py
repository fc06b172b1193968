"""Spans made by hand: one a batch; and the trace they belong to, from process to process (W3C Trace Context).

Only what is sampled travels: a call that is not sampled pays for no metadata.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

from opentelemetry import trace
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from authpipe_telemetry.attributes import Attribute, checked

TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_NOTHING = nullcontext()
_KEPT = [0.0]


@cache  # asked for after the provider is set; asking again for each span costs 4 % of a call
def _tracer() -> trace.Tracer:
    return trace.get_tracer("authpipe")


def current_traceparent() -> str:
    """Gives the `traceparent` of the span around us; empty: none is sampled."""
    if not trace.get_current_span().get_span_context().trace_flags.sampled:
        return ""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACEPARENT, "")


def current_trace_id() -> str:
    """Gives the id of the trace around us, 32 hexadecimal digits; empty: it is not sampled, and nobody could find it."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.trace_flags.sampled else ""


def keep(ratio: float) -> None:
    """Sets the share of traces that are kept, 0 to 1; none until then."""
    _KEPT[0] = ratio


def span(
    name: str, metadata: Iterable[tuple[str, str | bytes]] = (), **attributes: Attribute
) -> AbstractContextManager[None]:
    """Makes a span around a block: of the trace that it is in, or of a new one if that is to be kept.

    What is dropped is not made: that costs 4 % of a call. An exception that leaves the block is recorded by its class, never
    by its text.

    Args:
        name: What it spans.
        metadata: Of the call being served; with a `traceparent` in it, the span continues that trace.
        attributes: Numbers, enums and Labels.
    """
    shown = checked(attributes)
    parent = next((value for key, value in metadata if key == TRACEPARENT and isinstance(value, str)), "")
    # Which traces are kept is no secret.
    begins = random.random() < _KEPT[0]  # noqa: S311
    if parent or begins or trace.get_current_span().get_span_context().trace_flags.sampled:
        return _spanned(name, parent, shown)
    return _NOTHING


@contextmanager
def _spanned(name: str, parent: str, attributes: dict[str, str | int | float | bool]) -> Iterator[None]:
    context = _PROPAGATOR.extract({TRACEPARENT: parent}) if parent else None
    with _tracer().start_as_current_span(
        name, context=context, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except BaseException as error:
            current.set_status(StatusCode.ERROR)
            current.set_attribute("error.type", type(error).__qualname__)
            raise
