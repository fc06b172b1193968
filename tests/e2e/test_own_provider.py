"""Providers that a workspace describes for itself: the same checks, the same flow, and the values that it asks for (P37)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer


def described(issuer: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "display_name": "Our own",
        "documentation": ["https://example.com/docs"],
        "read_on": "2026-11-24",
        "oauth2": {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/revoke",
            "client_authentication": ["client_secret_post", "client_secret_basic"],
            "iss_required": True,
            "scope_separator": ",",
            "default_scopes": ["one", "two"],
            "authorization_parameters": {"audience": "ours"},
            "metadata": {"kind": "/token_type"},
            "rotation": "strict",
        },
        **more,
    }


@pytest.fixture
def own(customer: Customer, stack: Stack) -> Iterator[Callable[..., str]]:
    """Adds an entry, and deletes it afterwards; gives its name."""
    added: list[str] = []

    def add(name: str, **more: Any) -> str:
        answer = customer.post("/providers", described(stack.layout.playground_issuer, name, **more))
        assert answer.status_code == 201, answer.text
        added.append(name)
        return name

    yield add
    for name in added:
        customer.delete(f"/providers/{name}")


@pytest.mark.promise("P37")
def test_a_workspaces_own_entry_is_spoken_to_as_it_says(
    customer: Customer, own: Callable[..., str], aged: Callable[[str], None], wait_for: Callable[..., Any]
) -> None:
    name = own("ours")
    line = next(each for each in customer.get("/providers").json()["providers"] if each["name"] == name)
    assert (line["own"], line["kinds"], line["display_name"]) == (True, ["oauth2"], "Our own")
    assert customer.get(f"/providers/{name}").json()["oauth2"]["scope_separator"] == ","
    body = {"provider": name, "client_id": "c", "client_secret": "a-client-secret-of-the-test-0123456789"}
    config = customer.post("/provider-configs", body).raise_for_status().json()
    assert (config["token_endpoint_auth_method"], config["scopes"]) == ("client_secret_post", ["one", "two"])
    _, url = customer.begin(config["id"], "own-entry")
    assert "scope=one%2Ctwo" in url
    assert "audience=ours" in url
    connection = customer.connect(config["id"], "own-entry")
    assert customer.get(f"/connections/{connection}").json()["metadata"] == {"kind": "Bearer"}
    aged(connection)
    assert customer.post(f"/connections/{connection}/refresh").status_code == 200
    # What was pinned stays when the entry goes.
    assert customer.delete(f"/providers/{name}").status_code == 204
    assert customer.get(f"/providers/{name}").status_code == 404
    assert customer.token(connection).status_code == 200
    refused = customer.post("/provider-configs", body)
    assert (refused.status_code, refused.json()["reason"]) == (400, "PROVIDER_UNKNOWN")
    wanted = ["PROVIDER_DELETED", "PROVIDER_ADDED"]
    assert wait_for(lambda: [each["event"] for each in customer.events(target=name)] == wanted)


@pytest.mark.promise("P37")
@pytest.mark.case(22)
def test_a_credential_is_bound_to_the_hosts_that_the_entry_named_when_it_was_pinned(
    customer: Customer, own: Callable[..., str], stack: Stack, aged: Callable[[str], None]
) -> None:
    name = own("ours-narrow")
    body = {"provider": name, "client_id": "c", "client_secret": "a-client-secret-of-the-test-0123456789"}
    config = customer.post("/provider-configs", body).raise_for_status().json()
    connection = customer.connect(config["id"], "narrow")
    assert customer.delete(f"/providers/{name}").status_code == 204
    api = {"base_urls": ["https://api.elsewhere.example"]}
    assert customer.post("/providers", described(stack.layout.playground_issuer, name, api=api)).status_code == 201
    aged(connection)
    assert customer.post(f"/connections/{connection}/refresh").status_code == 200, "as it was pinned"
    wider = customer.post("/provider-configs", body).raise_for_status().json()
    assert wider["id"] != config["id"], "the wider set of hosts is another configuration, which needs new consent"


@pytest.mark.promise("P37")
@pytest.mark.case(22)
def test_metadata_that_moved_within_its_hosts_is_followed_and_any_other_is_told_and_not_followed(
    customer: Customer,
    stack: Stack,
    superuser: Callable[[str, str], Any],
    wait_for: Callable[..., Any],
) -> None:
    config = customer.configure(stack.layout.playground_issuer, client_id="rediscovered")
    moved = customer.configure(stack.layout.playground_issuer, client_id="moved-elsewhere")
    old = f"{stack.layout.playground_issuer}/revoke-as-it-was"
    with superuser("core", "coordinator") as core:
        # As if both had been found two days ago, when the Provider said something else.
        core.execute(
            "update provider_configs set revocation_endpoint = %s, discovered_at = now() - interval '2 days'"
            " where id = any(%s)",
            (old, [config["id"], moved["id"]]),
        )
        core.execute("update provider_configs set hosts_digest = %s where id = %s", (bytes(32), moved["id"]))

    def events(target: str) -> list[tuple[str, str]]:
        found = [each for each in customer.events(target=target) if each["event"] == "PROVIDER_CONFIG_CHANGED"]
        return [(each["outcome"], each["reason"]) for each in found]

    assert wait_for(lambda: events(config["id"]) == [("succeeded", "METADATA_CHANGED")])
    shown = customer.get(f"/provider-configs/{config['id']}").json()
    assert shown["revocation_endpoint"] == config["revocation_endpoint"] != old
    assert wait_for(lambda: events(moved["id"]) == [("refused", "HOSTS_CHANGED")])
    stayed = customer.get(f"/provider-configs/{moved['id']}").json()
    assert stayed["revocation_endpoint"] == old
    assert (stayed["notice"], stayed["notice_time"] is not None) == ("HOSTS_CHANGED", True), "its owner is told"
    assert (shown["notice"], shown["notice_time"]) == ("", None)


def test_the_hosted_page_asks_for_what_a_provider_wants_to_know_and_refuses_what_does_not_fit(
    customer: Customer, own: Callable[..., str]
) -> None:
    name = own(
        "ours-by-shop",
        values={
            "shop": {"title": "Shop & more", "example": "acme", "pattern": "[a-z]{1,20}", "description": "Its name."},
            "region": {"title": "Region", "example": "eu", "one_of": ["eu", "us"]},
        },
        api={"base_urls": ["https://{shop}.api.example.com/{region}"]},
    )
    body = {"provider": name, "client_id": "c", "client_secret": "a-client-secret-of-the-test-0123456789"}
    config = customer.post("/provider-configs", body).raise_for_status().json()
    assert [each["name"] for each in config["values"]] == ["region", "shop"]
    session = {"end_user_id": "shopkeeper", "provider_config_ids": [config["id"]], "values": {"region": "eu"}}
    url = customer.post("/connect-sessions", session).raise_for_status().json()["url"]
    browser = customer.browser()
    page = browser.get(url).text
    assert "Shop &amp; more" in page
    assert "Region" not in page, "what the customer said already is not asked"
    csrf = page.split('name="csrf" value="')[1].split('"')[0]
    form = {"csrf": csrf, "provider_config_id": config["id"]}
    for bad in ({}, {"value_shop": "UPPER"}, {"value_shop": "evil.com/"}, {"value_shop": "a", "value_more": "x" * 200}):
        refused = browser.post(url, data=form | bad, headers={"origin": customer.rest})
        if bad.get("value_shop") != "a":
            assert refused.status_code == 400, refused.text
    answer = browser.post(url, data=form | {"value_shop": "acme"}, headers={"origin": customer.rest})
    assert answer.status_code == 303
    done = browser.get(customer.allow(browser, answer.headers["location"])).headers["location"]
    assert done == "/connect/done"
    shown = customer.get("/connections", end_user_id="shopkeeper").json()["connections"][0]
    assert shown["values"] == {"region": "eu", "shop": "acme"}


@pytest.mark.parametrize(
    ("change", "field", "cause"),
    [
        ({"name": "github"}, None, None),
        ({"name": "No Name"}, "name", "SCHEMA"),
        ({"oauth2": {}}, "oauth2", "SCHEMA"),
        ({"api": {"base_urls": ["https://{shop}.example.com"]}}, None, "PLACEHOLDER_NOT_DECLARED"),
        (
            {
                "values": {"shop": {"title": "S", "example": "a", "pattern": "(a+)+"}},
                "api": {"base_urls": ["https://{shop}.example.com"]},
            },
            "values",
            "PATTERN_NOT_SIMPLE",
        ),
    ],
)
def test_what_is_no_entry_is_refused_and_says_where(
    change: dict[str, Any], field: str | None, cause: str | None, customer: Customer, stack: Stack
) -> None:
    answer = customer.post("/providers", described(stack.layout.playground_issuer, "refused") | change)
    if cause is None:
        assert (answer.status_code, answer.json()["reason"]) == (409, "PROVIDER_EXISTS")
        return
    assert (answer.status_code, answer.json()["reason"]) == (400, "PROVIDER_ENTRY_MALFORMED")
    assert answer.json()["cause"] == cause
    assert answer.json().get("field") == field


def test_the_same_over_grpc(customer: Customer, stack: Stack) -> None:
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    metadata = (("authorization", customer.http.headers["authorization"]),)
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)
        listed = stub.ListProviders(gateway_pb2.ListProvidersRequest(), metadata=metadata, timeout=10).providers
        assert {"github", "google", "slack"} <= {each.name for each in listed}
        entry = stub.GetProvider(gateway_pb2.GetProviderRequest(name="github"), metadata=metadata, timeout=10)
        assert "login/oauth/access_token" in entry.document
        with pytest.raises(grpc.RpcError) as refused:
            stub.AddProvider(gateway_pb2.AddProviderRequest(document="{"), metadata=metadata, timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
