"""Listing: by any id of an event, which is found by a number that another id may have too."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from authpipe_audit.domain.pages import Wanted
from authpipe_audit.domain.trails import Trail
from authpipe_audit.store import Listing, Log
from authpipe_audit.store.finding import number_of
from authpipe_database import Database
from authpipe_transparency import Record

TRAIL = Trail.USER_CREDENTIALS


async def found(database: Database, workspace: str = "ws_1", **by: str) -> list[str]:
    """Gives the requests of the events that are found, newest first."""
    fields: dict[str, Any] = dict.fromkeys(("name", "outcome", "actor", "target", "some_id"), "") | by
    wanted = Wanted(
        workspace=workspace, sizes={TRAIL: 100}, trail=None, since=None, until=None, after=None, **fields
    )  # fmt: skip
    return [Record(each.record)["request"] for each in await Listing(database).list_events(wanted, 10)]


@pytest.mark.promise("P31")
async def test_an_event_is_found_by_each_of_its_ids_in_its_own_workspace_alone(
    emit: Any, log: Log, database: Database
) -> None:
    mine, other = emit.event("req_1"), emit.event("req_1", "ws_2")
    await log.append(TRAIL, [emit.batch(1, mine, other, emit.event("req_2"))])
    (batch,) = [emit.batch(1, mine)]
    assert len(batch.events[0].ids) == 3
    assert [await found(database, some_id=each) for each in batch.events[0].ids] == [
        ["req_2", "req_1"],
        ["req_1"],
        ["req_1"],
    ]
    assert await found(database, "ws_2", some_id="req_1") == ["req_1"]
    assert await found(database, "ws_2", some_id="req_2") == []
    assert await found(database, some_id="req") == [], "a part of an id is none"
    assert await found(database, some_id='req_1","x":"') == []


@pytest.mark.promise("P31")
async def test_an_id_that_has_the_number_of_another_one_does_not_find_its_events(
    emit: Any, log: Log, database: Database, superuser: psycopg.Connection[tuple[object, ...]]
) -> None:
    await log.append(TRAIL, [emit.batch(1, emit.event("req_1"))])
    superuser.execute("update bodies set found_by = %s", ([number_of("ws_1", each) for each in ("req_9", "req_1")],))
    assert await found(database, some_id="req_9") == []
    assert await found(database, target="req_9") == []
    assert await found(database, some_id="req_1") == ["req_1"]
