"""Standing streams: calls one after another on a stream that stays, for the rpcs that their protos call `standing`.

A call on its own makes and tears down a stream: 620 µs of CPU on both ends together at 32 at once, 200 on a stream that
stands; alone it takes 0.9 ms there and back, and 0.55. Nothing else is different: the caller of every turn is checked, and it
has its own deadline, duty and span. A stream carries one turn at a time, so answers need no numbers, and a turn that fails ends
its stream with the status that the call would have had.

A stream ends after seconds, between two turns, so that calls go to all replicas, and none outlives its certificate for long. A
server that ends one has not begun the turn that was sent meanwhile, and says so by ending it well: whoever sent it sends it
again, on another.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NamedTuple

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor

from authpipe.options.v1 import access_pb2
from authpipe.types.v1 import turns_pb2
from authpipe_rpc.access import AccessError
from authpipe_rpc.errors import PeerUnavailable, from_rpc_error
from authpipe_sensitive import guard_generated_code
from authpipe_telemetry import TRACEPARENT

SUFFIX = "InTurn"
# How long a stream stands. Callers leave theirs earlier than servers end them.
STANDING_SECONDS = 10.0
_LEFT_AFTER_SECONDS = 5.0
# With a little for the way.
_LONGEST_TURN_SECONDS = 65.0
# Of one rpc, at rest at one caller: as many as there are refreshes of one Provider under way at once, so that each finds one.
_MOST_RESTING = 256
# What it carries is anything that is sent between us.
guard_generated_code([turns_pb2.Turn])
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # it is there


def load_protos(stub: object) -> list[ServiceDescriptor]:
    """Loads what the protos of a stub say of its rpcs: the module of stubs loads no more than the messages that it needs.

    Raises:
        TypeError: The stub is not generated code, so that nothing is said of its rpcs.
    """
    module = str(getattr(stub, "__module__", ""))
    if not module.endswith("_pb2_grpc"):
        raise TypeError("A peer is called by the stub class that its protos were made into.")
    return list(importlib.import_module(module.removesuffix("_grpc")).DESCRIPTOR.services_by_name.values())


def is_standing(method: str) -> bool:
    """Says whether the proto of a method, by its path as grpc spells it, calls it standing."""
    try:
        found = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:
        return False
    return bool(found.GetOptions().Extensions[access_pb2.standing])


class Turns:
    """The standing streams that a server answers on.

    Args:
        standing_seconds: How long each of them stands.
    """

    def __init__(self, standing_seconds: float) -> None:
        self._standing_seconds = standing_seconds
        self._resting: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def on(self, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        """Gives what begins each turn on a stream, until its caller or its time ends it.

        Args:
            context: The stream. Until the next turn is asked for, it is the one turn's alone.
        """
        until = time.monotonic() + self._standing_seconds
        while not self._stopping and time.monotonic() < until:
            turn = await self._next(context)
            if turn is EOF:
                return
            yield turn

    async def _next(self, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None  # grpc runs every handler in one  # noqa: S101
        self._resting.add(task)
        try:
            return await context.read()
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            # It was `stop`, and not the caller who went: nothing was read.
            task.uncancel()
            return EOF
        finally:
            self._resting.discard(task)

    def stop(self) -> None:
        """Ends the streams that rest now, and each of the others after its turn."""
        self._stopping = True
        for task in self._resting:
            task.cancel()


class Requests:
    """What comes in on a stream of requests of several messages each.

    Args:
        context: The stream.
        turns: How long it stands.
        ended: Told how long a request took, in seconds, after which the next may follow.
    """

    def __init__(
        self, context: grpc.aio.ServicerContext[Any, Any], turns: Turns, ended: Callable[[float], None]
    ) -> None:
        self._context = context
        self._turns = turns
        self._ended = ended
        self.began: float | None = None

    async def turns(self) -> AsyncIterator[Any]:
        """Gives the first message of each request. What follows of a request is read by iterating."""
        async for first in self._turns.on(self._context):
            self.began = time.perf_counter()
            yield first
            self._ended(time.perf_counter() - self.began)
            self.began = None

    def __aiter__(self) -> Requests:
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is EOF:
            raise StopAsyncIteration
        return message


class Lane(NamedTuple):
    """A stream: itself, until when it is taken again, and the epoch that it is of."""

    call: Any
    until: float
    epoch: int


class Streams:
    """The standing streams of one rpc at one caller. Called, it opens one that does not stand.

    Args:
        open_stream: Opens one.
    """

    def __init__(self, open_stream: Callable[..., Any]) -> None:
        self._open = open_stream
        self._resting: deque[Lane] = deque()
        self._epoch = 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        """Opens one that does not stand."""
        return self._open(*arguments, **more)

    async def begin(self, first: Any, longest_seconds: float) -> tuple[Lane, Any]:
        """Sends what begins a turn; gives the stream, and what comes first of the answer.

        Args:
            first: What begins it.
            longest_seconds: How long a turn may take.

        Raises:
            grpc.aio.AioRpcError: As a call of its own would.
            PeerUnavailable: A stream that was opened for it was ended before the turn began.
        """
        while (lane := self._rested()) is not None:
            try:
                return lane, await _begun(lane, first)
            except _NotBegunError:
                continue
        # Two at a time, one after the other: where there are replicas they go to two of them, and calls alternate.
        lane, twin = self._lane(longest_seconds), self._lane(longest_seconds)
        self.rest(twin)
        try:
            return lane, await _begun(lane, first)
        except _NotBegunError as error:
            raise (error.__cause__ or PeerUnavailable()) from None

    def _lane(self, longest_seconds: float) -> Lane:
        call = self._open(timeout=STANDING_SECONDS + longest_seconds)
        return Lane(call, time.monotonic() + _LEFT_AFTER_SECONDS, self._epoch)

    def _rested(self) -> Lane | None:
        now = time.monotonic()
        while self._resting:
            # In turns, so that calls go to all replicas.
            lane = self._resting.popleft()
            if lane.call.done():
                continue
            if now < lane.until:
                return lane
            lane.call.cancel()
        return None

    def rest(self, lane: Lane) -> None:
        """Takes a stream back whose turn is over."""
        if lane.epoch == self._epoch and len(self._resting) < _MOST_RESTING:
            self._resting.append(lane)
        else:
            lane.call.cancel()

    def leave(self) -> None:
        """Ends the streams at rest now, and each of the others after its turn."""
        self._epoch += 1
        while self._resting:
            self._resting.popleft().call.cancel()


class _NotBegunError(Exception):
    """A stream was ended before a turn on it began."""


async def _begun(lane: Lane, first: Any) -> Any:
    """Sends what begins a turn; gives what comes first of the answer.

    Raises:
        _NotBegunError: The other side has not got it, or ended the stream well, without having taken it.
        grpc.aio.AioRpcError: The turn may have begun.
    """
    answer = EOF
    try:
        try:
            await lane.call.write(first)
        except grpc.aio.AioRpcError as error:
            # What was not sent as a whole was not taken. INTERNAL is grpc's own: the stream had ended, it does not say how.
            raise _NotBegunError from None if error.code() is grpc.StatusCode.INTERNAL else error
        except asyncio.InvalidStateError:
            raise _NotBegunError from await _end_of(lane)
        answer = await lane.call.read()
        if answer is EOF:
            raise _NotBegunError
        return answer
    finally:
        if answer is EOF:
            lane.call.cancel()


async def _end_of(lane: Lane) -> grpc.aio.AioRpcError | None:
    """Gives how a stream has ended; None: well."""
    try:
        await lane.call.read()
    except grpc.aio.AioRpcError as error:
        return error
    return None


class Lanes:
    """An rpc of calls, on standing streams; called like the rpc itself.

    Args:
        streams: The streams of its turns.
        alone: The rpc, each call on its own: for a server that was not updated yet, and has no streams of it.
        serialize: Writes a request.
    """

    def __init__(self, streams: Streams, alone: Any, serialize: Callable[[Any], bytes]) -> None:
        self._streams = streams
        self._alone = alone
        self._serialize = serialize

    async def __call__(self, request: Any, /, *, timeout: float, metadata: Sequence[tuple[str, str]] = ()) -> Any:  # noqa: ASYNC109  # grpc's own signature
        """Takes a turn.

        Raises:
            grpc.aio.AioRpcError: As the call itself would.
            PeerUnavailable: No answer came in time.
        """
        turn = turns_pb2.Turn(request=self._serialize(request), traceparent=dict(metadata).get(TRACEPARENT, ""))
        turn.timeout.FromNanoseconds(int(timeout * 1e9))
        try:
            async with asyncio.timeout(timeout):
                lane, answer = await self._streams.begin(turn, _LONGEST_TURN_SECONDS)
        except TimeoutError:
            raise PeerUnavailable from None
        except grpc.aio.AioRpcError as error:
            if from_rpc_error(error).reason != AccessError.reason:
                raise
            # What a server does not know it refuses like what it does not allow, before a handler sees it: nothing runs twice.
            return await self._alone(request, timeout=timeout, metadata=metadata)
        self._streams.rest(lane)
        return answer


class Standing:
    """A channel as a stub sees it: what its proto calls standing is called on streams that stand.

    Args:
        channel: The channel.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._streams: list[Streams] = []

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **more: Any,
    ) -> Any:
        """Gives what calls a method."""
        alone = self._channel.unary_unary(method, request_serializer, response_deserializer, **more)
        if not is_standing(method):
            return alone
        streams = self._channel.stream_stream(
            method + SUFFIX,
            request_serializer=turns_pb2.Turn.SerializeToString,
            response_deserializer=response_deserializer,
        )
        return Lanes(self._standing(streams), alone, request_serializer)

    def stream_stream(self, method: str, *arguments: Any, **more: Any) -> Any:
        """Gives what opens streams of a method."""
        opened = self._channel.stream_stream(method, *arguments, **more)
        return self._standing(opened) if is_standing(method) else opened

    def _standing(self, open_stream: Callable[..., Any]) -> Streams:
        self._streams.append(Streams(open_stream))
        return self._streams[-1]

    def __getattr__(self, name: str) -> Any:
        # Everything else is as it is.
        return getattr(self._channel, name)

    def leave(self) -> None:
        """Ends the streams that stand, each after its turn."""
        for each in self._streams:
            each.leave()

    async def close(self, grace: float) -> None:
        """Closes the channel when the calls on it are over, or the grace is."""
        self.leave()
        await self._channel.close(grace)
