"""Standing streams, with real certificates and sockets: a turn is a call, and no call is lost with a stream that ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from authpipe.types.v1 import events_pb2, records_pb2, turns_pb2
from authpipe.vault.v1 import vault_pb2_grpc
from authpipe_rpc import Peer, PeerConfig, PeerUnavailable, Requests, dns_name
from authpipe_rpc.identity import current_caller, current_request_deadline
from authpipe_rpc.standing import Turns
from authpipe_sensitive import DomainError, Status
from authpipe_sensitive.duties import note_emitted
from google.protobuf import duration_pb2

EDGE = "gateway/edge"
GET = "/authpipe.vault.v1.Vault/GetRecordsInTurn"


async def until(what: Callable[[], bool]) -> None:
    """Waits for something."""
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def get(peer: Peer[Any]) -> None:
    """Calls once, and not again."""
    await peer.call(lambda stub: stub.GetRecords, records_pb2.GetRecordsRequest())


async def calls_of_eight(peer: Any, seconds: float) -> int:
    """Lets eight callers call, one call after another, for so long; gives how many calls they made."""
    ends = time.monotonic() + seconds

    async def call() -> int:
        made = 0
        while time.monotonic() < ends:
            await get(peer)
            made += 1
        return made

    return sum(await asyncio.gather(*(call() for _ in range(8))))


@asynccontextmanager
async def stream(stage: Any, caller: str) -> AsyncIterator[Any]:
    """Opens a stream without our own caller's side."""
    files = stage.files(caller)
    credentials = grpc.ssl_channel_credentials(
        files.ca.read_bytes(), files.key.read_bytes(), files.certificate.read_bytes()
    )
    options = [("grpc.ssl_target_name_override", dns_name("vault"))]
    async with grpc.aio.secure_channel(f"127.0.0.1:{stage.port}", credentials, options=options) as channel:
        yield channel.stream_stream(GET, turns_pb2.Turn.SerializeToString, records_pb2.GetRecordsResponse.FromString)(
            timeout=20
        )


def turn(seconds: int | None = 5, request: bytes = b"") -> turns_pb2.Turn:
    timeout = None if seconds is None else duration_pb2.Duration(seconds=seconds)
    return turns_pb2.Turn(timeout=timeout, request=request)


async def test_calls_one_after_another_share_two_streams_and_those_at_once_have_each_their_own(
    standing: Any,
) -> None:
    peer = standing.peer(standing.files(EDGE))
    for _ in range(10):
        await get(peer)
    assert len(set(map(id, standing.contexts))) == 2
    gate = asyncio.Event()
    standing.answer = gate.wait
    calls = [asyncio.create_task(get(peer)) for _ in range(5)]
    await until(lambda: len(standing.contexts) == 15)
    assert len(set(map(id, standing.contexts[10:]))) == 5
    gate.set()
    await asyncio.gather(*calls)
    await peer.close()


async def test_every_turn_has_its_own_duty(standing: Any) -> None:
    """What the call before has left on record does not count for the one after it on the same stream."""
    peer = standing.peer(standing.files(EDGE))

    def write() -> records_pb2.PutRecordsResponse:
        note_emitted(events_pb2.EVENT_NAME_RECORDS_WRITTEN)
        return records_pb2.PutRecordsResponse()

    standing.answer = write
    assert [await standing.reason(peer), await standing.reason(peer)] == ["OK", "OK"]
    standing.answer = records_pb2.PutRecordsResponse
    assert await standing.reason(peer) == "AUDIT_DUTY_NEGLECTED"
    assert standing.contexts[2] is standing.contexts[0]
    await peer.close()


async def test_every_turn_has_its_own_deadline_and_knows_its_caller(standing: Any) -> None:
    seen: list[tuple[str, float]] = []

    def look() -> None:
        seen.append((str(current_caller()), (current_request_deadline() or 0) - time.monotonic()))

    standing.answer = look
    async with stream(standing, EDGE) as call:
        for seconds in (30, 3):
            await call.write(turn(seconds))
            await call.read()
    assert [caller for caller, _ in seen] == [EDGE, EDGE]
    assert 20 < seen[0][1] <= 30
    assert 0 < seen[1][1] <= 3


@pytest.mark.parametrize("seconds", [None, 61])
async def test_a_turn_without_a_deadline_of_a_minute_at_most_is_refused(seconds: int | None, standing: Any) -> None:
    async with stream(standing, EDGE) as call:
        await call.write(turn(seconds))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not standing.contexts


async def test_a_turn_that_is_no_call_is_refused_and_its_bytes_are_not_shown(standing: Any) -> None:
    async with stream(standing, EDGE) as call:
        await call.write(turn(request=b"\xff\xffsk_live_a-secret"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "sk_live" not in str(caught.value)


@pytest.mark.case(15)
async def test_whoever_may_not_call_an_rpc_gets_no_turn_on_its_streams(standing: Any) -> None:
    async with stream(standing, "audit") as call:
        await call.write(turn())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert not standing.contexts


async def test_whoever_gives_up_ends_what_was_done_for_it_and_the_next_call_is_not_held_up(
    standing: Any,
) -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    peer = standing.peer(standing.files(EDGE))
    await get(peer)
    standing.answer = hang
    call = asyncio.create_task(get(peer))
    await until(lambda: len(standing.contexts) == 2)
    call.cancel()
    async with asyncio.timeout(10):
        await ended.wait()
    standing.answer = lambda: None
    await get(peer)
    await peer.close()


async def test_a_turn_ends_with_its_deadline_also_where_its_caller_has_stopped(standing: Any) -> None:
    """A caller whose process was stopped cancels nothing: the server's own clock does."""
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    standing.answer = hang
    async with stream(standing, EDGE) as call:
        await call.write(turn(1))
        async with asyncio.timeout(10):
            await ended.wait()


async def test_a_peer_that_does_not_answer_in_time_is_unavailable(standing: Any) -> None:
    peer = standing.peer(standing.files(EDGE), timeout_seconds=0.5)
    standing.answer = asyncio.Event().wait
    with pytest.raises(PeerUnavailable):
        await get(peer)
    standing.answer = lambda: None
    await get(peer)
    await peer.close()


async def test_no_call_is_lost_while_streams_and_connections_come_to_their_end(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stream stands for a second here, as its connection does, and is left after half of that; each call is made once."""
    # As it is with ten seconds and five: a connection whose last stream its server ends is closed at once, and then nobody
    # can tell whether what was sent meanwhile came before that.
    monkeypatch.setattr("authpipe_rpc.standing._LEFT_AFTER_SECONDS", 0.5)
    peer = stage.peer(stage.files(EDGE))
    made = await calls_of_eight(peer, 4)
    assert len(stage.contexts) == made, "none was carried out twice either"
    assert len(set(map(id, stage.contexts))) >= 16, "streams have ended meanwhile"
    await peer.close()


async def test_a_turn_that_comes_when_its_server_has_ended_the_stream_is_made_once_on_another(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authpipe_rpc.server.STANDING_SECONDS", 0.1)
    other = stage.beside()
    await other.start()
    peer = other.peer(other.files(EDGE))
    made = await calls_of_eight(peer, 2)
    assert len(other.contexts) == made, "none was carried out twice either"
    assert len(set(map(id, other.contexts))) >= 16, "streams have ended meanwhile"
    await peer.close()
    await other.stop()


async def test_a_server_that_stops_answers_what_it_has_begun_and_waits_for_no_stream_at_rest(
    standing: Any,
) -> None:
    peer = standing.peer(standing.files(EDGE))
    gate = asyncio.Event()
    standing.answer = gate.wait
    calls = [asyncio.create_task(get(peer)) for _ in range(3)]
    await until(lambda: len(standing.contexts) == 3)
    standing.answer = lambda: None
    await get(peer)
    stopping = asyncio.create_task(standing.stop())
    await asyncio.sleep(0.2)
    assert not stopping.done(), "three are under way"
    gate.set()
    await asyncio.gather(*calls)
    # The grace is five seconds: the stream at rest has not taken it.
    async with asyncio.timeout(4):
        await stopping
    await standing.start()
    await peer.call_idempotent(lambda stub: stub.GetRecords, records_pb2.GetRecordsRequest())
    await peer.close()


async def test_turns_go_to_all_replicas_and_past_one_that_has_gone(stage: Any) -> None:
    other = stage.beside()
    await other.start(connection_age_seconds=1.0, grace_seconds=0.5)
    peer = stage.peer(stage.files(EDGE), other.port)
    async with asyncio.timeout(20):
        # Streams that were opened before one of them was reached go to the other, until they end.
        while not (stage.contexts and other.contexts):
            await asyncio.gather(*(get(peer) for _ in range(6)))
        # Whoever is alone alternates between two.
        came = (len(stage.contexts), len(other.contexts))
        while len(stage.contexts) - came[0] < 2 or len(other.contexts) - came[1] < 2:
            await get(peer)
    await other.stop()
    came = len(stage.contexts)
    for _ in range(10):
        await get(peer)
    assert len(stage.contexts) == came + 10
    await peer.close()


async def test_a_replica_that_is_stopped_under_load_fails_no_call_that_may_be_made_twice(standing: Any) -> None:
    other = standing.beside()
    await other.start()
    peer = standing.peer(standing.files(EDGE), other.port)
    stopped = asyncio.Event()
    calls = [0] * 8

    async def call(number: int) -> None:
        while not stopped.is_set():
            await peer.call_idempotent(lambda stub: stub.GetRecords, records_pb2.GetRecordsRequest())
            calls[number] += 1

    calling = [asyncio.create_task(call(number)) for number in range(8)]
    await until(lambda: sum(calls) > 100)
    await other.stop()
    before = sum(calls)
    await until(lambda: sum(calls) > before + 100)
    stopped.set()
    await asyncio.gather(*calling)
    await peer.close()


async def test_a_server_that_was_not_updated_yet_is_called_as_before(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An rpc may come to stand while some servers do not know it: deployments have no order."""
    older = stage.beside()
    monkeypatch.setattr("authpipe_rpc.server.is_standing", lambda _: False)
    await older.start()
    peer = older.peer(older.files(EDGE))
    await get(peer)
    assert len(older.contexts) == 1
    await peer.close()
    await older.stop()


async def test_a_call_that_its_handler_refuses_is_not_made_again(standing: Any) -> None:
    """A refusal is an event, and counted: one attempt is one."""

    class Refused(DomainError):
        """It is not allowed."""

        reason = "GRANT_REFUSED"
        status = Status.PERMISSION_DENIED

    def refuse() -> None:
        raise Refused

    standing.answer = refuse
    peer = standing.peer(standing.files(EDGE))
    assert await standing.reason(peer, "GetRecords") == "GRANT_REFUSED"
    assert len(standing.contexts) == 1
    await peer.close()


def test_a_peer_is_called_by_nothing_but_generated_code(standing: Any) -> None:
    """Of another stub the protos are not known: which of its rpcs stand, and what must not be printed."""
    config = PeerConfig(name="vault", address="ipv4:127.0.0.1:1")
    with pytest.raises(TypeError, match="stub class"):
        Peer(config, standing.files(EDGE), lambda channel: vault_pb2_grpc.VaultStub(channel))


@pytest.mark.promise("P07")
def test_no_way_of_showing_a_turn_shows_what_it_carries() -> None:
    carried = turn(request=b"sk_live_a-secret")
    assert all("sk_live" not in shown for shown in (str(carried), repr(carried), f"{carried}", f"{carried!r}"))


async def test_requests_of_several_messages_follow_one_another_on_a_stream() -> None:
    """Each is measured, and what follows of one is not taken for the next."""
    coming = iter([b"a", b"more of a", b"b", grpc.aio.EOF])  # type: ignore[attr-defined]  # it is there

    class Stream:
        async def read(self) -> Any:
            return next(coming)

    took: list[float] = []
    context: Any = Stream()
    requests = Requests(context, Turns(standing_seconds=5), took.append)
    seen = []
    async for first in requests.turns():
        seen.append(first)
        if first == b"a":
            assert await anext(requests) == b"more of a"
    assert seen == [b"a", b"b"]
    assert len(took) == 2
    assert requests.began is None
