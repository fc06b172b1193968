"""Sealing again: what is there moves, all or none, and stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from authpipe_consumer.words import Opened, Sealing, Want
from authpipe_envelope import RecordClass
from authpipe_oauth_worker.domain.resealing import Resealing, ResealJob
from authpipe_rpc import PeerRefused, PeerUnavailable
from authpipe_sensitive import DomainError, Secret, Status

TOKENS = (RecordClass.ACCESS, RecordClass.REFRESH)


class Store:
    """A store: records of a connection, each with the reason that its key is refused for; empty: it is released."""

    def __init__(self, **records: str) -> None:
        self.records = {RecordClass[name]: reason for name, reason in records.items()}
        self.opened: list[Secret] = []
        self.prepared: list[RecordClass] = []
        self.put_records: list[tuple[RecordClass, Sealing, bytes]] = []
        self.away = False

    async def open(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        found: list[Opened | DomainError] = []
        for want in wants:
            assert want.record_class is not None
            if reason := self.records.get(want.record_class, "RECORD_NOT_FOUND"):
                found.append(PeerRefused(reason, Status.FAILED_PRECONDITION))
                continue
            self.opened.append(Secret(want.record_class.name.encode()))
            found.append(Opened(self.opened[-1], want.record_class, 3, "as.example", b"h" * 32, None, "abc…"))
        return found

    async def open_once(self, wants: Sequence[Want]) -> list[Opened | DomainError]:
        return await self.open(wants)

    async def prepare(self, _: str, __: str, classes: Sequence[RecordClass], *___: Any) -> dict[RecordClass, Any]:
        self.prepared += classes
        if self.away:
            raise PeerUnavailable
        return {each: each for each in classes}

    def seal(self, key: Any, sealing: Sealing, plaintext: Secret) -> Any:
        return key, sealing, bytes(plaintext.expose())

    async def put(self, records: Sequence[Any], *_: Any) -> None:
        self.put_records += records


def job(*classes: RecordClass) -> ResealJob:
    return ResealJob("ws", "con", classes or TOKENS, "grant", 7, "r")


async def test_all_that_is_there_moves_and_is_bound_to_what_it_was_bound_to() -> None:
    vault = Store(ACCESS="", REFRESH="")
    assert await Resealing(vault, Store()).reseal(job()) == 2
    sealing = Sealing("as.example", b"h" * 32, "abc…", None, 7)
    assert vault.put_records == [
        (RecordClass.ACCESS, sealing, b"ACCESS"),
        (RecordClass.REFRESH, sealing, b"REFRESH"),
    ]
    assert all(len(each.expose()) == 0 or not any(each.expose()) for each in vault.opened), "overwritten after use"


async def test_what_is_on_the_newest_key_or_not_there_is_left_alone() -> None:
    vault = Store(ACCESS="RECORD_KEY_CURRENT", REFRESH="")
    assert await Resealing(vault, Store()).reseal(job()) == 1
    assert vault.prepared == [RecordClass.REFRESH]
    vault = Store(ACCESS="RECORD_KEY_CURRENT")
    assert await Resealing(vault, Store()).reseal(job()) == 0
    assert (vault.prepared, vault.put_records) == ([], [])


@pytest.mark.parametrize("reason", ["RECORD_INTEGRITY_VIOLATION", "FENCE_OUTDATED", "CONNECTION_DISCONNECTED"])
async def test_one_that_is_refused_leaves_all_as_they_were(reason: str) -> None:
    vault = Store(ACCESS="", REFRESH=reason)
    with pytest.raises(PeerRefused, match=reason):
        await Resealing(vault, Store()).reseal(job())
    assert vault.put_records == []
    assert all(not any(each.expose()) for each in vault.opened)


async def test_write_keys_that_are_not_given_leave_nothing_open() -> None:
    vault = Store(ACCESS="", REFRESH="")
    vault.away = True
    with pytest.raises(PeerUnavailable):
        await Resealing(vault, Store()).reseal(job())
    assert vault.put_records == []
    assert all(not any(each.expose()) for each in vault.opened)


async def test_a_client_secret_is_in_the_other_store() -> None:
    secrets = Store(CLIENT_SECRET="")
    assert await Resealing(Store(), secrets).reseal(job(RecordClass.CLIENT_SECRET)) == 1
