"""What every public servicer needs: who asks, and how errors are shown."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from authpipe_gateway_edge.domain.sources import Sources
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.errors import problem_of
from authpipe_gateway_edge.rest.problems import new_request_id
from authpipe_gateway_edge.rest.tokens import bearer
from authpipe_rpc import IncidentError, PeerRefused
from authpipe_rpc.errors import abort
from authpipe_sensitive import DomainError, Label, Status, get_log

Context = grpc.aio.ServicerContext[Any, Any]
ShownT = TypeVar("ShownT")
WorkT = TypeVar("WorkT")


class PublicServicer:
    """Answers customers.

    Args:
        sources: Tells where requests come from.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources

    async def run(self, context: Context, work: Callable[[Caller], Awaitable[ShownT]]) -> ShownT:
        request_id = new_request_id()
        await context.send_initial_metadata((("x-request-id", request_id),))
        try:
            headers = [(name.encode(), _bytes(value)) for name, value in context.invocation_metadata() or ()]
            source = self._sources.of_grpc(context.peer(), context.invocation_metadata() or ())
            return await work(Caller(bearer(headers), request_id, source))
        except DomainError as error:
            await abort_call(context, error, request_id)
        except Exception as error:  # becomes INTERNAL with an incident id, never its text  # noqa: BLE001  # handed on or shown with an incident id, never swallowed
            get_log().error("incident", error=error)
            await abort_call(context, IncidentError(), request_id)
        raise AssertionError("An aborted call does not come here.")


async def abort_call(context: Context, error: DomainError, request_id: str) -> None:
    reason, problem = problem_of(error)
    status = error.status if reason == error.reason else Status.INTERNAL
    if problem.http == 404:
        # The same for what is another's and what does not exist, down to the reason.
        reason, status = "NOT_FOUND", Status.NOT_FOUND
    retry = {"retry_after_s": problem.retry_after_seconds} if problem.retry_after_seconds else {}
    shown = PeerRefused(reason, status, request_id=Label(request_id), **retry)
    shown.sentence = lambda: problem.detail  # type: ignore[method-assign]
    await abort(context, shown)


async def after(work: Awaitable[WorkT], show: Callable[[WorkT], ShownT]) -> ShownT:
    return show(await work)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def page_size(size: int) -> int:
    return size if 1 <= size <= 200 else 50


def to_wire_time(moment: dt.datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    wire = Timestamp()
    wire.FromDatetime(moment)
    return wire
