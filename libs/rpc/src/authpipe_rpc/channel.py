"""Calling a peer: mutual TLS, its name checked, a deadline on every call, rebuilt when certificates change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar, cast

import grpc
import stamina

from authpipe_rpc.config import Files, PeerConfig
from authpipe_rpc.errors import PeerUnavailable, from_rpc_error
from authpipe_rpc.identity import dns_name, remaining
from authpipe_rpc.standing import EOF, Standing, Streams, load_protos
from authpipe_sensitive import guard_services
from authpipe_telemetry import TRACEPARENT, current_traceparent

StubT_co = TypeVar("StubT_co", covariant=True)
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
ResponseT_co = TypeVar("ResponseT_co", covariant=True)

# Its own log lines are text with values in it.
stamina.instrumentation.set_on_retry_hooks([])

# How often our certificate's files are looked at.
_LOOK_SECONDS = 1.0
_LONGEST_MESSAGE = 16 * 1024 * 1024
_ALL_REPLICAS = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_ONE_REPLICA = '{"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": true}}]}'


class Method(Protocol[RequestT_contra, ResponseT_co]):
    """A unary rpc on a stub."""

    def __call__(
        self, request: RequestT_contra, /, *, timeout: float, metadata: Sequence[tuple[str, str]] = ...
    ) -> Awaitable[ResponseT_co]:
        """Calls it."""


class StreamMethod(Protocol):
    """An rpc of streams on a stub."""

    def __call__(self, requests: AsyncIterator[Any], /, *, timeout: float) -> Any:
        """Calls it."""


class Peer(Generic[StubT_co]):
    """A service behind this one.

    Args:
        config: Its name and address.
        files: Our certificate, key and CA.
        stub: The generated stub class.
        timeout_seconds: How long a call may take when our own caller has not set less.
        one_replica: Whether calls go to one replica, chosen at random with each connection, and not to all in turns:
            for a peer that has to be the same from one call to the next.
    """

    def __init__(
        self,
        config: PeerConfig,
        files: Files,
        stub: Callable[[grpc.aio.Channel], StubT_co],
        timeout_seconds: float = 10.0,
        *,
        one_replica: bool = False,
    ) -> None:
        self.name = config.name
        self._one_replica = one_replica
        self._config = config
        self._files = files
        # What is sent to it, and comes back, cannot be printed from here on.
        guard_services(load_protos(stub))
        self._make_stub = stub
        self._timeout = timeout_seconds
        self._seen = 0.0
        self._look_at = 0.0
        self._channel: Standing | None = None
        self._stub: StubT_co | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def call(
        self, choose: Callable[[StubT_co], Method[RequestT_contra, ResponseT_co]], request: RequestT_contra
    ) -> ResponseT_co:
        """Calls an rpc once.

        Raises:
            PeerUnavailable: It cannot be reached or did not answer in time.
            PeerRefused: It refused, with its reason.
        """
        try:
            method, timeout = choose(self._current()), remaining(self._timeout)
            if parent := current_traceparent():
                return await method(request, timeout=timeout, metadata=((TRACEPARENT, parent),))
            return await method(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def call_idempotent(
        self, choose: Callable[[StubT_co], Method[RequestT_contra, ResponseT_co]], request: RequestT_contra
    ) -> ResponseT_co:
        """Calls an rpc that may run twice, and again, three times in all, when the peer was not there.

        Raises:
            PeerUnavailable: It cannot be reached or did not answer in time.
            PeerRefused: It refused, with its reason.
        """
        try:
            # The usual case does not pay for the machinery of retrying (about 50 µs).
            return await self.call(choose, request)
        except PeerUnavailable:
            await asyncio.sleep(0.05)
        async for attempt in stamina.retry_context(on=PeerUnavailable, attempts=2, wait_initial=0.1, wait_max=0.5):
            with attempt:
                return await self.call(choose, request)
        raise PeerUnavailable  # pragma: no cover  # stamina raises the last error itself

    async def stream(
        self, choose: Callable[[StubT_co], StreamMethod], requests: AsyncIterator[Any], timeout_seconds: float
    ) -> AsyncIterator[Any]:
        """Calls an rpc of streams once, and gives its answers as they come. Whoever stops reading ends the call.

        Raises:
            PeerUnavailable: It cannot be reached, or did not end in time.
            PeerRefused: It refused, with its reason.
        """
        call = choose(self._current())(requests, timeout=timeout_seconds)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            call.cancel()

    async def ask(
        self,
        choose: Callable[[StubT_co], object],
        request: Any,
        timeout_seconds: float,
        is_last: Callable[[Any], bool],
    ) -> AsyncIterator[Any]:
        """Calls a standing rpc of streams with one message, and gives its answers as they come.

        Args:
            choose: The rpc, which its proto calls standing.
            request: The message.
            timeout_seconds: How long all answers may take.
            is_last: Says of an answer that it is the last one, after which the stream is free for the next request. Where
                none is, the stream ends.

        Raises:
            PeerUnavailable: It cannot be reached, or did not end in time.
            PeerRefused: It refused, with its reason.
        """
        streams = choose(self._current())
        assert isinstance(streams, Streams)  # what is standing is one  # noqa: S101
        try:
            lane, answer = await streams.begin(request, timeout_seconds)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        is_free = False
        try:
            while answer is not EOF and not is_free:
                is_free = is_last(answer)
                yield answer
                if not is_free:
                    answer = await lane.call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None
        finally:
            if is_free:
                streams.rest(lane)
            else:
                lane.call.cancel()

    def leave_streams(self) -> None:
        """Ends the streams that stand: whoever is called from now on may be another replica."""
        if self._channel is not None:
            self._channel.leave()

    def _current(self) -> StubT_co:
        now = time.monotonic()
        if self._stub is None or now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            changed = max(self._files.certificate.stat().st_mtime, self._files.key.stat().st_mtime)
            if self._stub is None or changed != self._seen:
                self._rebuild(changed)
        assert self._stub is not None  # set by _rebuild  # noqa: S101  # the migration or _rebuild put it there
        return self._stub

    def _rebuild(self, changed: float) -> None:
        old = self._channel
        credentials = grpc.ssl_channel_credentials(
            self._files.ca.read_bytes(), self._files.key.read_bytes(), self._files.certificate.read_bytes()
        )
        channel = grpc.aio.secure_channel(
            self._config.address,
            credentials,
            options=[
                ("grpc.ssl_target_name_override", dns_name(self._config.name)),
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 1_000),
                ("grpc.http2.ping_timeout_ms", 1_000),
                ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
                ("grpc.initial_reconnect_backoff_ms", 50),
                # Despite its name, for how long an attempt may take: shaking hands with a busy machine takes its time.
                ("grpc.min_reconnect_backoff_ms", 5_000),
                ("grpc.max_reconnect_backoff_ms", 300),
                ("grpc.http2.bdp_probe", 0),
                ("grpc.enable_retries", 0),
                # Over all replicas that an address stands for; one that dies is passed over at once.
                ("grpc.service_config", _ONE_REPLICA if self._one_replica else _ALL_REPLICAS),
            ],
        )
        self._channel = Standing(channel)
        self._stub = self._make_stub(cast("grpc.aio.Channel", self._channel))
        self._seen = changed
        if old is not None:
            task = asyncio.get_running_loop().create_task(old.close(grace=5), name="close old channel")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Closes the connection."""
        if self._channel is not None:
            await self._channel.close(grace=1)
