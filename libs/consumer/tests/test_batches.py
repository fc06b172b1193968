"""What consumers put together: as many rpcs as its size needs, and each writer hears of its own write and of no other's."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from authpipe.types.v1 import records_pb2 as pb
from authpipe_consumer import RecordClient, StoreCaller
from authpipe_consumer.words import SealedWrite
from authpipe_envelope import RecordClass
from authpipe_grants import ConsumerKey, GrantError
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import Status


class Store:
    """A store at the wire: it keeps what it is told, and answers as a test says."""

    def __init__(self) -> None:
        self.puts: list[list[str]] = []
        self.prepared: list[int] = []
        self.put: Callable[[pb.PutRecordsRequest], pb.PutRecordsResponse] = lambda request: pb.PutRecordsResponse(
            answers=[pb.WriteAnswer() for _ in request.writes]
        )

    async def call_idempotent(self, _: object, request: Any) -> Any:
        if isinstance(request, pb.PrepareWritesRequest):
            self.prepared.append(len(request.items))
            refusal = pb.Refusal(reason="KEY_REFUSED", code=int(Status.PERMISSION_DENIED))
            return pb.PrepareWritesResponse(items=[pb.PreparedWrite(refusal=refusal) for _ in request.items])
        self.puts.append([write.request_id for write in request.writes])
        return self.put(request)


@pytest.fixture
def store() -> Store:
    return Store()


def client(store: Store) -> RecordClient:
    made: Any = StoreCaller
    return RecordClient(
        made(store, ConsumerKey(), None, "d", "eu", "user-credentials", lambda: dt.datetime.now(dt.UTC))
    )


async def put(consumer: RecordClient, *sizes: int) -> list[BaseException | None]:
    """Puts so many records at once; gives what each writer hears."""
    writes = [SealedWrite(pb.SealedRecord(record=bytes(size))) for size in sizes]
    puts = (consumer.put([write], [], "grant", str(number)) for number, write in enumerate(writes))
    return await asyncio.gather(*puts, return_exceptions=True)


async def test_what_is_put_in_the_same_moment_travels_together(store: Store) -> None:
    assert await put(client(store), *[100] * 5) == [None] * 5
    assert store.puts == [["0", "1", "2", "3", "4"]]


async def test_a_batch_that_is_too_long_for_a_message_is_several_and_keeps_its_order(store: Store) -> None:
    assert await put(client(store), 3_000_000, 3_000_000, 5_000_000, 100) == [None] * 4
    assert store.puts == [["0"], ["1"], ["2"], ["3"]]


async def test_a_write_that_is_refused_is_heard_of_by_its_writer_alone(store: Store) -> None:
    refusal = pb.Refusal(reason="FENCE_OUTDATED", code=int(Status.ABORTED))
    store.put = lambda request: pb.PutRecordsResponse(
        answers=[
            pb.WriteAnswer(refusal=refusal) if each.request_id == "1" else pb.WriteAnswer() for each in request.writes
        ]
    )
    first, second, third = await put(client(store), 100, 100, 100)
    assert (first, third) == (None, None)
    assert isinstance(second, PeerRefused)
    assert second.reason == "FENCE_OUTDATED"


async def test_what_was_stored_before_the_store_went_away_is_not_said_to_have_failed(store: Store) -> None:
    def once(request: pb.PutRecordsRequest) -> pb.PutRecordsResponse:
        if len(store.puts) > 1:
            raise PeerUnavailable
        return pb.PutRecordsResponse(answers=[pb.WriteAnswer() for _ in request.writes])

    store.put = once
    first, *others = await put(client(store), 3_000_000, 3_000_000, 100)
    assert first is None
    assert [type(each) for each in others] == [PeerUnavailable] * 2


async def test_fewer_answers_than_writes_are_believed_by_nobody(store: Store) -> None:
    store.put = lambda _: pb.PutRecordsResponse(answers=[pb.WriteAnswer()])
    assert [type(each) for each in await put(client(store), 100, 100)] == [GrantError] * 2


async def test_what_is_prepared_in_the_same_moment_travels_together_and_is_refused_one_by_one(store: Store) -> None:
    consumer = client(store)
    classes = [RecordClass.ACCESS, RecordClass.REFRESH]
    prepares = (consumer.prepare("ws", f"con_{number}", classes, "grant", "r") for number in range(3))
    ended = await asyncio.gather(*prepares, return_exceptions=True)
    assert [each.reason for each in ended if isinstance(each, PeerRefused)] == ["KEY_REFUSED"] * 3
    assert store.prepared == [6]
