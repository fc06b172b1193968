"""Erasing a person: every connection goes, nobody else's, and nothing leads from the person to the log any more."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

ANN, BEN = "ann@example.com", "ben@example.com"
Superuser = Callable[[str, str], Any]


@pytest.fixture
def both(new_customer: Callable[..., Customer], stack: Stack) -> tuple[Customer, str, list[str], str]:
    """A customer, his provider configuration, Ann's two connections and Ben's one."""
    customer = new_customer()
    config = str(customer.configure(stack.layout.playground_issuer)["id"])
    anns = [customer.connect(config, ANN), str(customer.import_api_key("sk_live_of-ann-0123456789", ANN)["id"])]
    return customer, config, anns, customer.connect(config, BEN)


def actors(customer: Customer) -> set[str]:
    """Gives the end users in the log."""
    events = customer.get("/audit/events", page_size=200).json()["events"]
    return {event["actor"] for event in events if event["actor"].startswith("end_user:")}


def rows_with(superuser: Superuser, text: str) -> list[str]:
    """Finds a text in any table of coordinator's."""
    found = []
    with superuser("core", "coordinator") as core:
        tables = core.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        for (table,) in tables:
            query = f"select count(*) from {table} t where t::text like %s"
            if core.execute(query, (f"%{text}%",)).fetchone()[0]:
                found.append(table)
    return found


@pytest.mark.promise("P29")
def test_everything_of_a_person_is_erased_for_good_and_nothing_of_anybody_else(
    both: tuple[Customer, str, list[str], str], superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    customer, config, anns, bens = both
    assert wait_for(lambda: len(actors(customer)) == 2, 20), "each person is one pseudonym"
    before = actors(customer)
    answer = customer.delete(f"/end-users/{ANN}")
    assert (answer.status_code, answer.json()) == (200, {"disconnected_count": 2})
    for connection in anns:
        assert customer.token(connection).status_code in {404, 409, 410}
    assert customer.token(bens).status_code == 200
    assert [each["id"] for each in customer.get("/connections", end_user_id=ANN).json()["connections"]] == []
    assert [each["id"] for each in customer.get("/connections", end_user_id=BEN).json()["connections"]] == [bens]
    # Nothing of the person's id is left, and what the log has of the person nobody computes any more.
    assert wait_for(lambda: rows_with(superuser, ANN) == [], 20), rows_with(superuser, ANN)
    (erased,) = wait_for(lambda: customer.get("/audit/events", event="END_USER_ERASED").json()["events"], 20)
    assert f"end_user:{erased['target']}" in before
    assert hashlib.sha256(ANN.encode()).hexdigest()[:24] != erased["target"]
    # Who comes back under the same id is another pseudonym.
    customer.connect(config, ANN)
    assert wait_for(lambda: len(actors(customer)) == 3, 20)
    assert actors(customer) > before


@pytest.mark.promise("P29")
def test_erasing_again_or_whom_nobody_knows_erases_nothing(
    both: tuple[Customer, str, list[str], str], stranger: Customer
) -> None:
    customer, _, _, bens = both
    assert customer.delete(f"/end-users/{ANN}").json() == {"disconnected_count": 2}
    assert customer.delete(f"/end-users/{ANN}").json() == {"disconnected_count": 0}
    assert stranger.delete(f"/end-users/{BEN}").json() == {"disconnected_count": 0}
    assert customer.delete(f"/end-users/{'x' * 201}").status_code == 400
    assert customer.token(bens).status_code == 200


@pytest.mark.promise("P29")
@pytest.mark.promise("P31")
def test_the_log_verifies_as_before(both: tuple[Customer, str, list[str], str], wait_for: Callable[..., Any]) -> None:
    customer, *_ = both
    time.sleep(2)
    before = customer.get("/audit/export", trail="control").text.splitlines()
    assert customer.delete(f"/end-users/{ANN}").status_code == 200
    assert wait_for(lambda: customer.get("/audit/events", event="END_USER_ERASED").json()["events"], 20)
    after = customer.get("/audit/export", trail="control").text.splitlines()
    # Not a leaf of the past is another one.
    leaves = [line for line in before if line.startswith('{"leaf"') and '"head"' not in line]
    assert leaves
    assert set(leaves) <= set(after)
