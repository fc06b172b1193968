"""What is remembered releases nothing by itself: whatever changed in the database since is what counts, in the same statement."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from authpipe_envelope import Header, RecordClass
from authpipe_grants import Grant, ReleasedKey, thumbprint
from authpipe_keyservice.domain.release import Direction, KeyFacts, KeyState, Wanted
from authpipe_keyservice.domain.asking import Ask
from authpipe_keyservice.domain.releasing import Releasing
from authpipe_keyservice.domain.remembered import KeyRow, Remembered
from authpipe_sensitive import DomainError

PUBLIC_KEY = bytes(32)
FACTS = KeyFacts(KeyState.ACTIVE, 1, 0, 0, 0, "", 0, "", 1, 1, 0)
READ = Wanted("ws_a", "con_a", RecordClass.API_KEY, 1, Direction.READ)


def grant(purpose: str, **changes: Any) -> Grant:
    return Grant(
        **{
            "issuer": "gateway/authority", "audience": ("user-credentials/eu",), "consumer": "gateway/edge",
            "consumer_thumbprint": thumbprint(PUBLIC_KEY), "purpose": purpose, "workspace": "ws_a",
            "connections": ("con_a",), "classes": (int(RecordClass.API_KEY),), "fence": 0, "forced": False,
            "actor": "api_key:k", "request_id": "r", "grant_id": "g", "issued_at": 0, "expires_at": 60,
            **changes,
        }
    )  # fmt: skip


class Counted:
    """The real tables, grants that are good and budgets that are large; it counts what is asked of the database."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.purpose = "store"
        self.customers = False
        self.looked_up = 0
        self.stood: list[bool] = []

    def verify(self, _: str) -> Grant:
        return grant(self.purpose, consumer="oauth/worker" if self.purpose == "proxy" else "gateway/edge")

    async def exceeded(self, *_: Any) -> str:
        return ""

    async def note_refusal(self, _: str) -> bool:
        return True

    async def note_clock(self, _: str) -> bool:
        return False

    async def look_up(self, wanted: Sequence[Wanted]) -> Any:
        self.looked_up += 1
        rows = await self.table.look_up(wanted)
        return [row and row._replace(customers=self.customers) for row in rows]

    async def commit_if(self, *given: Any) -> bool:
        self.stood.append(await self.table.commit_if(*given))
        return self.stood[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.table, name)


class Reader:
    """Reads one record, again and again, through the rules and the real tables."""

    def __init__(self, node: Any) -> None:
        self.around = Counted(node.key_table)
        self.header = b""
        self.releasing = Releasing(
            key_domain="user-credentials",
            region="eu",
            store=self.around,
            deks=node.deks,
            verifier=self.around,  # type: ignore[arg-type]
            budgets=self.around,  # type: ignore[arg-type]
            cache=node.cache,
            remembered=Remembered(lambda: 30.0, 60.0),
            clock=lambda: 30.0,
            randomness=os.urandom,
        )

    async def ask(self, wanted: Wanted) -> tuple[int | DomainError, list[ReleasedKey]]:
        """Asks for a key; gives the answer, and the keys that were sealed."""
        given: list[ReleasedKey] = []
        asks = [Ask(wanted, "token", "r", self.header)]
        batch = await self.releasing.release(
            PUBLIC_KEY, asks, lambda keys: given.extend(key for _, key in keys) or b"sealed"
        )
        (answer,) = batch.answers
        return answer, given

    async def read(self) -> int | DomainError:
        """Reads the record as edge does."""
        return (await self.ask(READ))[0]

    async def write(self) -> None:
        """Writes the record's first version."""
        answer, (key,) = await self.ask(READ._replace(direction=Direction.WRITE))
        assert answer == 1
        self.header = Header(key.key_version, key.salt, bytes(key.material.expose()[44:76])).encode()
        await self.around.table.acknowledge([("ws_a", "con_a", int(RecordClass.API_KEY), 1, 0)], [])
        self.around.purpose = "serve"


async def events(database: Any, name: str) -> int:
    """Says how many events of a name wait in the outbox."""
    async with database.transaction() as connection:
        rows = (await connection.execute(sa.text("select events from audit_outbox"))).all()
    return sum(name.encode() in bytes(event) for row in rows for event in row[0])


@pytest.fixture
async def reader(stage: Any) -> Reader:
    """Somebody who has written a record and read it once: it is remembered."""
    node = stage.node(stage.token())
    await node.settle()
    found = Reader(node)
    await found.write()
    assert await found.read() == 1
    assert found.around.stood == []
    return found


@pytest.mark.promise("P09")
async def test_a_second_read_is_one_statement_that_leaves_its_event(reader: Reader, database: Any) -> None:
    looked_up, before = reader.around.looked_up, await events(database, "RECORD_KEY_RELEASED")
    assert await reader.read() == 1
    assert reader.around.stood == [True]
    assert reader.around.looked_up == looked_up
    assert await events(database, "RECORD_KEY_RELEASED") == before + 1


@pytest.mark.promise("P09")
@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("update connection_keys set state = 'restricted'", "CONNECTION_DISCONNECTED"),
        ("update connection_keys set state = 'kept'", "CONNECTION_DISCONNECTED"),
        ("update connection_keys set state = 'destroyed', wrapped = ''", "CONNECTION_KEY_ERASED"),
        (
            "update connection_keys set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)",
            "WRAPPED_KEY_TAMPERED",
        ),
        ("update connection_keys set fence = fence + 1", ""),
        ("update floors set floor = 2, raised_at = now() - interval '1 hour'", "RECORD_ROLLED_BACK"),
        ("update floors set floor = 2, raised_at = now()", "RECORD_SUPERSEDED"),
        ("update floors set key_version = key_version + 1", ""),
        ("update deks set state = 'disabled'", "WORKSPACE_KEYS_ERASED"),
        ("update deks set state = 'active'", ""),
    ],
)
async def test_whatever_changed_since_is_what_counts(change: str, answer: str, reader: Reader, database: Any) -> None:
    looked_up, before = reader.around.looked_up, await events(database, "RECORD_KEY_RELEASED")
    async with database.transaction() as connection:
        await connection.execute(sa.text(change))
    found = await reader.read()
    assert reader.around.stood == [False], "nothing was written on account of the memory"
    assert reader.around.looked_up > looked_up
    assert (found.reason if isinstance(found, DomainError) else "") == answer
    assert await events(database, "RECORD_KEY_RELEASED") == before + (answer == "")


@pytest.mark.promise("P09")
async def test_in_a_batch_one_that_changed_sends_all_back_and_each_is_judged_once(
    reader: Reader, database: Any
) -> None:
    before = await events(database, "RECORD_KEY_RELEASED")
    async with database.transaction() as connection:
        await connection.execute(sa.text("update connection_keys set fence = fence + 1"))
    given: list[Any] = []
    asks = [Ask(READ, "token", "r", reader.header)] * 3
    batch = await reader.releasing.release(PUBLIC_KEY, asks, lambda keys: given.append(keys) or b"sealed")
    assert (list(batch.answers), reader.around.stood) == ([1, 1, 1], [False])
    assert await events(database, "RECORD_KEY_RELEASED") == before + 3
    assert (await reader.releasing.release(PUBLIC_KEY, asks, lambda keys: given.append(keys) or b"sealed")).answers
    assert reader.around.stood == [False, True]


@pytest.mark.promise("P09")
@pytest.mark.parametrize("purpose", ["refresh", "revoke", "health_check", "rotation_check", "reseal", "store"])
async def test_what_spends_tries_or_moves_is_never_judged_by_a_memory(purpose: str, reader: Reader) -> None:
    reader.around.purpose = purpose
    looked_up = reader.around.looked_up
    await reader.read()
    assert reader.around.stood == []
    assert reader.around.looked_up > looked_up


@pytest.mark.promise("P09")
async def test_a_newer_version_than_the_floor_raises_it_as_ever(reader: Reader, database: Any) -> None:
    async with database.transaction() as connection:
        await connection.execute(sa.text("update floors set floor = 0"))
    assert await reader.read() == 1
    async with database.transaction() as connection:
        assert (await connection.execute(sa.text("select floor from floors"))).scalar() == 1


def test_what_is_remembered_ends_is_bounded_and_has_nothing_of_a_customers_kms() -> None:
    now = [0.0]
    memory = Remembered(lambda: now[0], 60.0, size=2)
    row = KeyRow(FACTS, 1, 1, b"wrapped")
    names = [READ._replace(connection=f"con_{number}") for number in range(3)]
    memory.put(names, [row, row, row])
    assert memory.rows(names[:1]) is None, "the oldest went"
    assert memory.rows(names[1:]) == [row, row]
    memory.put(names[1:2], [row._replace(customers=True)])
    assert memory.rows(names[1:]) is None
    now[0] = 60.0
    assert memory.rows(names[2:]) is None


@pytest.mark.promise("P09")
async def test_a_key_may_be_kept_for_two_seconds_by_who_proxies_with_it_and_by_nobody_else(reader: Reader) -> None:
    for purpose, seconds in (("serve", 0), ("proxy", 2), ("serve", 0)):
        reader.around.purpose = purpose
        for _ in ("looked up", "remembered"):
            answer, (key,) = await reader.ask(READ)
            assert (answer, key.keep_seconds) == (1, seconds)
    assert reader.around.stood[-1] is True


@pytest.mark.promise("P09")
async def test_the_key_of_a_write_is_never_kept(reader: Reader) -> None:
    reader.around.purpose = "store"
    _, (key,) = await reader.ask(READ._replace(direction=Direction.WRITE, version=2))
    assert key.keep_seconds == 0


@pytest.mark.promise("P18")
@pytest.mark.case(27)
async def test_where_a_customers_kms_has_a_say_no_key_is_kept(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.around.purpose, reader.around.customers = "proxy", True
    monkeypatch.setattr(Remembered, "rows", lambda *_: None)
    answer: int | DomainError = 0
    for _ in range(50):
        answer, keys = await reader.ask(READ)
        if answer == 1:
            break
        await asyncio.sleep(0.02)
    assert answer == 1
    assert [key.keep_seconds for key in keys] == [0]
