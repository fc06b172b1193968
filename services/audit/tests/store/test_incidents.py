"""Incidents on a real PostgreSQL: from events in the log to what sinks are told, whoever dies or looks twice in between."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import json
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from authpipe_audit.domain.detecting.watching import Watching, detectors
from authpipe_audit.domain.evidence import Evidences
from authpipe_audit.domain.incidents import Incidents, IncidentState, Place
from authpipe_audit.domain.trails import Trail
from authpipe_audit.errors import IncidentStateError, NoSuchIncidentError
from authpipe_audit.store import CheckpointTable, IncidentTable, Log, TreeTable, WatchedLog
from authpipe_database import Database
from authpipe_sensitive import DomainError
from authpipe_transparency import (
    Checkpoint,
    Note,
    Record,
    commitment,
    encode_event,
    fold,
    leaf_hash,
    time_text,
    verify_inclusion,
)

NOW_NS = time.time_ns()
HOUR_NS = 3600 * 10**9
Rows = Callable[[str], list[tuple[object, ...]]]


class DeadError(Exception):
    """It died."""


class Stage:
    """A log that is watched."""

    def __init__(self, log: Log, database: Database, watch_database: Database, emit: Any) -> None:
        self._emit, self._next = emit, dict.fromkeys(Trail, 1)
        self.log, self.clock = log, NOW_NS
        self.table = IncidentTable(database, log)
        self.incidents = Incidents(self.table, partial(emit.signed, "audit"), lambda: self.clock, os.urandom)
        self.watching = self.another(watch_database)
        self.checkpoints, self.tree = CheckpointTable(database), TreeTable(database)

    def another(self, watch_database: Database) -> Watching:
        """Gives what watches in another replica."""
        log, each = WatchedLog(watch_database), detectors(600_000)
        return Watching(log, self.incidents, each, lambda: self.clock / 10**9, remember_seconds=10)

    async def watch(self, watching: Watching | None = None) -> None:
        """Watches until everything was looked at, unless somebody else does."""
        async with (watching or self.watching).begin() as watcher:
            while watcher is not None and await watcher.look():
                pass

    async def happen(self, *names: str, trail: Trail = Trail.CONTROL, **members: str) -> None:
        """Logs events."""
        emitter = "oauth/coordinator" if trail is Trail.CONTROL else "keyservice/user-credentials"
        usual = {
            "actor": "api_key:key_1", "outcome": "SUCCEEDED", "time": time_text(self.clock), "workspace": "ws_1",
            "target": "conn_1", "purpose": "serve",
        }  # fmt: skip
        events = [encode_event(usual | members | {"name": name, "id": os.urandom(16).hex()}) for name in names]
        await self.log.append(trail, [self._emit.batch(self._next[trail], *events, emitter=emitter)])
        self._next[trail] += len(events)

    async def use_a_decoy(self) -> None:
        """Somebody touches what nobody should."""
        await self.happen("DECOY_PLACED")
        self.clock += 1000
        await self.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS, source="203.0.113.9")

    async def the_only(self) -> Any:
        """Gives the only incident."""
        (found,) = await self.table.list_incidents(None, open_only=False, before=None, limit=10)
        return await self.table.find(found.id, None)

    @staticmethod
    def remembered(rows: Rows, subject: str = "conn_1") -> dict[str, dict[str, int]]:
        """Gives what is written down of a subject, by detector."""
        (states,) = [states for name, states in rows("select subject, states from profiles") if name == subject]
        return dict(json.loads(str(states)))

    async def told(self, sink: str = "ops", hours: float = 0) -> list[str]:
        """Tells a sink what it has not been told, so many hours later."""
        now = dt.datetime.fromtimestamp(self.clock / 10**9, dt.UTC) + dt.timedelta(hours=hours)
        pending = await self.table.pending(sink, now, 50)
        for each in pending:
            assert await self.table.note_delivered(sink, each.incident.id, each.kind, each.number)
        return [each.kind for each in pending]


@pytest.fixture
def stage(log: Log, database: Database, watch_database: Database, emit: Any) -> Stage:
    """A log that is watched."""
    return Stage(log, database, watch_database, emit)


@pytest.mark.promise("P26")
async def test_what_is_found_becomes_an_incident_with_an_event_in_the_workspaces_own_chain(
    stage: Stage, rows: Rows
) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    found = await stage.the_only()
    assert (found.detector, found.severity.name, found.workspace, found.subject) == (
        "HONEYTOKEN_USED", "CRITICAL", "ws_1", "conn_1",
    )  # fmt: skip
    assert found.notify_by - found.opened_at == dt.timedelta(hours=24)
    ((record,),) = rows("select record from bodies where name = 'INCIDENT_OPENED'")
    event = Record(bytes(record))  # type: ignore[call-overload]
    assert (event["target"], event["workspace"], event["reason"]) == (found.id, "ws_1", "HONEYTOKEN_USED")
    assert event.emitter == "audit"


async def test_a_second_finding_is_evidence_of_the_first_incident_and_after_it_is_closed_of_another(
    stage: Stage, rows: Rows
) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    first = await stage.the_only()
    stage.clock += HOUR_NS
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS)
    await stage.watch()
    assert Place(Trail.USER_CREDENTIALS, 1) in (await stage.the_only()).evidence
    await stage.incidents.change(first.id, IncidentState.CLOSED, "operator:first")
    stage.clock += HOUR_NS
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS)
    await stage.watch()
    assert rows("select count(*) from incidents") == [(2,)]
    assert rows("select count(*) from bodies where name = 'INCIDENT_OPENED'") == [(2,)]


@pytest.mark.promise("P26")
async def test_whoever_dies_after_raising_and_before_remembering_raises_nothing_twice(
    stage: Stage, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_all = stage.incidents.raise_all

    async def raise_and_die(findings: Any) -> None:
        await raise_all(findings)
        raise DeadError

    await stage.use_a_decoy()
    with monkeypatch.context() as patch:
        patch.setattr(stage.incidents, "raise_all", raise_and_die)
        for _ in range(2):
            with pytest.raises(DeadError):
                await stage.watch()
    assert rows("select max(next_leaf) from watched where trail = 1") == [(0,)]
    await stage.incidents.change((await stage.the_only()).id, IncidentState.CLOSED, "operator:first")
    await stage.watch()
    assert rows("select count(*) from incidents") == [(1,)]
    assert rows("select count(*) from bodies where name = 'INCIDENT_OPENED'") == [(1,)]
    assert rows("select next_leaf from watched where trail = 1") == [(1,)]


async def test_two_who_watch_at_once_find_it_once(stage: Stage, watch_database: Database, rows: Rows) -> None:
    other = stage.another(watch_database)
    await stage.use_a_decoy()
    await asyncio.gather(*(stage.watch(each) for each in (stage.watching, other) * 4))
    assert rows("select count(*) from incidents") == [(1,)]


@pytest.mark.promise("P26")
async def test_whoever_dies_before_it_is_written_down_has_counted_nothing_twice(stage: Stage, rows: Rows) -> None:
    amount = 0
    for part, dies in ((9, True), (8, False), (7, True), (6, True), (5, False)):
        await stage.happen(*["TOKEN_REFRESHED"] * part)
        amount += part
        if not dies:
            await stage.watch()
            continue
        with pytest.raises(DeadError):
            async with stage.watching.begin() as watcher:
                assert watcher is not None
                await watcher.look()
                raise DeadError
    assert stage.remembered(rows)["CONNECTION_REFRESH_STORM"]["count"] == amount
    assert (await stage.the_only()).detector == "CONNECTION_REFRESH_STORM"
    assert rows("select next_leaf from watched where trail = 3") == [(amount,)], (
        "and the incident's own event comes next"
    )


@pytest.mark.promise("P26")
async def test_after_a_month_everybody_is_forgotten_but_a_decoy(stage: Stage, rows: Rows) -> None:
    await stage.happen("DECOY_PLACED")
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS, target="conn_2")
    await stage.watch()
    assert {name for (name,) in rows("select subject from profiles")} == {"conn_1", "conn_2", "api_key:key_1", "ws_1"}
    stage.clock += 31 * 24 * HOUR_NS
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS, target="conn_3", actor="api_key:key_2")
    await stage.watch()
    assert {name for (name,) in rows("select subject from profiles")} == {"conn_1", "conn_3", "api_key:key_2", "ws_1"}
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS)
    await stage.watch()
    assert (await stage.the_only()).detector == "HONEYTOKEN_USED"


@pytest.mark.promise("P26")
async def test_whoever_loses_the_connection_writes_nothing_and_another_goes_on(
    stage: Stage, watch_database: Database, rows: Rows
) -> None:
    await stage.happen(*["TOKEN_REFRESHED"] * 20)
    with pytest.raises(DomainError):
        async with stage.watching.begin() as watcher:
            assert watcher is not None
            await watcher.look()
            other = stage.another(watch_database)
            async with other.begin() as nobody:
                assert nobody is None
            ended = rows("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and granted")
            assert ended == [(True,)]
            await stage.happen(*["TOKEN_REFRESHED"] * 11)
            await stage.watch(other)
            assert (await stage.the_only()).detector == "CONNECTION_REFRESH_STORM"
            await watcher.look()
    assert stage.remembered(rows)["CONNECTION_REFRESH_STORM"]["count"] == 31


async def test_its_state_goes_forward_only_and_each_step_is_an_event(stage: Stage, rows: Rows) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    incident = (await stage.the_only()).id
    for state in (IncidentState.ACKNOWLEDGED, IncidentState.CLOSED):
        await stage.incidents.change(incident, state, "operator:first")
        for earlier in (IncidentState.OPEN, IncidentState.ACKNOWLEDGED, state):
            with pytest.raises(IncidentStateError):
                await stage.incidents.change(incident, earlier, "operator:first")
    with pytest.raises(NoSuchIncidentError):
        await stage.incidents.change("inc_" + "0" * 24, IncidentState.CLOSED, "operator:first")
    records = rows("select record from bodies where name = 'INCIDENT_CHANGED' order by leaf_index")
    events = [Record(bytes(record)) for (record,) in records]  # type: ignore[call-overload]
    assert [(each["reason"], each["actor"]) for each in events] == [
        ("ACKNOWLEDGED", "operator:first"), ("CLOSED", "operator:first"),
    ]  # fmt: skip


@pytest.mark.promise("P27")
async def test_each_sink_is_told_once_and_reminded_until_the_customer_was_told(stage: Stage) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    incident = (await stage.the_only()).id
    assert await stage.told() == ["OPENED"]
    assert await stage.told() == []
    assert await stage.told("mail") == ["OPENED"]
    assert await stage.told(hours=12.1) == ["DUE_IN_12_HOURS"]
    assert await stage.told(hours=23.1) == ["DUE_IN_4_HOURS", "DUE_IN_1_HOUR"]
    await stage.incidents.change(incident, IncidentState.CUSTOMER_NOTIFIED, "operator:first")
    assert await stage.told(hours=25) == ["CHANGED"], "the clock has stopped"
    assert await stage.told("late", hours=25) == ["OPENED", "CHANGED"]


async def test_whoever_does_nothing_hears_that_the_time_is_over(stage: Stage) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    assert await stage.told(hours=24.1) == ["OPENED", "DUE_IN_12_HOURS", "DUE_IN_4_HOURS", "DUE_IN_1_HOUR", "OVERDUE"]


@pytest.mark.promise("P26")
async def test_its_evidence_is_proved_by_the_log(stage: Stage) -> None:
    for _ in range(3):
        await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS)
    await stage.watch()
    await stage.use_a_decoy()
    await stage.watch()
    found = await stage.the_only()
    assert len(found.evidence) == 5, "what was done with the same subject is shown with it"
    evidences = Evidences(stage.table, stage.checkpoints, stage.tree)
    assert [each.proof for each in await evidences.of(found)] == [""] * 5, "nothing is signed yet"
    frontier = await stage.log.frontier(Trail.USER_CREDENTIALS)
    checkpoint = Checkpoint("example.com/log/user-credentials", frontier.size, fold(frontier.roots))
    note = f"{checkpoint.text}\n— example.com/log/user-credentials {base64.b64encode(bytes(68)).decode()}\n"
    await stage.checkpoints.put_checkpoint(Trail.USER_CREDENTIALS, frontier.size, note)
    of_trail = [each for each in await evidences.of(found) if each.place.trail is Trail.USER_CREDENTIALS]
    assert len(of_trail) == 4
    for each in of_trail:
        head, _, proved = each.proof.partition("\n\n")
        version, index, *path = head.split("\n")
        assert (version, index) == ("c2sp.org/tlog-proof@v1", f"index {each.place.leaf_index}")
        root = Checkpoint.parse(Note.parse(proved).text)
        hashes = [base64.b64decode(line) for line in path]
        entry = leaf_hash(commitment(each.salt, each.record))
        verify_inclusion(each.place.leaf_index, root.size, entry, hashes, root.root)


@pytest.mark.promise("P26")
async def test_an_emitter_whose_clock_is_ahead_does_not_blind_the_detectors(stage: Stage, rows: Rows) -> None:
    ahead = time_text(stage.clock + 90 * 24 * HOUR_NS)
    await stage.happen("RECORD_KEY_RELEASED", trail=Trail.USER_CREDENTIALS, time=ahead)
    await stage.watch()
    assert rows("select count(*) from profiles where seen_at > now() + interval '1 minute'") == [(0,)]
    stage.clock += 1000
    await stage.use_a_decoy()
    await stage.watch()
    assert (await stage.the_only()).detector == "HONEYTOKEN_USED"


async def test_a_workspace_sees_its_own_incidents_only(stage: Stage) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    incident = (await stage.the_only()).id
    assert await stage.table.find(incident, "ws_2") is None
    assert await stage.table.list_incidents("ws_2", open_only=False, before=None, limit=10) == []
    assert len(await stage.table.list_incidents("ws_1", open_only=True, before=None, limit=10)) == 1


async def test_the_role_that_watches_changes_nothing_of_the_log_and_the_one_that_appends_no_incident(
    stage: Stage, database: Database, watch_database: Database
) -> None:
    await stage.use_a_decoy()
    await stage.watch()
    for who, statements in (
        (watch_database, ["update bodies set name = name", "delete from bodies", "select * from leaves",
                          "delete from incidents", "insert into incidents select * from incidents"]),
        (database, ["update incidents set severity = 1", "delete from incidents", "delete from incident_changes",
                    "delete from incident_evidence", "update profiles set states = '{}'", "update watched set next_leaf = 9"]),
    ):  # fmt: skip
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                async with who.hot() as connection:
                    await connection.execute(statement.encode())
