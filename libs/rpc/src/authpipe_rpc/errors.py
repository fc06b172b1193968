"""Errors across a process boundary: our classes ↔ `google.rpc.Status` with `ErrorInfo`.

Anything unknown becomes INTERNAL with an incident id by which the log line is found; never its text.
"""

from __future__ import annotations

import secrets
from typing import NoReturn

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from authpipe_sensitive import DomainError, Label, RedactedError, Status

_DOMAIN = "authpipe"


class IncidentError(DomainError):
    """Something failed that we did not foresee. It is logged under the incident id; nothing was half done."""

    reason = "INTERNAL"
    status = Status.INTERNAL

    def __init__(self) -> None:
        super().__init__(incident_id=Label(secrets.token_hex(8)))


class PeerRefused(DomainError):  # it is a refusal, handed on
    """A service behind this one refused the request; the reason says why."""

    def __init__(self, reason: str, status: Status, **metadata: Label | int) -> None:
        super().__init__(**metadata)
        self.reason = reason  # type: ignore[misc]  # the one error whose reason comes from elsewhere
        self.status = status  # type: ignore[misc]


class PeerUnavailable(DomainError):  # it is a state of the peer
    """A service behind this one cannot be reached or did not answer in time. Nothing was done; try again shortly."""

    reason = "DEPENDENCY_UNAVAILABLE"
    status = Status.UNAVAILABLE


def status_of(error: DomainError) -> status_pb2.Status:
    """Gives an error as it goes over the wire."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=_DOMAIN, metadata={name: str(value) for name, value in error.metadata.items()}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=int(error.status), message=error.sentence(), details=[detail])


async def abort(context: grpc.aio.ServicerContext[object, object], error: DomainError) -> NoReturn:
    """Ends a call with an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))  # type: ignore[attr-defined]  # it is there
    raise AssertionError  # pragma: no cover  # what is above does not return


def from_rpc_error(error: grpc.aio.AioRpcError) -> DomainError:
    """Gives a peer's error as one of ours; its text is dropped."""
    code = error.code()
    rich = None
    try:
        rich = rpc_status.from_call(error)  # type: ignore[arg-type]  # an AioRpcError has what it reads
    except ValueError:
        rich = None
    if rich is not None:
        for detail in rich.details:
            info = error_details_pb2.ErrorInfo()
            if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == _DOMAIN:
                return _refused(info, rich.code)
    if code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}:
        return PeerUnavailable()
    return IncidentError()


def _refused(info: error_details_pb2.ErrorInfo, code: int) -> DomainError:
    metadata: dict[str, Label | int] = {}
    for name, value in info.metadata.items():
        try:
            metadata[name] = int(value) if value.isdigit() else Label(value)
        except RedactedError:
            continue
    if code == code_pb2.UNAVAILABLE and info.reason == PeerUnavailable.reason:
        return PeerUnavailable(**metadata)
    try:
        return PeerRefused(str(Label(info.reason)), Status(code), **metadata)
    except (RedactedError, ValueError):
        return IncidentError()
