"""What a consumer has is opened again for a grant that names it, while that very record is stored, and with its event; or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from authpipe_database import AuditBacklogError, Database, Outbox
from authpipe_grants import Grant, GrantError, thumbprint
from authpipe_recordstore import store as store_room
from authpipe_recordstore.domain import reusing as reusing_room
from authpipe_recordstore.domain.reusing import Again, Reusing
from authpipe_recordstore.domain.words import Record, Ref
from authpipe_recordstore.domain.writing import Write
from authpipe_recordstore.store import Store
from authpipe_sensitive import AuditEntry

PUBLIC_KEY = bytes(32)
WORKER = "oauth/worker"
ENTRY = AuditEntry(name="RECORDS_WRITTEN", outcome="SUCCEEDED", actor="service:test", request_id="r")
DATA = b"sealed, as its consumer has it"
ACCESS = 1


class Shelf(NamedTuple):
    """A record in the real tables, and a consumer that has it."""

    database: Database
    outbox: Outbox
    store: Store
    again: Again
    grant: Grant

    def rules(self, grant: Grant | None = None, by: type[Reusing] = Reusing) -> Reusing:
        """Gives the rules, as they are if a token verifies to that grant."""

        def verify(token: str) -> Grant:
            if not token:
                raise GrantError
            return grant or self.grant

        return by(self.store, verify, "user-credentials/eu")

    async def reuse(self, **changes: Any) -> bool:
        """Asks to open the record again, with some of it changed."""
        (allowed,) = await self.rules().reuse(WORKER, PUBLIC_KEY, [self.again._replace(**changes)])
        return allowed

    async def uses(self) -> int:
        """Counts the events of uses that wait in the outbox."""
        async with self.database.transaction() as connection:
            rows = (await connection.execute(sa.text("select events from audit_outbox"))).all()
        return sum(b"RECORD_KEY_REUSED" in bytes(event) for row in rows for event in row[0])


@pytest.fixture
async def shelf(database: Database) -> Shelf:
    """A record that is stored, and the grant that allows its consumer to use it."""
    ref = Ref("ws", f"con_{secrets.token_hex(8)}", ACCESS)
    outbox = Outbox()
    store = Store(database, outbox)
    await store.put([Write([Record(ref, 1, DATA, "acme", bytes(32), "abcd…", None, 0)], [], [ENTRY])])
    grant = Grant(
        issuer="gateway/authority",
        audience=("user-credentials/eu",),
        consumer=WORKER,
        consumer_thumbprint=thumbprint(PUBLIC_KEY),
        purpose="proxy",
        workspace="ws",
        connections=(ref.connection,),
        classes=(ACCESS,),
        fence=0,
        forced=False,
        actor="api_key:k",
        request_id="r",
        grant_id="g",
        issued_at=0,
        expires_at=60,
    )
    return Shelf(database, outbox, store, Again(ref, 1, hashlib.sha256(DATA).digest(), "token", "r"), grant)


@pytest.mark.promise("P31")
async def test_each_use_of_a_kept_key_has_an_event_of_its_own_also_in_a_batch(shelf: Shelf) -> None:
    before = await shelf.uses()
    assert await shelf.reuse()
    assert await shelf.uses() == before + 1
    assert await shelf.rules().reuse(WORKER, PUBLIC_KEY, [shelf.again] * 3) == [True] * 3
    assert await shelf.uses() == before + 4


@pytest.mark.promise("P31")
async def test_the_event_says_who_used_what_for_what_under_which_grant(shelf: Shelf) -> None:
    assert await shelf.reuse(request_id="req_7")
    async with shelf.database.transaction() as connection:
        row = (await connection.execute(sa.text("select events from audit_outbox order by id desc limit 1"))).one()
    said = bytes(row[0][0]).decode()
    for each in ("api_key:k", "proxy", shelf.again.ref.connection, '"ws"', "req_7", '"g"', "RECORD_KEY_REUSED"):
        assert each in said


@pytest.mark.promise("P31")
async def test_with_no_room_for_events_nothing_is_opened_again(shelf: Shelf) -> None:
    shelf.outbox.is_full = True
    before = await shelf.uses()
    with pytest.raises(AuditBacklogError):
        await shelf.reuse()
    assert await shelf.uses() == before


CHANGES: dict[str, Callable[[Shelf], Any]] = {
    "written again": lambda shelf: shelf.store.put(
        [Write([Record(shelf.again.ref, 2, b"newer", "acme", bytes(32), "", None, 0)], [], [ENTRY])]
    ),
    "withheld": lambda shelf: shelf.store.withhold("ws", shelf.again.ref.connection, ENTRY),
    "kept for reconnection": lambda shelf: shelf.store.keep("ws", shelf.again.ref.connection, ENTRY),
    "deleted": lambda shelf: shelf.store.delete("ws", shelf.again.ref.connection, ENTRY),
}


@pytest.mark.promise("P11")
@pytest.mark.promise("P12")
@pytest.mark.parametrize("change", CHANGES)
async def test_what_changed_meanwhile_is_not_opened_again_and_leaves_no_use(change: str, shelf: Shelf) -> None:
    assert await shelf.reuse()
    before = await shelf.uses()
    await CHANGES[change](shelf)
    assert not await shelf.reuse()
    assert await shelf.uses() == before


@pytest.mark.promise("P01")
@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": 0},
        {"digest": hashlib.sha256(b"other").digest()},
        {"digest": b""},
        {"token": ""},
    ],
)
async def test_what_is_not_that_very_record_is_not_opened_again(changes: dict[str, Any], shelf: Shelf) -> None:
    before = await shelf.uses()
    assert not await shelf.reuse(**changes)
    assert await shelf.uses() == before


@pytest.mark.promise("P01")
async def test_a_flipped_byte_in_the_stored_record_is_not_passed_over(shelf: Shelf) -> None:
    async with shelf.database.transaction() as connection:
        await connection.execute(
            sa.text(
                "update records set record = set_byte(record, 3, get_byte(record, 3) # 1) where connection_id = :c"
            ),
            {"c": shelf.again.ref.connection},
        )
    assert not await shelf.reuse()


async def test_in_a_batch_one_that_is_refused_does_not_touch_the_others(shelf: Shelf) -> None:
    before = await shelf.uses()
    stale, forged = shelf.again._replace(version=2), shelf.again._replace(token="")
    asked = [shelf.again, stale, forged, shelf.again]
    assert await shelf.rules().reuse(WORKER, PUBLIC_KEY, asked) == [True, False, False, True]
    assert await shelf.uses() == before + 2


GRANTS: dict[str, dict[str, Any]] = {
    "for another purpose": {"purpose": "health_check"},
    "to serve": {"purpose": "serve"},
    "of another workspace": {"workspace": "ws_b"},
    "for another connection": {"connections": ("con_b",)},
    "for no connection": {"connections": ()},
    "for another class": {"classes": (2,)},
    "of another consumer": {"consumer": "gateway/edge"},
    "of another consumer's key": {"consumer_thumbprint": "other"},
    "for another region": {"audience": ("user-credentials/us",)},
    "for another key domain": {"audience": ("client-secrets/eu",)},
    "signed by coordinator": {"issuer": "oauth/coordinator"},
    "signed by its consumer": {"issuer": WORKER},
}


@pytest.mark.promise("P09")
@pytest.mark.case(9)
@pytest.mark.parametrize("name", GRANTS)
async def test_a_grant_that_is_not_for_this_allows_nothing(name: str, shelf: Shelf) -> None:
    before = await shelf.uses()
    rules = shelf.rules(dataclasses.replace(shelf.grant, **GRANTS[name]))
    assert await rules.reuse(WORKER, PUBLIC_KEY, [shelf.again]) == [False]
    assert await shelf.uses() == before


@pytest.mark.promise("P09")
async def test_a_grant_of_another_process_is_of_no_use_to_this_one(shelf: Shelf) -> None:
    assert await shelf.rules().reuse("gateway/edge", PUBLIC_KEY, [shelf.again]) == [False]
    assert await shelf.rules().reuse(WORKER, bytes([1] * 32), [shelf.again]) == [False]


# What is switched off, and what then gets through that did not.
MUTANTS = {
    "grant.consumer == caller": "of another consumer",
    "grant.consumer_thumbprint == consumer": "of another consumer's key",
    "self._audience in grant.audience": "for another region",
    "grant.issuer == _SIGNER": "signed by coordinator",
    "grant.purpose == _PURPOSE": "for another purpose",
    "grant.workspace == again.ref.workspace": "of another workspace",
    "again.ref.connection in grant.connections": "for another connection",
    "again.ref.record_class in grant.classes": "for another class",
}


@pytest.mark.promise("P09")
@pytest.mark.parametrize("check", MUTANTS)
async def test_without_a_check_its_attack_gets_through(check: str, shelf: Shelf) -> None:
    source = inspect.getsource(reusing_room)
    assert source.count(check) == 1, check
    mutant: dict[str, Any] = {"__name__": reusing_room.__name__}
    exec(source.replace(check, "True"), mutant)  # our own source, changed
    rules = shelf.rules(dataclasses.replace(shelf.grant, **GRANTS[MUTANTS[check]]), mutant["Reusing"])
    assert await rules.reuse(WORKER, PUBLIC_KEY, [shelf.again]) == [True]


@pytest.mark.promise("P11")
@pytest.mark.parametrize(
    ("check", "attack"),
    [
        ("coalesce(c.state, 'active') = 'active'", "withheld"),
        ("sha256(r.record) = w.digest", "other bytes"),
    ],
)
async def test_without_a_condition_of_the_statement_its_attack_gets_through(
    check: str, attack: str, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement = store_room._USE  # noqa: SLF001  # the statement under test
    assert statement.count(check) == 1
    monkeypatch.setattr(store_room, "_USE", statement.replace(check, "true"))
    if attack in CHANGES:
        await CHANGES[attack](shelf)
        assert await shelf.reuse()
    else:
        assert await shelf.reuse(digest=bytes(32))
