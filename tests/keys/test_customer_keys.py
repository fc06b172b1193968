"""A customer's own key through the whole system: bound, switched, withdrawn, away, given back; and all others untouched."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

DOMAIN = ("--domain", "user-credentials")
SECRET = "sk_live_under-a-customers-key-0123456789"
Admin = Callable[..., Any]


def bind(admin: Admin, tenant: Customer, vendor: Any) -> str:
    """Binds a customer's key, as the operator types it."""
    locator = [f"{name}={value}" for name, value in vendor.locator.items()]
    done = admin("bind", *DOMAIN, tenant.workspace, vendor.name, *locator)
    assert done.returncode == 0, done.stdout
    return str(done.stdout)


@contextmanager
def reading(tenants: dict[Customer, str]) -> Iterator[Counter[str]]:
    """Reads credentials of some customers all the time, and counts what was answered."""
    answers: Counter[str] = Counter()
    going = threading.Event()

    def read(tenant: Customer, connection: str) -> None:
        while not going.is_set():
            answer = tenant.token(connection)
            good = answer.status_code == 200 and answer.json()["api_key"] == SECRET
            answers["good" if good else f"{answer.status_code} {answer.json().get('reason')}"] += 1

    threads = [threading.Thread(target=read, args=item) for item in tenants.items()]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        going.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def other(keys: Stack) -> Iterator[Customer]:
    """Another customer, without a key of its own."""
    workspace, key = asyncio.run(keys.create_workspace("other"))
    with Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace) as made:
        yield made


@pytest.mark.promise("P18")
@pytest.mark.case(27)
@pytest.mark.timeout(240)
def test_switched_in_use_from_none_to_each_kms_and_back_not_one_request_fails(
    vendors: Any, customer_hsm: Any, tenant: Customer, admin: Admin, database: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    records = "select record_class, floor from floors where connection_id = %s"
    before = database(records, connection)
    with reading({tenant: connection}) as answers:
        for vendor in [*vendors.values(), customer_hsm]:
            said = bind(admin, tenant, vendor)
            assert "Bound as ck_" in said
            shown = admin("workspace", *DOMAIN, tenant.workspace).stdout
            assert f"({vendor.name}) is primary" in shown
            assert "(" + vendor.name + ") is retired" not in shown
        assert admin("unbind", *DOMAIN, tenant.workspace).returncode == 0
        time.sleep(1)
    assert set(answers) == {"good"}, answers
    assert answers["good"] > 50
    assert database("select customer_key_id from deks where workspace_id = %s", tenant.workspace) == [("",)]
    assert database(records, connection) == before, "no credential was sealed anew"


@pytest.mark.promise("P18")
@pytest.mark.case(27)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("act", ["disabled", "denied"])
def test_withdrawn_under_load_refused_with_424_told_and_given_back_and_no_other_workspace_notices(
    act: str, vendors: Any, tenant: Customer, other: Customer, admin: Admin, wait_for: Callable[..., Any]
) -> None:
    vendor = vendors["aws"]
    connection, elsewhere = tenant.import_api_key(SECRET)["id"], other.import_api_key(SECRET)["id"]
    bind(admin, tenant, vendor)
    assert tenant.token(connection).status_code == 200
    with reading({other: elsewhere}) as answers:
        vendor.turn(**{act: True})
        try:
            began = time.monotonic()
            assert wait_for(lambda: tenant.token(connection).status_code != 200, 65)
            assert time.monotonic() - began <= 61, "at most 60 s after the KMS refuses"
            time.sleep(1)  # what one replica was told, the other is told at once
            for _ in range(6):
                answer = tenant.token(connection)
                assert (answer.status_code, answer.json()["reason"]) == (424, "CUSTOMER_KEY_UNAVAILABLE"), answer.text
            body = {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": SECRET}
            assert tenant.post("/connections", body).status_code == 424, "and nothing new is sealed"
            told = wait_for(lambda: events(tenant, "CUSTOMER_KEY_WITHDRAWN"))
            assert len(told) == 1
            assert "its KMS refuses" in admin("workspace", *DOMAIN, tenant.workspace).stdout
        finally:
            vendor.turn(**{act: False})
        assert wait_for(lambda: tenant.token(connection).status_code == 200)
        assert tenant.token(connection).json()["api_key"] == SECRET, "nothing was lost"
        assert wait_for(lambda: events(tenant, "CUSTOMER_KEY_RESTORED"))
    assert set(answers) == {"good"}, answers


def events(tenant: Customer, name: str) -> list[Any]:
    """Gives the events of one name that the customer sees."""
    answer = tenant.get("/audit/events", event=name)
    return list(answer.json()["events"]) if answer.status_code == 200 else []


def lease_at_every_replica(tenant: Customer, connection: str) -> None:
    """Reads until both replicas of keyservice hold what the KMS opened.

    They are asked in turns. One that has to ask the KMS first says so, and the other one answers for it.
    """
    for _ in range(20):
        assert tenant.token(connection).status_code == 200
        time.sleep(0.05)


@pytest.mark.promise("P18")
@pytest.mark.case(27)
@pytest.mark.parametrize("name", ["aws", "google", "azure", "transit", "token"])
def test_forgotten_it_is_refused_at_once(
    name: str, vendors: Any, customer_hsm: Any, tenant: Customer, admin: Admin, wait_for: Callable[..., Any]
) -> None:
    vendor = {**vendors, "token": customer_hsm}[name]
    connection = tenant.import_api_key(SECRET)["id"]
    bind(admin, tenant, vendor)
    lease_at_every_replica(tenant, connection)
    act = "disabled" if "disabled" in vendor.can else "denied"
    vendor.turn(**{act: True})
    try:
        assert tenant.token(connection).status_code == 200, "the lease"
        done = admin("forget", *DOMAIN, tenant.workspace)
        assert "Every replica has forgotten it" in done.stdout, done.stdout
        answers = {(tenant.token(connection).status_code, tenant.token(connection).json()["reason"]) for _ in range(5)}
        assert answers == {(424, "CUSTOMER_KEY_UNAVAILABLE")}
    finally:
        vendor.turn(**{act: False})
    assert wait_for(lambda: tenant.token(connection).status_code == 200)


@pytest.mark.case(27)
@pytest.mark.case(17)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("act", ["hang", "throttle", "error"])
def test_a_kms_that_is_away_costs_its_own_workspace_a_503_and_nobody_else_anything(
    act: str, vendors: Any, tenant: Customer, other: Customer, admin: Admin, wait_for: Callable[..., Any]
) -> None:
    vendor = vendors["aws"]
    connection, elsewhere = tenant.import_api_key(SECRET)["id"], other.import_api_key(SECRET)["id"]
    bind(admin, tenant, vendor)
    lease_at_every_replica(tenant, connection)
    with reading({other: elsewhere}) as answers:
        vendor.turn(**{act: 30.0 if act == "hang" else True})
        try:
            # The lease goes on though the KMS does not answer.
            assert tenant.token(connection).status_code == 200
            assert admin("forget", *DOMAIN, tenant.workspace).returncode == 0
            answer = tenant.token(connection)
            assert answer.status_code == 503, answer.text
            assert answer.json()["reason"] in {"CUSTOMER_KMS_UNAVAILABLE", "CUSTOMER_KEY_PENDING"}
            assert int(answer.headers["retry-after"]) > 0
            assert not events(tenant, "CUSTOMER_KEY_WITHDRAWN"), "an outage is not a withdrawal"
        finally:
            vendor.turn(**{act: 0.0 if act == "hang" else False})
        assert wait_for(lambda: tenant.token(connection).status_code == 200, 40)
    assert set(answers) == {"good"}, answers


@pytest.mark.promise("P18")
def test_a_key_that_is_not_fit_or_not_where_keys_may_be_is_not_bound(
    vendors: Any, tenant: Customer, admin: Admin
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    place = vendors["transit"].locator
    for changes, reason in (
        ({"key_name": "exportable"}, "CUSTOMER_KEY_UNAVAILABLE"),
        ({"key_name": "nothing"}, "CUSTOMER_KEY_UNAVAILABLE"),
        ({"address": "https://127.0.0.1:1"}, "CUSTOMER_KEY_LOCATOR"),
        ({"credential": "another"}, "CUSTOMER_KEY_LOCATOR"),
    ):
        locator = [f"{name}={value}" for name, value in {**place, **changes}.items()]
        done = admin("bind", *DOMAIN, tenant.workspace, "transit", *locator)
        assert done.returncode == 1
        assert reason in done.stdout, done.stdout
    assert "KEY_NOT_FOUND" in admin("unbind", *DOMAIN, tenant.workspace).stdout
    assert tenant.token(connection).status_code == 200
