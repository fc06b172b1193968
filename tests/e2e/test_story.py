"""The whole story, against real Providers, with a real browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.browsing import chromium_flags
from authpipe_testing.customer import Customer
from playwright.sync_api import sync_playwright


@pytest.fixture(scope="module")
def oidc_config(customer: Customer, oidc_provider: Any) -> str:
    """A provider configuration at the certified Provider."""
    made = customer.configure(
        oidc_provider.issuer,
        client_id="authpipe-e2e",
        client_secret=oidc_provider.client_secret,
        scopes=["openid", "offline_access"],
    )
    return str(made["id"])


def connect_with_a_browser(customer: Customer, config: str, chromium: str, end_user: str, shots: Path) -> str:
    """Connects an account as a person does: opens the page, chooses, signs in, agrees."""
    session = {"end_user_id": end_user, "provider_config_ids": [config]}
    url = customer.post("/connect-sessions", session).raise_for_status().json()["url"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=chromium_flags())
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(url)
        shots.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shots / "hosted-page.png")
        page.get_by_role("button").first.click()
        page.get_by_placeholder("Enter any login").fill("ada")
        page.get_by_placeholder("and password").fill("a password")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_url("**/connect/done")
        assert "Connected" in page.content()
        assert "code=" not in page.url
        page.screenshot(path=shots / "connected.png")
        browser.close()
    return str(customer.get("/connections", end_user_id=end_user).json()["connections"][0]["id"])


@pytest.fixture(scope="module")
def connection(customer: Customer, oidc_config: str, chromium: str, stack: Stack) -> str:
    """A connection made by a person in a browser."""
    return connect_with_a_browser(customer, oidc_config, chromium, "person-1", stack.layout.home / "shots")


@pytest.mark.promise("P13")
def test_a_person_connects_in_a_browser_and_the_token_is_served_by_rest_and_grpc(
    connection: str, customer: Customer, stack: Stack
) -> None:
    by_rest = customer.token(connection).raise_for_status()
    assert by_rest.headers["cache-control"] == "no-store"
    assert by_rest.json()["token_type"] == "DPoP", "the Provider binds tokens to keys"
    key = customer.http.headers["authorization"]
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        request = gateway_pb2.GetTokenRequest(connection_id=connection)
        by_grpc = gateway.GetToken(request, metadata=(("authorization", key),), timeout=10)
    assert by_grpc.access_token == by_rest.json()["access_token"]
    assert (by_grpc.kind, by_grpc.token_type) == ("oauth2", "DPoP")


@pytest.mark.promise("P36")
def test_two_hundred_callers_on_an_expired_token_cause_one_refresh(
    connection: str, customer: Customer, oidc_provider: Any, aged: Callable[[str], None]
) -> None:
    aged(connection)
    oidc_provider.set_life(6)
    customer.post(f"/connections/{connection}/refresh").raise_for_status()
    oidc_provider.set_life(3600)
    old = customer.token(connection).json()["access_token"]
    time.sleep(2)
    before = oidc_provider.counts()
    tokens: list[str] = []
    failures: list[str] = []

    def call() -> None:
        answer = customer.token(connection)
        (tokens if answer.status_code == 200 else failures).append(answer.text)

    threads = [threading.Thread(target=call) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(tokens)) == 1
    assert old not in tokens[0]
    after = oidc_provider.counts()
    assert after["refresh_token"] - before.get("refresh_token", 0) == 1
    assert after.get("error", 0) == before.get("error", 0)


@pytest.mark.promise("P11")
@pytest.mark.promise("P31")
def test_disconnect_revokes_at_the_provider_and_nothing_is_served_from_then_on(
    customer: Customer, config: str, playground: Any, wait_for: Callable[..., Any]
) -> None:
    connection = customer.connect(config, "leaver")
    token = customer.token(connection).json()["access_token"]
    assert playground.knows(token)
    assert customer.delete(f"/connections/{connection}").json()["state"] == "disconnected"
    refused = customer.token(connection)
    assert refused.status_code == 409
    assert refused.json()["reason"] == "CONNECTION_DISCONNECTED"
    assert not playground.knows(token)
    names = {"FLOW_BEGUN", "CONNECTION_CREATED", "RECORD_KEY_RELEASED", "TOKEN_REVOKED", "CONNECTION_DISCONNECTED"}
    assert wait_for(lambda: names <= {event["event"] for event in customer.events(target=connection)})


@pytest.mark.promise("P36")
def test_a_rotated_refresh_token_is_used_once_and_the_next_one_works(
    customer: Customer, config: str, playground: Any
) -> None:
    playground.set_life(6)
    connection, reuse = customer.connect(config, "rotator"), playground.counts().get("reuse", 0)
    tokens = [customer.token(connection).json()["access_token"]]
    for _ in range(2):
        time.sleep(2)
        tokens.append(customer.token(connection).raise_for_status().json()["access_token"])
    playground.set_life(3600)
    assert len(set(tokens)) == 3
    assert playground.counts().get("reuse", 0) == reuse


@pytest.mark.promise("P31")
def test_every_use_of_a_credential_is_in_the_log_with_purpose_and_request(
    customer: Customer, wait_for: Callable[..., Any]
) -> None:
    connection = customer.import_api_key("sk_live_this-is-an-api-key-of-the-test")["id"]
    request_id = customer.token(connection).headers["x-request-id"]
    found = wait_for(lambda: customer.events(target=connection, event="RECORD_KEY_RELEASED"))
    assert found[0]["request_id"] == request_id
    assert found[0]["purpose"] == "serve"
    assert found[0]["emitter"] == "keyservice/user-credentials"
    assert found[0]["actor"].startswith("api_key:key_")


def test_one_trace_leads_from_a_request_through_every_process_that_had_a_part_in_it(
    stack: Stack, customer: Customer, wait_for: Callable[..., Any]
) -> None:
    body = {"kind": "api_key", "end_user_id": "traced", "provider": "acme", "api_key": "sk_live_traced-0123456789"}
    request_id = customer.post("/connections", body).headers["x-request-id"]

    def spans(process: str) -> str:
        return (stack.layout.logs / f"{process}.telemetry.json").read_text()

    def trace() -> str:
        before, found, _ = spans("edge").partition(f'"request_id": "{request_id}"')
        return before.rpartition('"trace_id": "')[2].partition('"')[0] if found else ""

    trace_id = wait_for(trace, 20)
    assert trace_id
    for process in ("authority", "coordinator", "vault", "keyservice-user-credentials"):
        assert wait_for(lambda process=process: trace_id in spans(process), 20), process
