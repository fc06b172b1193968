"""The log as it is listed: page by page of the trees as they were, by what is asked for, by every id."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

if TYPE_CHECKING:
    from conftest import Auditor


@pytest.mark.promise("P33")
def test_a_listing_does_not_move_while_events_come(auditor: Auditor) -> None:
    customer = auditor.customer
    page = customer.get("/audit/events", page_size=4).json()
    seen = [event["event_id"] for event in page["events"]]
    sizes = page["tree_sizes"]
    while page["next_page_token"]:
        customer.import_api_key("sk_live_meanwhile-0123456789")
        page = customer.get("/audit/events", page_size=4, page_token=page["next_page_token"]).json()
        assert page["tree_sizes"] == sizes
        seen += [event["event_id"] for event in page["events"]]
    assert len(seen) == len(set(seen))
    again = customer.get("/audit/events", page_size=200).json()["events"]
    older = [event["event_id"] for event in again if event["event_id"] in set(seen)]
    assert older == seen


def listed(customer: Customer, page_size: int, **wanted: str) -> list[dict[str, Any]]:
    """Gives all events of a listing, page by page."""
    events, token = [], ""
    while True:
        page = customer.get("/audit/events", page_size=page_size, page_token=token, **wanted).raise_for_status().json()
        assert len(page["events"]) <= page_size
        events += page["events"]
        if not (token := page["next_page_token"]):
            return events


def fits(event: dict[str, Any], wanted: dict[str, str]) -> bool:
    """Says whether an event is one that is asked for."""
    at = datetime.fromisoformat(event["time"])
    times = {"since": lambda time: at >= time, "until": lambda time: at < time}
    return all(
        times[name](datetime.fromisoformat(value)) if name in times else event[name] == value
        for name, value in wanted.items()
    )


@pytest.mark.promise("P33")
@pytest.mark.parametrize(
    "names",
    [
        ("event",), ("actor",), ("target",), ("outcome",), ("trail",), ("since",), ("until",), ("since", "until"),
        ("actor", "outcome"), ("event", "trail", "since"), ("target", "until"),
        ("event", "actor", "target", "outcome", "trail", "since"),
    ],
    ids=" and ".join,
)  # fmt: skip
def test_a_listing_shows_what_is_asked_for_page_by_page_and_nothing_else(
    auditor: Auditor, names: tuple[str, ...], wait_for: Callable[..., Any]
) -> None:
    customer = auditor.customer
    assert customer.token("con_eeeeeeeeeeeeeeeeeeeeeeee").status_code == 404
    assert wait_for(lambda: any(event["outcome"] != "succeeded" for event in listed(customer, 200)))
    whole = listed(customer, 200)
    # Of what is there seldom, and of what is there often.
    for event in (whole[0], whole[len(whole) // 2], next(each for each in whole if each["outcome"] != "succeeded")):
        wanted = {name: event["time"] if name in {"since", "until"} else event[name] for name in names}
        if "until" in names and "since" in names:
            wanted["since"] = whole[-1]["time"]
        wanted = {name: value for name, value in wanted.items() if value}
        found = listed(customer, 3, **wanted)
        assert all(fits(each, wanted) for each in found)
        # What was logged meanwhile is there too.
        ids = {each["event_id"] for each in whole}
        expected = [each["event_id"] for each in whole if fits(each, wanted)]
        assert [each["event_id"] for each in found if each["event_id"] in ids] == expected


@pytest.mark.promise("P33")
def test_events_are_found_by_whatever_id_is_in_them(auditor: Auditor) -> None:
    customer = auditor.customer
    (use, *_) = customer.get("/audit/events", event="RECORD_KEY_RELEASED").json()["events"]
    for member in ("event_id", "target", "request_id", "grant_id", "actor"):
        found = customer.get("/audit/events", id=use[member], page_size=200).json()["events"]
        assert use["event_id"] in {event["event_id"] for event in found}
        assert all(use[member] in event.values() for event in found)
    for name, value in (("outcome", "succeeded"), ("actor", use["actor"]), ("trail", "user-credentials")):
        found = customer.get("/audit/events", page_size=200, **{name: value}).json()["events"]
        assert found
        assert {event[name] for event in found} == {value}
    assert customer.get("/audit/events", id="con_ffffffffffffffffffffffff").json()["events"] == []


@pytest.mark.promise("P31")
def test_the_events_of_a_refresh_name_each_record_and_its_version(
    auditor: Auditor, stack: Stack, aged: Callable[[str], None], wait_for: Callable[..., Any]
) -> None:
    customer = auditor.customer
    connection = customer.connect(str(customer.configure(stack.layout.playground_issuer)["id"]))
    aged(connection)
    customer.post(f"/connections/{connection}/refresh").raise_for_status()
    (refreshed,) = wait_for(lambda: customer.events(target=connection, event="TOKEN_REFRESHED"))

    def told(name: str) -> list[set[tuple[str, int]]]:
        events = customer.events(id=refreshed["request_id"], event=name)
        assert {event["target"] for event in events} <= {connection}
        return [
            {(each["record_class"], each["record_version"]) for each in event["records"] or [event]} for event in events
        ]

    (released,) = wait_for(lambda: told("WRITE_KEY_RELEASED"))
    assert {name for name, _ in released} == {"access", "refresh", "answer"}
    written = wait_for(lambda: len(found := told("RECORDS_WRITTEN")) == 3 and found)
    assert set.union(*written) == released, "what was written is what keys were released for"
    acknowledged = wait_for(lambda: len(found := told("VERSION_ACKNOWLEDGED")) == 2 and found)
    assert {frozenset(name for name, _ in each) for each in acknowledged} == {
        frozenset({"answer"}),
        frozenset({"access", "refresh"}),
    }
    assert set.union(*acknowledged) == released
