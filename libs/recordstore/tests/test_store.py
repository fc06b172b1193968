"""What the rules of a store may rely on in its tables. The same suite over the double and over PostgreSQL."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from authpipe_database import Database, Outbox
from authpipe_recordstore.domain.records import SERVABLE_NUMBERS
from authpipe_recordstore.domain.words import GONE, Record, Ref
from authpipe_recordstore.domain.writing import TRANSIENT_NUMBERS, Write
from authpipe_recordstore.errors import FenceError, VersionConflictError, WithheldError
from authpipe_recordstore.store import Store
from authpipe_sensitive import AuditEntry, DomainError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ENTRY = AuditEntry(name="RECORDS_WRITTEN", outcome="SUCCEEDED", actor="service:test", request_id="r")
ACCESS, ANSWER = 1, 8


@dataclass
class FakeStore:
    """A store's tables in memory."""

    records: dict[Ref, Record] = field(default_factory=dict)
    states: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    events: list[AuditEntry] = field(default_factory=list)

    async def find(self, refs: Sequence[Ref]) -> list[Record | None]:
        return [self._find(ref) for ref in refs]

    def _find(self, ref: Ref) -> Record | None:
        classes = SERVABLE_NUMBERS if ref.record_class == 0 else (ref.record_class,)
        withheld = self.states.get((ref.workspace, ref.connection), (0, "active"))[1] != "active"
        for each in classes:
            found = self.records.get(ref._replace(record_class=each))
            if found is not None:
                return found._replace(withheld=withheld)
        return GONE if withheld else None

    async def put(self, writes: Sequence[Write]) -> list[DomainError | None]:
        return [self._put(*write) for write in writes]

    def _put(
        self, records: Sequence[Record], ended: Sequence[tuple[Ref, int]], entries: Sequence[AuditEntry]
    ) -> DomainError | None:
        states, kept = dict(self.states), dict(self.records)
        fences = {(ref.workspace, ref.connection): fence for ref, fence in ended}
        fences |= {(each.ref.workspace, each.ref.connection): each.fence for each in records}
        for name, fence in fences.items():
            known, state = states.get(name, (0, "active"))
            if state != "active":
                return WithheldError()
            if known > fence:
                return FenceError()
            states[name] = (fence, state)
        for record in records:
            before = kept.get(record.ref)
            same = before is not None and (before.version, before.data) == (record.version, record.data)
            follows = record.version == (before.version + 1 if before else 1)
            if not (same or follows or (before is None and record.ref.record_class in TRANSIENT_NUMBERS)):
                return VersionConflictError()
            kept[record.ref] = record
        for ref, _ in ended:
            kept.pop(ref, None)
        self.states, self.records = states, kept
        self.events += entries
        return None

    async def withhold(self, workspace: str, connection: str, entry: AuditEntry) -> None:
        self._set(workspace, connection, "withheld", entry)

    async def keep(self, workspace: str, connection: str, entry: AuditEntry) -> None:
        self._set(workspace, connection, "kept", entry)

    async def restore(self, workspace: str, connection: str, entry: AuditEntry) -> bool:
        _, state = self.states.get((workspace, connection), (0, ""))
        written = any((ref.workspace, ref.connection) == (workspace, connection) for ref in self.records)
        if state != "kept" and not (state == "active" and written):
            return False
        self._set(workspace, connection, "active", entry)
        return True

    async def delete(self, workspace: str, connection: str, entry: AuditEntry) -> int:
        mine = [ref for ref in self.records if (ref.workspace, ref.connection) == (workspace, connection)]
        for ref in mine:
            del self.records[ref]
        self._set(workspace, connection, "deleted", entry)
        return len(mine)

    def _set(self, workspace: str, connection: str, state: str, entry: AuditEntry) -> None:
        fence, known = self.states.get((workspace, connection), (0, "active"))
        self.states[workspace, connection] = (fence, "deleted" if known == "deleted" else state)
        self.events.append(entry)


@pytest.fixture(params=["double", "PostgreSQL"])
def store(request: pytest.FixtureRequest, database: Database) -> Any:
    return FakeStore() if request.param == "double" else Store(database, Outbox())


def ref(record_class: int = ACCESS, connection: str = "") -> Ref:
    return Ref("ws", connection or f"con_{secrets.token_hex(8)}", record_class)


def record(of: Ref, version: int, fence: int = 0, data: bytes = b"sealed") -> Record:
    return Record(of, version, data, "acme", bytes(32), "abcd…", None, fence)


async def put(store: Any, records: Sequence[Record], ended: Sequence[tuple[Ref, int]] = ()) -> None:
    """Puts a write that is alone in its batch, and raises why it was not carried out."""
    (refusal,) = await store.put([Write(records, ended, [ENTRY])])
    if refusal is not None:
        raise refusal


@pytest.mark.case(2)
async def test_a_version_is_taken_only_over_the_one_before(store: Any) -> None:
    name = ref()
    with pytest.raises(VersionConflictError):
        await put(store, [record(name, 2)])
    await put(store, [record(name, 1)])
    with pytest.raises(VersionConflictError):
        await put(store, [record(name, 1, data=b"another")])
    with pytest.raises(VersionConflictError):
        await put(store, [record(name, 3)])
    await put(store, [record(name, 2, data=b"next")])
    assert (await store.find([name]))[0].data == b"next"


async def test_the_same_bytes_may_be_put_again_after_an_answer_was_lost(store: Any) -> None:
    name = ref()
    for version in (1, 1, 2, 2):
        await put(store, [record(name, version)])
    assert (await store.find([name]))[0].version == 2


@pytest.mark.case(10)
async def test_an_older_fence_writes_nothing(store: Any) -> None:
    name = ref()
    await put(store, [record(name, 1, fence=5)])
    with pytest.raises(FenceError):
        await put(store, [record(name, 2, fence=4, data=b"stale")])
    assert (await store.find([name]))[0].data == b"sealed"


async def test_all_records_of_a_write_are_stored_or_none(store: Any) -> None:
    good = ref()
    bad = ref(2, good.connection)
    with pytest.raises(VersionConflictError):
        await put(store, [record(good, 1), record(bad, 7)])
    assert await store.find([good, bad]) == [None, None]


@pytest.mark.promise("P11")
async def test_what_is_withheld_is_not_written_and_what_is_gone_stays_gone(store: Any) -> None:
    name = ref()
    await put(store, [record(name, 1)])
    await store.withhold("ws", name.connection, ENTRY)
    with pytest.raises(WithheldError):
        await put(store, [record(name, 2)])
    assert await store.delete("ws", name.connection, ENTRY) == 1
    await store.withhold("ws", name.connection, ENTRY)
    with pytest.raises(WithheldError):
        await put(store, [record(name, 1)])
    assert await store.find([name]) == [GONE]
    assert await store.delete("ws", name.connection, ENTRY) == 0


@pytest.mark.promise("P12")
async def test_what_is_kept_is_neither_served_nor_written_and_comes_back_as_it_was(store: Any) -> None:
    name = ref()
    await put(store, [record(name, 1, fence=3)])
    await store.keep("ws", name.connection, ENTRY)
    assert (await store.find([name]))[0].withheld
    with pytest.raises(WithheldError):
        await put(store, [record(name, 2, fence=3)])
    assert await store.restore("ws", name.connection, ENTRY)
    assert await store.find([name]) == [record(name, 1, fence=3)]
    with pytest.raises(FenceError):
        await put(store, [record(name, 2, fence=2)])


@pytest.mark.promise("P12")
async def test_only_what_is_kept_comes_back(store: Any) -> None:
    withheld, deleted = ref(), ref()
    for each in (withheld, deleted):
        await put(store, [record(each, 1)])
        await store.keep("ws", each.connection, ENTRY)
    await store.withhold("ws", withheld.connection, ENTRY)
    await store.delete("ws", deleted.connection, ENTRY)
    await store.keep("ws", deleted.connection, ENTRY)
    for each in (withheld, deleted, ref()):
        assert not await store.restore("ws", each.connection, ENTRY)
    assert (await store.find([withheld]))[0].withheld
    assert await store.find([deleted]) == [GONE]


async def test_a_transient_record_is_used_up_and_its_versions_go_on(store: Any) -> None:
    name = ref(ANSWER)
    await put(store, [record(name, 1)])
    await put(store, [], [(name, 0)])
    assert await store.find([name]) == [None]
    await put(store, [record(name, 2)])
    assert (await store.find([name]))[0].version == 2


async def test_of_two_writers_of_one_version_one_wins(store: Any) -> None:
    name = ref()
    await put(store, [record(name, 1)])
    ended = await asyncio.gather(
        *(put(store, [record(name, 2, data=bytes([n]))]) for n in range(5)), return_exceptions=True
    )
    assert sorted(type(each).__name__ for each in ended) == ["NoneType"] + ["VersionConflictError"] * 4


async def test_a_write_that_is_refused_touches_no_other_of_its_batch_and_leaves_no_event(store: Any) -> None:
    good, bad, withheld = ref(), ref(), ref()
    await store.withhold("ws", withheld.connection, ENTRY)
    answer = ref(ANSWER, good.connection)
    refused = ENTRY._replace(target="refused")
    answers = await store.put(
        [
            Write([record(bad, 7, fence=9)], [], [refused]),
            Write([record(answer, 1, fence=2)], [], [ENTRY]),
            Write([record(withheld, 1)], [], [refused]),
            Write([record(good, 1, fence=2)], [(answer, 2)], [ENTRY]),
            Write([record(good, 2, fence=1)], [], [refused]),
        ]
    )
    assert [each and each.reason for each in answers] == [
        "RECORD_VERSION_CONFLICT", None, "CONNECTION_DISCONNECTED", None, "FENCE_OUTDATED"
    ]  # fmt: skip
    assert await store.find([good, bad, answer]) == [record(good, 1, fence=2), None, None]
    # What was refused has not raised the fence of its connection either.
    await put(store, [record(bad, 1, fence=3)])


async def test_what_was_put_before_may_be_put_again_in_one_batch_with_what_follows_it(store: Any) -> None:
    name = ref()
    await put(store, [record(name, 1)])
    again = [Write([record(name, version)], [], [ENTRY]) for version in (1, 2)]
    assert await store.put(again) == [None, None]
    assert await store.find([name]) == [record(name, 2)]


async def test_a_batch_of_refusals_changes_nothing(store: Any) -> None:
    name = ref()
    answers = await store.put([Write([record(name, version)], [], [ENTRY]) for version in (2, 3)])
    assert [each.reason for each in answers] == ["RECORD_VERSION_CONFLICT"] * 2
    assert await store.find([name]) == [None]


async def test_batches_that_meet_on_the_same_connections_in_another_order_end(store: Any) -> None:
    names = [ref() for _ in range(6)]
    batches = [[Write([record(name, 1)], [], [ENTRY]) for name in order] for order in (names, names[::-1]) * 4]
    ended = await asyncio.gather(*map(store.put, batches))
    assert ended == [[None] * 6] * 8


async def test_answers_come_in_the_order_of_the_questions(store: Any) -> None:
    names = [ref() for _ in range(5)]
    for number, name in enumerate(names[:4]):
        await put(store, [record(name, 1, data=bytes([number]))])
    found = await store.find([names[3], names[4], names[0], names[3], names[0]._replace(record_class=0)])
    assert [each.data if each else None for each in found] == [b"\x03", None, b"\x00", b"\x03", b"\x00"]


_PUT = st.tuples(st.just("put"), st.integers(1, 4), st.integers(0, 3), st.sampled_from([ACCESS, ANSWER]), st.booleans())
_CONSUME = st.tuples(st.just("consume"), st.just(0), st.integers(0, 3), st.just(ANSWER), st.booleans())
_STATES = st.sampled_from(["withhold", "keep", "restore", "delete"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.one_of(st.lists(st.one_of(_PUT, _CONSUME), min_size=1, max_size=5), _STATES), max_size=10),
)
async def test_postgresql_does_what_the_double_does(steps: list[Any], database: Database) -> None:
    names = [f"con_{secrets.token_hex(8)}" for _ in range(2)]
    double, real = FakeStore(), Store(database, Outbox())
    for step in steps:
        outcomes = [await _step(each, step, names) for each in (double, real)]
        assert outcomes[0] == outcomes[1], step
        questions = [ref(each, name) for each in (0, ACCESS, ANSWER) for name in names]
        assert await double.find(questions) == await real.find(questions)


async def _step(store: Any, step: Any, names: Sequence[str]) -> object:
    match step:
        case "withhold" | "keep" | "restore" | "delete":
            return await getattr(store, step)("ws", names[0], ENTRY)
        case _:
            writes = []
            for act, version, fence, record_class, other in step:
                name = ref(record_class, names[other])
                records, ended = ([record(name, version, fence)], []) if act == "put" else ([], [(name, fence)])
                writes.append(Write(records, ended, [ENTRY]))
            return [each and each.reason for each in await store.put(writes)]
