"""What many want at one moment by one grant is opened once, its event says for how many, and each has a plaintext of its own."""

from __future__ import annotations

from typing import Any

import pytest
from authpipe.types.v1 import records_pb2 as pb
from authpipe_consumer.client import RecordClient
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass
from authpipe_sensitive import DomainError

SECRET = Want("ws", "con", RecordClass.ACCESS, "grant", "r0", shared=True)


def asked_by(*requests: str, **other: Any) -> list[Want]:
    return [SECRET._replace(request_id=each, **other) for each in requests]


class Asked:
    """What a store is asked for, on its way to it."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.items: list[tuple[str, int]] = []

    async def call_idempotent(self, rpc: object, request: Any) -> Any:
        self.items += [(item.request_id, item.request_count) for item in request.items]
        return await self._store.call_idempotent(rpc, request)


@pytest.fixture
def asked(store: Any) -> Asked:
    return Asked(store)


@pytest.fixture
def client(asked: Asked, make_client: Any) -> RecordClient:
    return make_client(asked)  # type: ignore[no-any-return]


@pytest.mark.promise("P31")
async def test_one_opening_serves_all_and_says_for_how_many(client: RecordClient, asked: Asked, token: bytes) -> None:
    found = await client.open(asked_by("r1", "r2", "r3"))
    assert asked.items == [("r1", 3)]
    plaintexts = [each.plaintext for each in found if isinstance(each, Opened)]
    for each in plaintexts:
        assert each.expose() == token
        each.destroy()  # and the others have theirs still
    assert len(plaintexts) == 3


async def test_one_alone_is_opened_for_one(client: RecordClient, asked: Asked, token: bytes) -> None:
    with (await client.open_one(SECRET)).plaintext as plaintext:
        assert plaintext.expose() == token
    assert asked.items == [("r0", 0)]


@pytest.mark.promise("P31")
@pytest.mark.parametrize(
    "another",
    [{"shared": False}, {"grant": "another"}, {"record_class": None}, {"connection": "con2"}, {"workspace": "ws2"}],
    ids=lambda other: next(iter(other)),
)
async def test_what_differs_in_anything_is_opened_for_itself(
    another: dict[str, Any], client: RecordClient, asked: Asked
) -> None:
    await client.open([*asked_by("r1", "r2"), *asked_by("r3", **another), *asked_by("r4")])
    assert asked.items == [("r1", 3), ("r3", 0)]


@pytest.mark.promise("P31")
async def test_uses_that_nobody_says_may_be_shared_each_have_their_event(client: RecordClient, asked: Asked) -> None:
    await client.open(asked_by("r1", "r2", "r3", shared=False))
    assert asked.items == [("r1", 0), ("r2", 0), ("r3", 0)]


async def test_what_is_refused_is_refused_to_each(client: RecordClient, asked: Asked) -> None:
    async def refuse(_: object, request: Any) -> pb.GetRecordsResponse:
        refusal = pb.Refusal(reason="GRANT_REFUSED", code=7)
        return pb.GetRecordsResponse(items=[pb.FoundRecord(refusal=refusal) for _ in request.items])

    asked.call_idempotent = refuse  # type: ignore[method-assign]
    found = await client.open(asked_by("r1", "r2"))
    assert [each.reason for each in found if isinstance(each, DomainError)] == ["GRANT_REFUSED"] * 2
