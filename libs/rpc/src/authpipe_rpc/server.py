"""A server between our processes: mutual TLS 1.3, default deny, a deadline and a duty on every call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2_grpc

from authpipe.types.v1 import events_pb2, turns_pb2
from authpipe_rpc import tls
from authpipe_rpc.access import AccessError, MethodPolicy, policies_of
from authpipe_rpc.config import Files, ServerConfig
from authpipe_rpc.errors import IncidentError, abort
from authpipe_rpc.health import Health
from authpipe_rpc.identity import CALLER, DEADLINE, dns_name, identify
from authpipe_rpc.rotation import server_credentials
from authpipe_rpc.standing import STANDING_SECONDS, SUFFIX, Requests, Turns, is_standing
from authpipe_sensitive import DomainError, Label, Status, get_log, guard_services
from authpipe_sensitive.duties import NOTHING_DONE, watch_duties
from authpipe_telemetry import TRACEPARENT, histogram, span

_HEALTH = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List")
_LONGEST_CALL_SECONDS = 60.0
# A stream carries a body of any size; it ends after a quarter of an hour, and so does the connection that it holds.
LONGEST_STREAM_SECONDS = 900.0
_LONGEST_MESSAGE = 16 * 1024 * 1024

Context = grpc.aio.ServicerContext[Any, Any]
Handler = Callable[[Any, Context], Awaitable[Any]]
StreamHandler = Callable[[Requests, Context], AsyncIterator[Any]]


class _Call(NamedTuple):
    """A call, wherever it came in.

    Args:
        request: What is asked.
        left_seconds: How long its caller waits; None: it does not say.
        metadata: What came with it.
    """

    request: Any
    left_seconds: float | None
    metadata: Iterable[tuple[str, str | bytes]]


Serve = Callable[[_Call, Context], Awaitable[Any]]


class DeadlineRequiredError(DomainError):
    """A call between services has a deadline of at most a minute. Set a timeout on the call."""

    reason = "DEADLINE_REQUIRED"
    status = Status.INVALID_ARGUMENT


class TurnMalformedError(DomainError):
    """A message on a standing stream is no call of its rpc. This is a defect of the caller; report it."""

    reason = "TURN_MALFORMED"
    status = Status.INVALID_ARGUMENT


class DutyNeglectedError(DomainError):
    """The call was carried out without the audit event that its proto declares. This is a defect; report it."""

    reason = "AUDIT_DUTY_NEGLECTED"
    status = Status.INTERNAL


class RpcServer:
    """Serves gRPC to the processes that the protos allow, and to nobody else.

    Args:
        name: The SPIFFE path of this process.
        config: Where to listen.
        files: Certificate, key and CA; re-read on every handshake.
        health: What this process says of itself.
        streams: Whether it serves streams, which outlive the age of their connection.
    """

    def __init__(
        self, name: Label, config: ServerConfig, files: Files, health: Health, *, streams: bool = False
    ) -> None:
        standing_seconds = min(STANDING_SECONDS, config.connection_age_seconds)
        # A stream that was opened at the last moment of its connection stands for as long as any.
        grace_seconds = LONGEST_STREAM_SECONDS if streams else standing_seconds + config.grace_seconds
        self._name = name
        self._config = config
        self._files = files
        self._policies: dict[str, MethodPolicy] = dict.fromkeys(
            _HEALTH, MethodPolicy(None, events_pb2.EVENT_NAME_NOTHING)
        )
        self._turns = Turns(standing_seconds)
        self._server = grpc.aio.server(
            interceptors=[_Boundary(self._policies, files.trust_domain, self._turns)],
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_connection_age_ms", int(config.connection_age_seconds * 1000)),
                ("grpc.max_connection_age_grace_ms", int(grace_seconds * 1000)),
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
                ("grpc.http2.bdp_probe", 0),
            ],
        )
        health_pb2_grpc.add_HealthServicer_to_server(health.servicer, self._server)

    def add(
        self, service: ServiceDescriptor, register: Callable[[Any, grpc.aio.Server], None], servicer: object
    ) -> None:
        """Adds a service. What it takes and gives cannot be printed from then on.

        Raises:
            UndeclaredError: An rpc lacks `allowed_callers` or `emits`.
        """
        self._policies.update(policies_of([service], self._name))
        guard_services([service])
        register(servicer, cast("grpc.aio.Server", _Registering(self._server)))

    async def start(self) -> None:
        """Listens, and proves that TLS 1.2 is refused.

        Raises:
            TlsError: It is not.
        """
        files = self._files
        credentials = server_credentials(files.key, files.certificate, files.ca)
        self._server.add_secure_port(f"{self._config.host}:{self._config.port}", credentials)
        await self._server.start()
        await tls.require_tls_1_3_only(
            self._config.host, self._config.port, files.ca, files.certificate, files.key, dns_name(self._name)
        )

    async def stop(self) -> None:
        """Takes no new calls, lets the running ones finish within the grace."""
        stopping = asyncio.create_task(self._server.stop(self._config.grace_seconds), name="stop server")
        # Callers are told first that no stream begins here any more, so that they go elsewhere with what comes next.
        await asyncio.sleep(0)
        self._turns.stop()
        await stopping


class _Registering:
    """Takes the handlers of a service as generated code gives them; those that stand are under their second path as well."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Does nothing: the same handlers come by their names."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Adds them."""
        standing = {
            name + SUFFIX: each
            for name, each in handlers.items()
            if each.unary_unary is not None and is_standing(f"/{service}/{name}")
        }
        handler = grpc.method_handlers_generic_handler(service, {**handlers, **standing})
        self._server.add_generic_rpc_handlers((handler,))


class _Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic when it runs
    """The chain around every handler. `intercept_service` sees only the method, so it wraps what it returns."""

    def __init__(self, policies: Mapping[str, MethodPolicy], trust_domain: str, turns: Turns) -> None:
        self._policies = policies
        self._trust_domain = trust_domain
        self._turns = turns
        self._wrapped: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._duration = histogram("authpipe.rpc.duration", "s")

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        path = str(handler_call_details.method)
        wrapped = self._wrapped.get(path)
        if wrapped is None:
            # A standing stream is the rpc that it carries: the same handler, under the same policy.
            method = path.removesuffix(SUFFIX) if is_standing(path.removesuffix(SUFFIX)) else path
            policy = self._policies.get(method)
            handler = await continuation(handler_call_details)
            if policy is None or handler is None:
                return grpc.unary_unary_rpc_method_handler(_refuse)
            made = self._wrap(Label(method), policy, handler, in_turn=method != path)
            if made is None:
                return grpc.unary_unary_rpc_method_handler(_refuse)
            wrapped = self._wrapped[path] = made
        return wrapped

    def _wrap(
        self, method: Label, policy: MethodPolicy, handler: grpc.RpcMethodHandler[Any, Any], *, in_turn: bool
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wraps a handler; None: it is of a kind that we do not serve."""
        read, write = handler.request_deserializer, handler.response_serializer
        if handler.stream_stream is not None and policy.emits == events_pb2.EVENT_NAME_NOTHING:
            serve_stream = self._wrap_stream(method, policy, cast("StreamHandler", handler.stream_stream))
            return grpc.stream_stream_rpc_method_handler(serve_stream, read, write)
        if handler.unary_unary is None:
            return None
        serve = self._wrap_call(method, policy, cast("Handler", handler.unary_unary))
        if in_turn:
            return grpc.stream_stream_rpc_method_handler(
                self._wrap_turns(serve, read, write), turns_pb2.Turn.FromString
            )

        async def serve_call(request: Any, context: Context) -> Any:
            return await serve(_Call(request, context.time_remaining(), context.invocation_metadata() or ()), context)

        return grpc.unary_unary_rpc_method_handler(serve_call, read, write)

    def _wrap_turns(self, serve: Serve, read: Any, write: Any) -> Any:
        """Wraps a handler for streams of calls: every turn is checked as a call of its own would be."""

        async def take(turn: turns_pb2.Turn, context: Context) -> bytes:
            try:
                request = read(turn.request)
            except DecodeError:
                await abort(context, TurnMalformedError())
            left = turn.timeout.ToNanoseconds() / 1e9 if turn.HasField("timeout") else None
            metadata = ((TRACEPARENT, turn.traceparent),) if turn.traceparent else ()
            try:
                async with asyncio.timeout(left):
                    return cast("bytes", write(await serve(_Call(request, left, metadata), context)))
            except TimeoutError:
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED)

        async def serve_turns(_: object, context: Context) -> None:
            async for turn in self._turns.on(context):
                await context.write(await take(turn, context))

        return serve_turns

    def _wrap_call(self, method: Label, policy: MethodPolicy, handler: Handler) -> Serve:
        async def serve(call: _Call, context: Context) -> Any:
            started = time.perf_counter()
            outcome = "OK"
            try:
                with span("rpc", call.metadata, method=method):
                    self._admit(policy, context, call.left_seconds, _LONGEST_CALL_SECONDS)
                    return await _carried_out(policy, handler, call.request, context)
            except DomainError as error:
                outcome = error.reason
                if error.status in {Status.INTERNAL, Status.PERMISSION_DENIED, Status.UNAUTHENTICATED}:
                    get_log().warning("call refused", method=method, error=error)
                await abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # becomes INTERNAL with an incident id, never its text  # noqa: BLE001  # handed on or shown with an incident id, never swallowed
                incident = IncidentError()
                outcome = incident.reason
                get_log().error("incident", method=method, error=error, **incident.metadata)
                await abort(context, incident)
            finally:
                # Its count is the number of calls.
                self._duration.record(time.perf_counter() - started, method=method, outcome=Label(outcome))

        return serve

    def _wrap_stream(self, method: Label, policy: MethodPolicy, handler: StreamHandler) -> Any:
        """Wraps a handler of streams. It has no duty of its own: what it opens has left its event before it answers."""

        def ended(seconds: float, outcome: str = "OK") -> None:
            self._duration.record(seconds, method=method, outcome=Label(outcome))

        async def serve(_: object, context: Context) -> AsyncIterator[Any]:
            requests = Requests(context, self._turns, ended)
            outcome = "OK"
            try:
                self._admit(policy, context, context.time_remaining(), LONGEST_STREAM_SECONDS)
                async for response in handler(requests, context):
                    yield response
            except DomainError as error:
                outcome = error.reason
                await abort(context, error)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # becomes INTERNAL with an incident id, never its text  # noqa: BLE001  # handed on or shown with an incident id, never swallowed
                incident = IncidentError()
                outcome = incident.reason
                get_log().error("incident", method=method, error=error, **incident.metadata)
                await abort(context, incident)
            finally:
                if requests.began is not None:
                    ended(time.perf_counter() - requests.began, outcome)

        return serve

    def _admit(
        self, policy: MethodPolicy, context: Context, left_seconds: float | None, longest_seconds: float
    ) -> None:
        # identity, access
        caller = identify(context, self._trust_domain)
        if not policy.allows(caller):
            raise AccessError(caller=caller)
        # deadline
        if left_seconds is None or left_seconds > longest_seconds:
            raise DeadlineRequiredError
        CALLER.set(caller)
        DEADLINE.set(time.monotonic() + left_seconds)


async def _carried_out(policy: MethodPolicy, handler: Handler, request: Any, context: Context) -> Any:
    """Carries a call out, and sees that it does its duty."""
    if policy.emits == events_pb2.EVENT_NAME_NOTHING:
        return await handler(request, context)
    with watch_duties() as emitted:
        response = await handler(request, context)
    if policy.emits not in emitted and NOTHING_DONE not in emitted:
        raise DutyNeglectedError
    return response


async def _refuse(_: object, context: Context) -> None:
    await abort(context, AccessError())
