"""A part away before the call: the Provider sees no call; a token that lives is served or nothing is, never half (case 24)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from authpipe_devstack.layout import PROCESSES
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer


@contextmanager
def away(stack: Stack, name: str, wait_for: Callable[..., Any]) -> Iterator[None]:
    """Kills a process, or stops a cluster, and brings it back."""
    if name.startswith("postgres-"):
        cluster = stack.clusters[name.removeprefix("postgres-")]
        cluster.stop()
        try:
            yield
        finally:
            cluster.start()
            assert wait_for(lambda: all(p["healthy"] for p in stack.status()["processes"]))
            time.sleep(1)
        return
    stack.send(name, signal.SIGKILL)
    assert wait_for(lambda: not stack.pid(name))
    try:
        yield
    finally:
        stack.start(name)
        time.sleep(1)  # its peers connect again within half a second


@pytest.mark.case(24)
@pytest.mark.promise("P36")
@pytest.mark.parametrize("part", ["vault", "postgres-vault", "keyservice-user-credentials", "audit", "clientsecrets"])
def test_with_a_part_away_the_provider_sees_no_call_and_the_refresh_token_lives(
    part: str, stack: Stack, customer: Customer, config: str, playground: Any, wait_for: Callable[..., Any]
) -> None:
    playground.set_life(2)
    connection = customer.connect(config, f"outage-{part}")
    playground.set_life(3600)
    time.sleep(2.5)
    before, reuse = (playground.counts().get(name, 0) for name in ("refresh_token", "reuse"))
    with away(stack, part, wait_for):
        answer = customer.token(connection)
        assert answer.status_code == 503, answer.text
        assert playground.counts().get("refresh_token", 0) == before
    served = wait_for(lambda: customer.token(connection).status_code == 200)
    assert served
    assert playground.counts()["refresh_token"] == before + 1
    assert playground.counts().get("reuse", 0) == reuse


@pytest.mark.promise("P36")
def test_a_living_token_is_served_though_its_refresh_fails(
    stack: Stack, customer: Customer, config: str, wait_for: Callable[..., Any]
) -> None:
    connection = customer.connect(config, "living")
    token = customer.token(connection).json()["access_token"]
    with away(stack, "worker", wait_for):
        # An hour is left, more is asked for, the worker is away: the living token is the best there is.
        assert customer.token(connection, min_ttl=7200).json()["access_token"] == token


def test_no_audit_no_key(stack: Stack, customer: Customer, wait_for: Callable[..., Any]) -> None:
    connection = customer.import_api_key("sk_live_no-audit-no-key-0123456789")["id"]
    with away(stack, "postgres-core", wait_for):
        assert customer.token(connection).status_code == 503
    assert wait_for(lambda: customer.token(connection).status_code == 200)


def test_events_wait_for_an_audit_that_is_away_and_arrive_in_order(
    stack: Stack, customer: Customer, wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key("sk_live_events-wait-0123456789")["id"]
    with away(stack, "audit", wait_for):
        requests = [customer.token(connection).headers["x-request-id"] for _ in range(5)]

    def five() -> list[dict[str, Any]]:
        answer = customer.get("/audit/events", target=connection, event="RECORD_KEY_RELEASED")
        events = answer.json()["events"] if answer.status_code == 200 else []
        return list(events) if len(events) == 5 else []

    released = wait_for(five)
    assert [event["request_id"] for event in reversed(released)] == requests


def test_a_killed_process_is_reported_and_up_brings_it_back(stack: Stack, wait_for: Callable[..., Any]) -> None:
    stack.send("clientsecrets", signal.SIGKILL)
    assert wait_for(lambda: not stack.pid("clientsecrets"))

    def unhealthy() -> list[str]:
        return [process["name"] for process in stack.status()["processes"] if not process["healthy"]]

    # What others said a moment ago of a database that was away, or on a busy machine, is over soon; this is not.
    assert wait_for(lambda: unhealthy() == ["clientsecrets"])
    kept = stack.pid("vault")
    stack.up()
    assert wait_for(lambda: not unhealthy())
    assert stack.pid("vault") == kept


def test_readiness_says_when_a_part_is_away(stack: Stack, customer: Customer, wait_for: Callable[..., Any]) -> None:
    assert wait_for(lambda: customer.http.get("/readyz").status_code == 200)
    with away(stack, "authority", wait_for):
        assert customer.http.get("/readyz").status_code == 503
        assert customer.http.get("/healthz").status_code == 200
    assert wait_for(lambda: customer.http.get("/readyz").status_code == 200)


@pytest.mark.parametrize("cluster", ["vault", "clientsecrets", "core"])
def test_a_process_whose_database_is_away_says_so_and_recovers_by_itself(
    cluster: str, stack: Stack, wait_for: Callable[..., Any]
) -> None:
    concerned = {each.name for each in PROCESSES if each.cluster == cluster and each.database}
    assert concerned

    def unhealthy() -> set[str]:
        return {process["name"] for process in stack.status()["processes"] if not process["healthy"]}

    pids = {name: stack.pid(name) for name in concerned}
    with away(stack, f"postgres-{cluster}", wait_for):
        assert wait_for(lambda: unhealthy() == concerned), unhealthy()
    assert wait_for(lambda: not unhealthy())
    assert {name: stack.pid(name) for name in concerned} == pids, "nobody had to be started again"


def test_a_token_that_is_gone_costs_new_keys_alone_and_nothing_is_lost(
    stack: Stack, customer: Customer, new_customer: Callable[..., Customer], wait_for: Callable[..., Any]
) -> None:
    kept = customer.import_api_key("sk_live_before-the-token-went-0123456789")["id"]
    assert customer.token(kept).status_code == 200
    fresh = new_customer()
    folder = stack.layout.home / "hsm" / "user-credentials" / "tokens"
    hidden = folder.with_name("tokens-away")

    def healthy() -> bool:
        found = {process["name"]: process["healthy"] for process in stack.status()["processes"]}
        return bool(found["keyservice-user-credentials"])

    folder.rename(hidden)
    try:
        assert wait_for(lambda: not healthy())
        body = {
            "kind": "api_key",
            "end_user_id": "x",
            "provider": "p",
            "api_key": "sk_live_while-it-is-gone-0123456789",
        }
        answer = fresh.post("/connections", body)
        assert (answer.status_code, answer.json()["reason"]) == (503, "HSM_UNAVAILABLE"), answer.text
        # Keys that were unwrapped before are kept for five minutes.
        assert customer.token(kept).status_code == 200
    finally:
        hidden.rename(folder)
    assert wait_for(healthy)
    assert wait_for(lambda: fresh.post("/connections", body).status_code == 201)
    assert customer.token(kept).status_code == 200
