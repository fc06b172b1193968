"""The outbox: no change without its event, and none lost, doubled or out of order, whatever dies between which two steps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from authpipe.types.v1 import effects_pb2
from authpipe.types.v1 import events_pb2
from authpipe_database import AuditBacklogError, Database, DatabaseConfig, Outbox
from authpipe_database.connect import DatabaseUnavailableError
from authpipe_grants import SignedBatch
from authpipe_sensitive import AuditEntry, DomainError, Status
from authpipe_relay import Relay
from authpipe_testing.database import own_database
from authpipe_testing.postgres import Cluster
from authpipe_transparency import FormatError, decode_event


class AwayError(DomainError):
    """The sink is away."""

    reason = "AWAY"
    status = Status.UNAVAILABLE


class Sink:
    """audit, as a relay sees it: keeps what follows, by number; compares and drops what it has."""

    def __init__(self) -> None:
        self.batches: list[SignedBatch] = []
        self.logged: list[bytes] = []
        self.away = False
        self.dies_after = False

    async def append(self, batch: SignedBatch) -> int:
        """Keeps a batch, or says how far it has it."""
        if self.away:
            raise AwayError
        self.batches.append(batch)
        have = len(self.logged) - batch.first_sequence + 1
        assert have >= 0, "no number is missing"
        if have:
            same = min(have, len(batch.events))
            assert self.logged[batch.first_sequence - 1 :][:same] == list(batch.events)[:same], (
                "a repeat is what it was"
            )
        else:
            self.logged += batch.events
        if self.dies_after:
            raise AwayError
        return len(self.logged)

    def requests(self) -> list[str]:
        """Gives the request ids in the order of their numbers."""
        return [decode_event(event)["request"] for event in self.logged]


def sign(first_sequence: int, events: Sequence[bytes]) -> SignedBatch:
    """Signs nothing: that a signature is verified is tested where it is."""
    return SignedBatch(first_sequence, events, b"", ())


def relay_of(
    database: Database, outbox: Outbox, sink: Sink, gather_seconds: float = 0.25, look_seconds: float = 1.0
) -> Relay:
    return Relay(database, outbox, sink, sign, 50, gather_seconds, look_seconds)


def entry(request: str) -> AuditEntry:
    return AuditEntry(name="TOKEN_REFRESHED", outcome="SUCCEEDED", actor="service:test", request_id=request)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DatabaseConfig, Cluster]]:
    migrations = Path(__file__).parent / "migrations"
    with own_database(tmp_path_factory.mktemp("database"), "member", migrations) as made:
        yield made


@pytest.fixture
async def database(server: tuple[DatabaseConfig, Cluster]) -> AsyncIterator[Database]:
    with psycopg.connect(**server[1].conninfo("dba", "member"), autocommit=True) as dba:  # type: ignore[arg-type]
        dba.execute("truncate audit_outbox; truncate changes; update audit_sequence set last = 0, sending = '{}'")
    made = Database(server[0])
    await made.open()
    yield made
    await made.close()


async def write(database: Database, outbox: Outbox, *requests: str) -> None:
    for request in requests:
        async with database.transaction() as connection:
            await outbox.append(connection, entry(request))


async def left(database: Database) -> int:
    async with database.transaction() as connection:
        return int(await connection.scalar(sa.text("select count(*) from audit_outbox")) or 0)


@pytest.mark.promise("P31")
async def test_events_arrive_in_the_order_in_which_they_were_committed(database: Database) -> None:
    outbox, sink = Outbox(), Sink()
    await write(database, outbox, "a", "b")
    async with database.hot() as connection:
        await outbox.append_hot(connection, [entry("c"), entry("d")])
    assert await relay_of(database, outbox, sink).deliver_batch() == 3
    assert sink.requests() == ["a", "b", "c", "d"]
    assert await left(database) == 0


@pytest.mark.promise("P31")
async def test_a_change_that_is_rolled_back_leaves_no_event_and_an_event_that_fails_no_change(
    database: Database,
) -> None:
    outbox = Outbox()
    with pytest.raises(ZeroDivisionError):
        async with database.transaction() as connection:
            await connection.execute(sa.text("insert into changes (id) values (1)"))
            await outbox.append(connection, entry("rolled-back"))
            _ = 1 / 0
    with pytest.raises(FormatError):
        async with database.transaction() as connection:
            await connection.execute(sa.text("insert into changes (id) values (2)"))
            await outbox.append(connection, entry("none")._replace(name="NO_SUCH_EVENT"))
    assert await left(database) == 0
    async with database.transaction() as connection:
        assert await connection.scalar(sa.text("select count(*) from changes")) == 0


@pytest.mark.promise("P31")
async def test_a_sink_that_is_away_loses_nothing(database: Database) -> None:
    outbox, sink = Outbox(), Sink()
    relay = relay_of(database, outbox, sink)
    await write(database, outbox, "a", "b")
    sink.away = True
    with pytest.raises(AwayError):
        await relay.deliver_batch()
    await write(database, outbox, "c")
    sink.away = False
    while await left(database):
        await relay.deliver_batch()
    assert sink.requests() == ["a", "b", "c"]


@pytest.mark.promise("P31")
async def test_a_relay_that_dies_between_delivery_and_deletion_repeats_with_the_same_numbers(
    database: Database,
) -> None:
    outbox, sink = Outbox(), Sink()
    await write(database, outbox, "a", "b")
    sink.dies_after = True
    with pytest.raises(AwayError):
        await relay_of(database, outbox, sink).deliver_batch()
    sink.dies_after = False
    await write(database, outbox, "c")
    # What it repeats is there already: it deletes that, and sends the rest as a batch of its own.
    assert await relay_of(database, outbox, sink).deliver_batch() == 2
    assert await relay_of(database, outbox, sink).deliver_batch() == 1
    assert [batch.first_sequence for batch in sink.batches] == [1, 1, 3]
    assert sink.requests() == ["a", "b", "c"]
    assert await left(database) == 0


@pytest.mark.promise("P31")
async def test_an_event_that_is_committed_late_does_not_take_the_number_of_one_whose_answer_was_lost(
    database: Database,
) -> None:
    """Ids are given when a row is written, and it is seen when it is committed."""
    outbox, sink = Outbox(), Sink()
    sink.dies_after = True
    async with database.transaction() as slow:
        await outbox.append(slow, entry("late"))
        await write(database, outbox, "early")
        with pytest.raises(AwayError):
            await relay_of(database, outbox, sink).deliver_batch()
    sink.dies_after = False
    another = relay_of(database, outbox, sink)
    while await left(database):
        await another.deliver_batch()
    assert sink.requests() == ["early", "late"]


async def test_a_sink_that_says_it_has_more_than_it_was_sent_is_not_believed(database: Database) -> None:
    class Liar(Sink):
        async def append(self, batch: SignedBatch) -> int:
            await super().append(batch)
            return 1_000_000

    outbox, sink = Outbox(), Liar()
    await write(database, outbox, "a", "b")
    await relay_of(database, outbox, sink).deliver_batch()
    await write(database, outbox, "c")
    await relay_of(database, outbox, sink).deliver_batch()
    assert [batch.first_sequence for batch in sink.batches] == [1, 3]


@pytest.mark.promise("P31")
async def test_of_two_relays_at_once_one_delivers(database: Database) -> None:
    outbox, sink = Outbox(), Sink()
    await write(database, outbox, *map(str, range(30)))
    relays = [relay_of(database, outbox, sink) for _ in range(4)]
    while await left(database):
        await asyncio.gather(*(relay.deliver_batch() for relay in relays))
    assert len(sink.batches) == 1
    assert sink.requests() == [str(number) for number in range(30)]


async def test_a_relay_delivers_soon_after_a_write_and_stops_at_once(database: Database) -> None:
    outbox, sink, stop = Outbox(), Sink(), asyncio.Event()
    running = asyncio.create_task(relay_of(database, outbox, sink, gather_seconds=0.01, look_seconds=60).run(stop))
    await asyncio.sleep(0.1)
    await write(database, outbox, "a")
    async with asyncio.timeout(5):
        while not sink.batches:  # what is waited for is what is tested
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert sink.requests() == ["a"]


async def test_a_relay_finds_what_another_process_left_behind(database: Database) -> None:
    sink, stop = Sink(), asyncio.Event()
    await write(database, Outbox(), "left-behind")
    running = asyncio.create_task(relay_of(database, Outbox(), sink, gather_seconds=0.01, look_seconds=0.05).run(stop))
    async with asyncio.timeout(5):
        while not sink.batches:  # what is waited for is what is tested
            await asyncio.sleep(0.01)
        stop.set()
        await running
    assert sink.requests() == ["left-behind"]


async def test_a_database_that_was_away_is_found_again_without_a_restart(
    database: Database, server: tuple[DatabaseConfig, Cluster]
) -> None:
    outbox, sink, stop = Outbox(), Sink(), asyncio.Event()
    await write(database, outbox, "before")
    server[1].stop()
    with pytest.raises(DatabaseUnavailableError):
        await write(database, outbox, "while-it-is-away")
    with pytest.raises(DatabaseUnavailableError):
        await database.check()
    running = asyncio.create_task(relay_of(database, outbox, sink, gather_seconds=0.01, look_seconds=0.05).run(stop))
    await asyncio.sleep(0.2)
    server[1].start()
    async with asyncio.timeout(20):
        while not sink.batches:  # what is waited for is what is tested
            await asyncio.sleep(0.05)
        stop.set()
        await running
    await write(database, outbox, "after")
    await relay_of(database, outbox, sink).deliver_batch()
    assert sink.requests() == ["before", "after"]


@pytest.mark.case(28)
@pytest.mark.promise("P31")
async def test_a_full_outbox_begins_nothing_and_holds_up_nothing_that_takes_access_away(database: Database) -> None:
    outbox, sink, stop = Outbox(), Sink(), asyncio.Event()
    sink.away = True
    running = asyncio.create_task(relay_of(database, outbox, sink, 0.01, 0.01).run(stop))
    await write(database, outbox, *map(str, range(50)))
    async with asyncio.timeout(10):
        while not outbox.is_full:  # what is waited for is what is tested
            await asyncio.sleep(0.01)
    enlarging = entry("e")._replace(name="RECORD_KEY_RELEASED", purpose="serve")
    for refused in (enlarging, entry("e")._replace(name="API_KEY_CREATED"), entry("e")._replace(name="REFRESH_BEGUN")):
        with pytest.raises(AuditBacklogError):
            async with database.transaction() as connection:
                await connection.execute(sa.text("insert into changes (id) values (9)"))
                await outbox.append(connection, refused)
    async with database.transaction() as connection:
        # Ends, takes away, tells: a spent token is stored, a connection is disconnected, what was refused is told.
        await outbox.append(connection, entry("a"))
        await outbox.append(connection, enlarging._replace(purpose="revoke"))
        await outbox.append(connection, entry("c")._replace(name="CONNECTION_DISCONNECTING"))
        await outbox.append(connection, enlarging._replace(outcome="REFUSED", name="RELEASE_REFUSED"))
        assert await connection.scalar(sa.text("select count(*) from changes")) == 0
    sink.away = False
    async with asyncio.timeout(20):
        while outbox.is_full or await left(database):
            await asyncio.sleep(0.02)
        stop.set()
        await running
    await write(database, outbox, "again")
    async with database.transaction() as connection:
        await outbox.append(connection, enlarging)
    assert len(sink.logged) == 54


async def test_a_rule_knows_the_effect_of_every_event_of_the_catalogue() -> None:
    without = [
        value.name
        for value in events_pb2.EventName.DESCRIPTOR.values
        if not value.GetOptions().Extensions[effects_pb2.effect]
    ]
    assert without == ["EVENT_NAME_UNSPECIFIED", "EVENT_NAME_NOTHING"]
