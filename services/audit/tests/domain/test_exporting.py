"""Exports against their verifier, over real PostgreSQL: every range of a log with many workspaces, statements, retention."""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import psycopg
import pytest
from authpipe_audit.domain.attesting import StoredBatch, batch_line, certificate_line
from authpipe_audit.domain.checkpointing import Checkpoints
from authpipe_audit.domain.exporting import Cursor, Exporting
from authpipe_audit.domain.growing import Batch
from authpipe_audit.domain.reading import new_event
from authpipe_audit.domain.retention import Retention
from authpipe_audit.domain.stating import Statements
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import PageTokenError
from authpipe_audit.store import CheckpointTable, ExportTable, Log, RetentionTable, TreeTable
from authpipe_database import Database
from authpipe_transparency import (
    LOG_KEY,
    Checkpoint,
    VerifierKey,
    decode_event,
    encode_event,
    leaf_hash,
    sign_batch,
    time_text,
)
from authpipe_transparency.emitting import Emitters, verify_signature
from authpipe_transparency.exports import BatchLine, read_line, write_line
from authpipe_transparency.findings import Finding, Kind
from authpipe_transparency.measuring import measure
from authpipe_transparency.verification import Known, Section, Verification
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

NAME = "example.com/log"
TRAIL = Trail.CONTROL
SIGNING = Ed25519PrivateKey.generate()
VKEY = VerifierKey(TRAIL.origin(NAME), LOG_KEY, SIGNING.public_key().public_bytes_raw())


class Signer:
    """Signs whatever it is asked for: that it refuses is tested where it refuses."""

    async def sign(self, checkpoint: Checkpoint, old_size: int, proof: object) -> bytes:
        """Signs."""
        del old_size, proof
        return SIGNING.sign(checkpoint.text.encode())

    async def public_key(self) -> bytes:
        """Gives the key."""
        return VKEY.public_key


class Stage:
    """A log that lives."""

    def __init__(self, database: Database, emit: Any) -> None:
        self._emit = emit
        self.log, tree, kept = Log(database, NAME, os.urandom), TreeTable(database), CheckpointTable(database)
        self.checkpoints = Checkpoints(self.log, tree, kept, Signer(), NAME)
        self.statements = Statements(self.log, partial(emit.signed, "audit"), time.time_ns, os.urandom)
        self.exporting = Exporting(ExportTable(database), kept, self.log, tree, NAME, Signer())
        self._next = 1

    async def happen(self, *workspaces: str, name: str = "TOKEN_REFRESHED") -> None:
        """Logs an event of each."""
        events = [self._emit.event(f"r{number}", workspace, name) for number, workspace in enumerate(workspaces)]
        await self.log.append(TRAIL, [self._emit.batch(self._next, *events, emitter="oauth/coordinator")])
        self._next += len(events)

    async def export(
        self,
        workspace: str,
        seen: int = 0,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> list[bytes]:
        """Exports, to the end."""
        size = await self.checkpoints.advance(TRAIL)
        lines, cursor = await self.exporting.begin(TRAIL, workspace, since, until, size, seen)
        following: Cursor | None = cursor
        while following is not None:
            more, following = await self.exporting.page(TRAIL, workspace, Cursor.decode(following.encode()))
            lines += more
        return lines.removesuffix(b"\n").split(b"\n")

    def verify(
        self, lines: list[bytes], seen: dict[int, bytes] | None = None, *, knows_the_ca: bool = True, piece: int = 10**6
    ) -> Section:
        """Verifies, as somebody who knows the log's key, and usually the emitters' CA; so many lines are measured at once."""
        verify_chain = self._emit.verify_chain if knows_the_ca else None
        known = Known({VKEY.name: VKEY}, {VKEY.name: seen or {}}, verify_chain=verify_chain)
        verification = Verification(known)
        for first in range(0, len(lines), piece):
            verification.add(measure(lines[first : first + piece]))
        (section,) = verification.end()
        return section


@pytest.fixture
def stage(database: Database, emit: Any) -> Stage:
    """A log that lives."""
    return Stage(database, emit)


@pytest.mark.promise("P31")
@pytest.mark.parametrize("statements", [(), (0,), (3,), (3, 4, 5), (9,), (0, 2, 4, 6, 8)])
async def test_every_workspaces_export_verifies_with_statements_anywhere(
    stage: Stage, statements: tuple[int, ...]
) -> None:
    counts = {"ws_1": 0, "ws_2": 0, "ws_3": 0}
    covered = dict(counts)
    for turn in range(10):
        if turn in statements:
            await stage.statements.state(TRAIL)
            covered = dict(counts)
        who = ["ws_1"] * (turn % 3) + ["ws_2"] * (turn == 5) + ["ws_3"]
        await stage.happen(*who)
        for workspace in who:
            counts[workspace] += 1
        if turn % 4 == 3:
            await stage.checkpoints.advance(TRAIL)
    for workspace, count in counts.items():
        section = stage.verify(await stage.export(workspace))
        assert (section.events, section.last, section.expired) == (count, count, 0)
        assert section.complete_to == (covered[workspace] if covered[workspace] == count else 0)
    assert stage.verify(await stage.export("ws_unknown")).events == 0


@pytest.mark.promise("P31")
async def test_every_range_of_time_verifies_and_shows_what_is_in_it(stage: Stage) -> None:
    marks = []
    for turn in range(8):
        marks.append(dt.datetime.now(dt.UTC))
        await stage.happen("ws_1", "ws_2", "ws_1")
        if turn % 2:
            await stage.statements.state(TRAIL)
    for begin in range(8):
        for end in range(begin + 1, 8):
            section = stage.verify(await stage.export("ws_1", since=marks[begin], until=marks[end]))
            assert section.events == 2 * (end - begin)
            assert section.complete_to >= 2 * end


async def test_pages_of_any_size_are_one_export(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(6):
        await stage.happen(*["ws_1", "ws_2"] * 5)
        await stage.statements.state(TRAIL)
    whole = await stage.export("ws_1")
    for size in (1, 2, 7, 30):
        monkeypatch.setattr("authpipe_audit.domain.exporting._PAGE_LEAVES", size)
        section = stage.verify(await stage.export("ws_1"))
        assert section.events == 30
    assert stage.verify(whole).events == 30


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_a_tree_that_does_not_extend_what_was_seen_is_named(stage: Stage) -> None:
    await stage.happen(*["ws_1"] * 5)
    seen = stage.verify(await stage.export("ws_1")).checkpoint
    await stage.happen(*["ws_2"] * 20)
    good = {seen.size: seen.root}
    stage.verify(await stage.export("ws_1", seen.size), good)
    with pytest.raises(Finding) as forked:
        stage.verify(await stage.export("ws_1", seen.size), {seen.size: bytes(32)})
    assert forked.value.kind is Kind.FORKED
    with pytest.raises(Finding) as unseen:
        stage.verify(await stage.export("ws_2"), {seen.size - 1: bytes(32), seen.size + 1000: bytes(32)})
    assert unseen.value.kind is Kind.FORKED


@pytest.mark.case(30)
@pytest.mark.promise("P31")
@pytest.mark.promise("P32")
async def test_a_body_that_retention_deleted_is_expired_and_one_that_somebody_deleted_is_missing(
    stage: Stage, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    await stage.happen(*["ws_1", "ws_2"] * 6)
    await stage.statements.state(TRAIL)
    superuser.execute("delete from bodies where workspace_id = 'ws_1' and leaf_index < 6")
    with pytest.raises(Finding) as missing:
        stage.verify(await stage.export("ws_1"))
    assert missing.value.kind is Kind.MISSING


class Clock:
    """A clock that is put."""

    def __init__(self) -> None:
        self.ahead_days = 0.0

    def __call__(self) -> int:
        """Gives nanoseconds since the epoch."""
        return time.time_ns() + int(self.ahead_days * 86_400 * 10**9)


@pytest.fixture
def clock() -> Clock:
    """A clock that is put."""
    return Clock()


@pytest.fixture
def retention(stage: Stage, database: Database, deleting: Database, clock: Clock, emit: Any) -> Retention:
    """Retention of thirty days."""

    return Retention(
        RetentionTable(database, deleting), stage.log, partial(emit.signed, "audit"), clock, os.urandom, 30
    )


@pytest.mark.case(30)
@pytest.mark.promise("P32")
async def test_what_is_older_than_the_policy_is_expired_and_the_rest_verifies(
    stage: Stage, retention: Retention, clock: Clock, rows: Callable[[str], list[tuple[object, ...]]]
) -> None:
    await stage.happen(*["ws_1", "ws_2"] * 4)
    await stage.statements.state(TRAIL)
    assert await retention.expire(TRAIL) == 0
    clock.ahead_days = 30.1
    assert await retention.expire(TRAIL) == 8
    assert await retention.expire(TRAIL) == 0, "what is told is told once"
    await stage.happen("ws_1", "ws_2")
    await stage.statements.state(TRAIL)
    section = stage.verify(await stage.export("ws_1"))
    assert (section.expired, section.events, section.last, section.complete_to) == (4, 2, 6, 6)
    assert rows("select count(*) from leaves where workspace_id = 'ws_1'") == [(6,)]
    # Salts went with the bodies: nothing of the old events is left but their hashes.
    assert rows("select count(*) from bodies where workspace_id = 'ws_1' and name = 'TOKEN_REFRESHED'") == [(1,)]


@pytest.mark.promise("P32")
@pytest.mark.parametrize(("days", "left"), [(7, 0), (30, 0), (90, 3), (400, 3)])
async def test_each_workspace_has_the_policy_that_authority_logged_last(
    stage: Stage, retention: Retention, clock: Clock, emit: Any, rows: Any, days: int, left: int
) -> None:
    await stage.happen(*["ws_1"] * 3)
    for sequence, (emitter, said) in enumerate(
        [("gateway/authority", 1), ("gateway/authority", days), ("oauth/worker", 2)], 1
    ):
        members = decode_event(emit.event("r", "ws_1", "AUDIT_RETENTION_SET"))
        event = encode_event({**{name: value for name, value in members.items() if name != "v"}, "count": said})
        number = sequence if emitter == "gateway/authority" else 1
        await stage.log.append(TRAIL, [emit.batch(number, event, emitter=emitter)])
    clock.ahead_days = 60
    await retention.expire(TRAIL)
    assert rows("select count(*) from bodies where name = 'TOKEN_REFRESHED'") == [(left,)]
    stage.verify(await stage.export("ws_1"))


@pytest.mark.promise("P32")
@pytest.mark.parametrize("dies_at", ["append_of", "delete_bodies"])
async def test_retention_that_dies_between_saying_and_deleting_goes_on_where_the_log_says(
    stage: Stage, retention: Retention, clock: Clock, monkeypatch: pytest.MonkeyPatch, rows: Any, dies_at: str
) -> None:
    await stage.happen(*["ws_1"] * 5)
    clock.ahead_days = 31

    class DeadError(Exception):
        """The process died."""

    async def dies(*_: object) -> None:
        raise DeadError

    with monkeypatch.context() as patch:
        patch.setattr(stage.log if dies_at == "append_of" else retention._stored, dies_at, dies)  # noqa: SLF001
        with pytest.raises(DeadError):
            await retention.expire(TRAIL)
    stage.verify(await stage.export("ws_1"))
    assert await retention.expire(TRAIL) == 5
    assert rows("select count(*) from bodies where name = 'BODIES_EXPIRED'") == [(1,)]
    assert stage.verify(await stage.export("ws_1")).expired == 5


@pytest.mark.case(30)
@pytest.mark.promise("P31")
async def test_the_role_that_deletes_cannot_append_or_change_and_the_one_that_appends_cannot_delete(
    stage: Stage, database: Database, deleting: Database
) -> None:
    await stage.happen("ws_1")
    for who, statements in (
        (deleting, ["update bodies set name = name", "insert into bodies select * from bodies", "truncate bodies",
                    "delete from leaves", "select * from checkpoints", "delete from batches"]),
        (database, ["delete from bodies", "update bodies set name = name", "truncate bodies"]),
    ):  # fmt: skip
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with who.hot() as connection:
                    await connection.execute(statement.encode())


async def test_a_cursor_that_is_none_is_refused() -> None:
    for text in ("", "x", "1.2.3", Cursor(1, 2, 3, 4, 5, 6, 7, 8).encode()[:-4] + "===="):
        with pytest.raises(PageTokenError):
            Cursor.decode(text)


ANOTHER = ec.generate_private_key(ec.SECP256R1())


def invented(emit: Any, first: int) -> Batch:
    """An event that nobody said, signed with a key that audit has: its own."""
    batch, key = emit.batch(first, emit.event("invented"), emitter="audit"), emit.leaf("audit")._signing_key  # noqa: SLF001
    signature = sign_batch(key, "oauth/coordinator", first, [batch.events[0].event])
    return replace(batch, emitter="oauth/coordinator", signature=signature)


def signed_by_nobody(emit: Any, first: int) -> Batch:
    """An event that nobody said, under the emitter's own certificate, which is no secret."""
    batch = emit.batch(first, emit.event("invented"), emitter="oauth/coordinator")
    return replace(batch, signature=sign_batch(ANOTHER, "oauth/coordinator", first, [batch.events[0].event]))


def changed(emit: Any, first: int) -> Batch:
    """An event that was changed before it became a leaf."""
    batch = emit.batch(first, *[emit.event(str(number)) for number in range(5)], emitter="oauth/coordinator")
    return replace(batch, events=[*batch.events[:3], new_event(emit.event("changed")), batch.events[4]])


def swapped(emit: Any, first: int) -> Batch:
    """Two events in another order than the emitter's."""
    batch = emit.batch(first, *[emit.event(str(number)) for number in range(5)], emitter="oauth/coordinator")
    return replace(batch, events=[batch.events[1], batch.events[0], *batch.events[2:]])


def renumbered(emit: Any, first: int) -> Batch:
    """Events under other numbers: an emitter's batch that was logged before, once more."""
    return replace(emit.batch(1, emit.event("again"), emitter="oauth/coordinator"), first_sequence=first)


def of_another(emit: Any, first: int) -> Batch:
    """An event that one emitter said, given to another."""
    return replace(emit.batch(first, emit.event("mine"), emitter="oauth/worker"), emitter="oauth/coordinator")


@pytest.mark.case(29)
@pytest.mark.promise("P31")
@pytest.mark.parametrize("attack", [invented, signed_by_nobody, changed, swapped, renumbered, of_another])
async def test_whoever_has_taken_over_the_log_cannot_give_an_event_to_an_emitter(
    stage: Stage, emit: Any, attack: Callable[[Any, int], Batch]
) -> None:
    await stage.happen("ws_1", "ws_2", "ws_1")
    stage.verify(await stage.export("ws_1"))
    # What the log's process would refuse, it logs: it is not ours any more. Its tree and chains are as they should be.
    assert await stage.log.append(TRAIL, [attack(emit, 4)]) != [3]
    await stage.statements.state(TRAIL)
    with pytest.raises(Finding) as found:
        stage.verify(await stage.export("ws_1"))
    assert found.value.kind is Kind.EMITTER


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_an_export_is_judged_alike_however_it_is_cut_for_measuring(stage: Stage, emit: Any) -> None:
    for _ in range(3):
        await stage.happen("ws_1", "ws_2", "ws_1", "ws_1")
    lines = await stage.export("ws_1")
    for piece in range(1, len(lines) + 1):
        assert stage.verify(lines, piece=piece).batches == 3
    await stage.log.append(TRAIL, [changed(emit, 13)])
    lines = await stage.export("ws_1")
    for piece in range(1, len(lines) + 1):
        with pytest.raises(Finding) as found:
            stage.verify(lines, piece=piece)
        assert found.value.kind is Kind.EMITTER


@pytest.mark.promise("P31")
async def test_an_event_that_is_left_out_is_told_as_that_wherever_it_stands_in_its_batch(stage: Stage) -> None:
    for batch in (["ws_a"], ["ws_a"], ["ws_b", "ws_a"], ["ws_a", "ws_b"], ["ws_a", "ws_a", "ws_a"], ["ws_b"], ["ws_a"]):
        await stage.happen(*batch)
    lines = await stage.export("ws_a")
    events = [number for number, line in enumerate(lines) if b'"position"' in line]
    assert len(events) == 8
    for number in events:
        for piece in (1, 3, 1_000):
            with pytest.raises(Finding) as found:
                stage.verify([*lines[:number], *lines[number + 1 :]], piece=piece)
            assert found.value.kind is Kind.FORMAT, (lines[number], piece)


@pytest.mark.case(29)
async def test_the_attack_sees_a_verifier_who_does_not_ask_whose_key_it_was(stage: Stage, emit: Any) -> None:
    await stage.log.append(TRAIL, [invented(emit, 1)])
    assert stage.verify(await stage.export("ws_1"), knows_the_ca=False).batches == 1


@pytest.mark.case(29)
@pytest.mark.promise("P31")
async def test_an_event_is_not_later_than_the_certificate_of_who_signed_it(stage: Stage, emit: Any) -> None:
    late = decode_event(emit.event("late"))
    del late["v"]
    late["time"] = time_text(time.time_ns() + 101 * 86_400 * 10**9)
    await stage.log.append(TRAIL, [emit.batch(1, encode_event(late), emitter="oauth/coordinator")])
    with pytest.raises(Finding) as found:
        stage.verify(await stage.export("ws_1"))
    assert found.value.kind is Kind.EMITTER


@pytest.mark.promise("P31")
@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: [line for line in lines if not line.startswith(b'{"batch"')],
        lambda lines: [line for line in lines if not line.startswith(b'{"certificate"')],
        lambda lines: [line.replace(b'"batch":[0,1,', b'"batch":[0,2,') for line in lines],
        lambda lines: [line.replace(b'"roots":["', b'"roots":["' + b"00" * 32 + b'","') for line in lines],
        lambda lines: [re.sub(rb'(,"key":"[^"]+","roots":)\[.+\]', rb"\1[]", line) for line in lines],
    ],
)
async def test_what_emitters_signed_cannot_be_left_out_of_an_export(stage: Stage, edit: Any) -> None:
    await stage.happen("ws_1", "ws_2", "ws_1", "ws_3", "ws_1")
    lines = await stage.export("ws_1")
    stage.verify(lines)
    with pytest.raises(Finding) as found:
        stage.verify(edit(lines))
    assert found.value.kind in {Kind.EMITTER, Kind.FORMAT}


@pytest.mark.promise("P31")
@given(st.data())
def test_of_any_batch_any_choice_of_events_is_proved_to_be_its_emitters(emit: Any, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 70), label="events")
    shown = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1), label="shown"))
    events = [f"event {number}".encode() for number in range(count)]
    signed = emit.signed("vault", 8, events)
    stored = StoredBatch(100, "vault", 8, b"".join(map(leaf_hash, events)), signed.signature, signed.chain)
    line = read_line(write_line(batch_line(stored, [100 + each for each in shown])).removesuffix(b"\n"))
    assert isinstance(line, BatchLine)
    verify_signature(line)
    for wrong in (None, data.draw(st.sampled_from(shown), label="changed")):
        emitters = Emitters(emit.verify_chain)
        emitters.certificate(certificate_line(stored))
        emitters.begin(line)
        for each in shown:
            event = b"another" if each == wrong else events[each]
            emitters.take(100 + each, "vault", 8 + each, leaf_hash(event), "2026-11-27T00:00:00.000000Z")
        if wrong is None:
            emitters.end()
        else:
            with pytest.raises(Finding):
                emitters.end()
