"""Records that are kept sealed beside their keys: opened again only when their store says so, and gone when their time is over."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from authpipe.types.v1 import records_pb2 as pb
from authpipe_consumer.client import RecordClient
from authpipe_consumer.keeping import Kept, Name
from authpipe_consumer.words import Opened, Want
from authpipe_envelope import RecordClass
from authpipe_grants import LONGEST_KEPT_SECONDS, ReleasedKey
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Secret, Status

TOKEN = b"the-token-that-is-kept-sealed"
WANT = Want("ws", "con", RecordClass.ACCESS, "grant", "r", keep=True)


@pytest.fixture
def client(store: Any, make_client: Any) -> RecordClient:
    return make_client(store)  # type: ignore[no-any-return]


async def opened(client: RecordClient, want: Want = WANT) -> bytes:
    found = await client.open_one(want)
    with found.plaintext:
        return bytes(found.plaintext.expose())


@pytest.mark.promise("P31")
async def test_what_is_kept_is_opened_again_after_its_store_was_asked_each_time(
    client: RecordClient, store: Any
) -> None:
    for _ in range(4):
        assert await opened(client) == TOKEN + b"-1"
    assert (store.reads, store.reuses) == (1, 3)


async def test_many_that_want_it_at_once_share_one_question_and_each_has_a_use(
    client: RecordClient, store: Any
) -> None:
    await opened(client)
    asked: list[int] = []

    def allow(request: pb.ReuseRecordsRequest) -> list[bool]:
        asked.append(len(request.items))
        return [True] * len(request.items)

    store.allow = allow
    found = await client.open([WANT._replace(request_id=str(number)) for number in range(5)])
    assert [isinstance(each, Opened) for each in found] == [True] * 5
    assert (asked, store.reads) == ([5], 1)


async def test_the_store_hears_which_version_and_which_bytes_its_consumer_has(client: RecordClient, store: Any) -> None:
    seen: list[pb.RecordKept] = []

    def allow(request: pb.ReuseRecordsRequest) -> list[bool]:
        seen.extend(request.items)
        assert list(request.grants) == ["another"]
        return [True]

    store.allow = allow
    await opened(client)
    await opened(client, WANT._replace(grant="another", request_id="r2"))
    (item,) = seen
    assert (item.ref.workspace_id, item.ref.connection_id, item.ref.record_class) == ("ws", "con", 1)
    assert (item.version, item.digest, item.request_id) == (1, hashlib.sha256(store.record).digest(), "r2")


@pytest.mark.promise("P11")
@pytest.mark.parametrize("refusal", ["no", "an error"])
async def test_what_its_store_does_not_allow_is_asked_for_anew_and_forgotten(
    refusal: str, client: RecordClient, store: Any
) -> None:
    def refuse(_: pb.ReuseRecordsRequest) -> list[bool]:
        if refusal == "no":
            return [False]
        raise PeerRefused("AUDIT_BACKLOG", Status.UNAVAILABLE)

    await opened(client)
    store.write(2)
    store.allow = refuse
    assert await opened(client) == TOKEN + b"-2"
    assert (store.reads, store.reuses) == (2, 1)
    store.allow = lambda _: [True]
    assert await opened(client) == TOKEN + b"-2", "what is kept now is what is stored now"
    assert (store.reads, store.reuses) == (2, 2)


@pytest.mark.promise("P31")
async def test_with_its_store_away_nothing_that_is_kept_is_opened(client: RecordClient, store: Any) -> None:
    def away(_: pb.ReuseRecordsRequest) -> list[bool]:
        raise PeerUnavailable

    await opened(client)
    store.allow = away
    with pytest.raises(PeerUnavailable):
        await client.open_one(WANT)
    assert store.reads == 1


@pytest.mark.parametrize(("answers", "reason"), [([], "BATCH_BROKEN"), ([True, True], "BATCH_BROKEN")])
async def test_an_answer_that_does_not_fit_its_question_opens_nothing(
    answers: list[bool], reason: str, client: RecordClient, store: Any
) -> None:
    await opened(client)
    store.allow = lambda _: answers
    with pytest.raises(DomainError) as refused:
        await client.open_one(WANT)
    assert refused.value.reason == reason


async def test_what_keyservice_lets_nobody_keep_or_nobody_wants_kept_is_not(client: RecordClient, store: Any) -> None:
    store.keep_seconds = 0
    await opened(client)
    await opened(client)
    store.keep_seconds = 2
    await opened(client, WANT._replace(keep=False))
    await opened(client, WANT._replace(keep=False))
    assert (store.reads, store.reuses) == (4, 0)


async def test_who_does_not_want_what_is_kept_does_not_get_it(client: RecordClient, store: Any) -> None:
    await opened(client)
    await opened(client, WANT._replace(keep=False))
    assert (store.reads, store.reuses) == (2, 0)


async def test_a_key_whose_time_is_over_is_destroyed_though_nobody_looks(client: RecordClient, store: Any) -> None:
    store.keep_seconds = 1
    await opened(client)
    kept = client._kept.get(Name("ws", "con", 1))  # noqa: SLF001  # what must not lie about
    assert kept is not None
    assert len(kept.key.material) == 76
    await asyncio.sleep(1.2)
    assert len(kept.key.material) == 0
    assert await opened(client) == TOKEN + b"-1"
    assert (store.reads, store.reuses) == (2, 0)


async def test_a_key_whose_time_ends_while_its_store_is_asked_is_asked_for_anew(
    client: RecordClient, store: Any
) -> None:
    await opened(client)

    def late(_: pb.ReuseRecordsRequest) -> list[bool]:
        client._kept.forget(Name("ws", "con", 1))  # noqa: SLF001  # as its time does
        return [True]

    store.allow = late
    assert await opened(client) == TOKEN + b"-1"
    assert (store.reads, store.reuses) == (2, 1)


async def test_nobody_lets_a_key_be_kept_for_longer_than_two_seconds(client: RecordClient, store: Any) -> None:
    store.keep_seconds = 255
    await opened(client)
    kept = client._kept.get(Name("ws", "con", 1))  # noqa: SLF001  # how long it is
    assert kept is not None
    assert kept.key.keep_seconds == LONGEST_KEPT_SECONDS
    left = kept.ends.when() - asyncio.get_running_loop().time()
    assert left <= LONGEST_KEPT_SECONDS


async def test_of_too_many_the_first_goes_first_and_what_is_replaced_is_destroyed() -> None:
    kept, record = Kept(most=2), pb.SealedRecord(record=b"x")
    keys = [ReleasedKey(1, 1, bytes(32), Secret(b"\x07" * 76), 2) for _ in range(4)]
    names = [Name("ws", f"con_{number}", 1) for number in range(3)]
    for name, key in zip(names, keys, strict=False):
        kept.keep(name, record, key)
    kept.keep(names[2], record, keys[3])
    assert [len(key.material) for key in keys] == [0, 76, 0, 76]
    assert kept.get(names[0]) is None
    assert len(kept) == 2
