"""What one request does with several records of a connection is one event, which names each of them."""

from __future__ import annotations

import pytest
from authpipe_database.outbox import encode
from authpipe_keyservice.domain.asking import told_together
from authpipe_sensitive import AuditEntry
from authpipe_transparency.events import decode_event
from hypothesis import given
from hypothesis import strategies as st

ACCESS, REFRESH = 1, 2
RELEASED = AuditEntry(
    name="WRITE_KEY_RELEASED",
    outcome="SUCCEEDED",
    actor="service:oauth/coordinator",
    request_id="req_1",
    workspace_id="ws_1",
    target="con_1",
    purpose="refresh",
    record_class=ACCESS,
    record_version=7,
    grant_id="g1",
)


@pytest.mark.promise("P31")
def test_records_of_one_request_stand_in_one_event_by_class_and_version() -> None:
    (event,) = told_together([RELEASED._replace(record_class=REFRESH, record_version=5), RELEASED])
    members = decode_event(encode([event])[0])
    assert members["records"] == "access:7 refresh:5"
    assert "class" not in members
    assert "version" not in members
    assert (members["request"], members["target"], members["grant"]) == ("req_1", "con_1", "g1")


def test_what_is_alone_is_told_as_ever() -> None:
    assert told_together([RELEASED]) == [RELEASED]


@pytest.mark.promise("P31")
@pytest.mark.parametrize(
    "other",
    [
        {"request_id": "req_2"}, {"workspace_id": "ws_2"}, {"target": "con_2"}, {"grant_id": "g2"}, {"actor": "api_key:k"},
        {"purpose": "exchange"}, {"outcome": "REFUSED"}, {"name": "VERSION_ACKNOWLEDGED"}, {"source": "192.0.2.7"},
    ],
    ids=lambda other: next(iter(other)),
)  # fmt: skip
def test_what_differs_in_anything_else_is_an_event_of_its_own(other: dict[str, str]) -> None:
    another = RELEASED._replace(**other)
    assert told_together([RELEASED, another]) == [RELEASED, another]


@pytest.mark.promise("P31")
@given(st.lists(st.tuples(st.sampled_from(["req_1", "req_2"]), st.integers(1, 4), st.integers(1, 3)), max_size=80))
def test_however_many_there_are_nothing_is_left_out_and_every_event_can_stand_in_the_log(
    asked: list[tuple[str, int, int]],
) -> None:
    entries = [
        RELEASED._replace(request_id=request, record_class=number, record_version=version)
        for request, number, version in asked
    ]
    told = told_together(entries)
    encode(told)
    named = [
        (event.request_id, *record)
        for event in told
        for record in event.records or [(event.record_class, event.record_version)]
    ]
    assert sorted(named) == sorted(asked)
