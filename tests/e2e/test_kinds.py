"""Every other way to a token: what a client is, a signed assertion, another's token, two steps, a device, a pushed request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from authpipe_testing.browsing import chromium_flags
from authpipe_testing.customer import Customer
from authpipe_testing.oidc import OidcProvider
from playwright.sync_api import sync_playwright

MATERIALS: dict[str, dict[str, str]] = {
    "client_credentials": {},
    "jwt_bearer": {"issuer": "the-service", "subject": "ada", "private_key": ""},
    "token_exchange": {"subject_token": ""},
    "two_step": {"key": "the-key-of-the-account", "account": "acme"},
}
TWO_STEP = {"provider": "certified-steps"}


@pytest.fixture(scope="module")
def entries(customer: Customer, oidc_provider: OidcProvider) -> Iterator[dict[str, str]]:
    """The certified Provider, described by the customer; gives provider configurations by kind."""
    issuer = oidc_provider.issuer
    common = {"display_name": "Certified", "documentation": ["https://example.com/docs"]}
    oauth2 = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/auth",
        "token_endpoint": f"{issuer}/token",
        "introspection_endpoint": f"{issuer}/token/introspection",
        "userinfo_endpoint": f"{issuer}/me",
        "device_authorization_endpoint": f"{issuer}/device/auth",
        "pushed_authorization_request_endpoint": f"{issuer}/request",
        "client_authentication": ["client_secret_basic"],
        "iss_required": True,
        "grants": ["authorization_code", "client_credentials", "jwt_bearer", "token_exchange", "device_code"],
    }
    two_step = {
        "url": f"{issuer}/test/two-step",
        "headers": {"Authorization": "Key {key}"},
        "fields": {"account": "{account}"},
        "credentials": {"key": {"title": "Key"}, "account": {"title": "Account"}},
        "answer": {"access_token": "/session/token", "expires_in": "/session/seconds"},
    }
    for name, document in (("certified", {"oauth2": oauth2}), ("certified-steps", {"two_step": two_step})):
        customer.post("/providers", {"name": name, **common, **document}).raise_for_status()
    client = {"client_id": "authpipe-e2e", "client_secret": oidc_provider.client_secret}
    scopes = ["openid", "offline_access"]
    made = {
        "certified": {"provider": "certified", **client, "scopes": scopes},
        "pushes": {"provider": "certified", **client, "client_id": "authpipe-pushes", "scopes": scopes},
        "machine": {"provider": "certified", **client},
    }
    yield {
        name: str(customer.post("/provider-configs", body).raise_for_status().json()["id"])
        for name, body in made.items()
    }
    for name in ("certified", "certified-steps"):
        customer.delete(f"/providers/{name}")


@pytest.mark.promise("P37")
@pytest.mark.parametrize("renewal", list(MATERIALS))
def test_a_token_is_asked_for_without_a_person_and_asked_for_again_as_often_as_it_ends(
    renewal: str,
    customer: Customer,
    entries: dict[str, str],
    oidc_provider: OidcProvider,
    aged: Callable[[str], None],
) -> None:
    material = dict(MATERIALS[renewal])
    if renewal == "jwt_bearer":
        material["private_key"] = oidc_provider.assertion_key
    if renewal == "token_exchange":
        material["subject_token"] = oidc_provider.seed(1)[0]["access_token"]
    body = {
        "kind": "oauth2",
        "end_user_id": f"machine-{renewal}",
        "renewal": renewal,
        "material": material,
        **(TWO_STEP if renewal == "two_step" else {"provider_config_id": entries["machine"]}),
    }
    made = customer.post("/connections", body)
    assert made.status_code == 201, made.text
    connection = made.json()["id"]
    served = customer.token(connection)
    assert served.status_code == 200, served.text
    first = served.json()["access_token"]
    assert oidc_provider.living([first]) == [True]
    assert not any(value and value in served.text for value in material.values()), "what was brought is never served"
    aged(connection)
    again = customer.post(f"/connections/{connection}/refresh")
    assert again.status_code == 200, again.text
    second = customer.token(connection).json()["access_token"]
    assert second != first
    assert oidc_provider.living([second]) == [True]
    if renewal != "two_step":
        assert customer.health(connection) == "passing", "though userinfo would refuse a machine's token"
    shown = customer.get(f"/connections/{connection}").json()
    assert (shown["state"], shown["renewal"], shown["refreshable"]) == ("active", renewal, True)
    assert customer.delete(f"/connections/{connection}").json()["state"] == "disconnected"


@pytest.mark.promise("P37")
@pytest.mark.parametrize(
    ("renewal", "material"),
    [
        ("jwt_bearer", {"private_key": "no key"}),
        ("token_exchange", {}),
        ("client_credentials", {"surprise": "x"}),
        ("two_step", {"Key": "x"}),
    ],
)
def test_what_a_kind_needs_and_does_not_get_is_told_and_nothing_is_left(
    renewal: str, material: dict[str, str], customer: Customer, entries: dict[str, str]
) -> None:
    where = TWO_STEP if renewal == "two_step" else {"provider_config_id": entries["machine"]}
    body = {"kind": "oauth2", "end_user_id": "incomplete", "renewal": renewal, "material": material, **where}
    answer = customer.post("/connections", body)
    assert (answer.status_code, answer.json()["reason"]) == (400, "REQUEST_MALFORMED"), answer.text
    assert answer.json()["field"] == "material"
    assert customer.get("/connections", end_user_id="incomplete").json()["connections"] == []


@pytest.mark.promise("P37")
@pytest.mark.parametrize(
    ("renewal", "material", "state"),
    [
        ("jwt_bearer", {"issuer": "the-service", "private_key": "no key"}, ("needs_reauth", "MATERIAL_UNUSABLE")),
        ("two_step", {"key": "the-key-of-the-account"}, ("needs_reauth", "MATERIAL_UNUSABLE")),
        ("two_step", {"key": "another", "account": "acme"}, ("needs_reauth", "CREDENTIALS_REFUSED")),
    ],
)
def test_what_no_token_can_be_had_with_is_told_by_the_connection(
    renewal: str, material: dict[str, str], state: tuple[str, str], customer: Customer, entries: dict[str, str]
) -> None:
    where = TWO_STEP if renewal == "two_step" else {"provider_config_id": entries["machine"]}
    body = {"kind": "oauth2", "end_user_id": "unusable", "renewal": renewal, "material": material, **where}
    made = customer.post("/connections", body).raise_for_status().json()
    assert (made["state"], made["state_reason"]) == state, made
    assert made["state_help"].endswith(".")
    assert customer.token(made["id"]).status_code == 409


@pytest.mark.promise("P37")
def test_a_person_agrees_on_another_device(
    customer: Customer,
    entries: dict[str, str],
    oidc_provider: OidcProvider,
    chromium: str,
    wait_for: Callable[..., Any],
) -> None:
    begun = customer.post("/device-flows", {"provider_config_id": entries["certified"], "end_user_id": "at-a-tv"})
    assert begun.status_code == 201, begun.text
    flow = begun.json()
    assert flow["status"] == "pending"
    connection = flow["connection_id"]
    assert customer.get(f"/connections/{connection}").status_code == 404, "there is none yet"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=chromium_flags())
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(flow["verification_uri"])
        page.get_by_placeholder("Enter code").fill(flow["user_code"])
        page.get_by_role("button", name="Continue").click()
        page.get_by_role("button", name="Continue").click()
        page.get_by_placeholder("Enter any login").fill("ada")
        page.get_by_placeholder("and password").fill("a password")
        page.get_by_role("button", name="Sign-in").click()
        page.get_by_role("button", name="Continue").click()
        page.wait_for_load_state()
        browser.close()
    shown = wait_for(lambda: customer.get(f"/device-flows/{connection}").json()["status"] == "connected")
    assert shown, customer.get(f"/device-flows/{connection}").json()
    token = customer.token(connection).json()["access_token"]
    assert oidc_provider.living([token]) == [True]
    assert customer.get(f"/connections/{connection}").json()["refreshable"]
    # Its token is introspected, as the Provider of this client offers it.
    assert customer.health(connection) == "passing"


@pytest.mark.promise("P13")
def test_what_a_browser_carries_to_a_provider_that_takes_pushed_requests_is_only_a_name_for_it(
    customer: Customer, entries: dict[str, str], oidc_provider: OidcProvider
) -> None:
    browser, url = customer.begin(entries["pushes"], "pushed")
    parameters = httpx2.QueryParams(url.partition("?")[2])
    assert set(parameters) == {"client_id", "request_uri"}
    assert parameters["request_uri"].startswith("urn:ietf:params:oauth:request_uri:")
    asked = browser.get(url)
    assert (asked.status_code, "/interaction/" in asked.headers["location"]) == (303, True), "the Provider knows it"
    without = browser.get(f"{oidc_provider.issuer}/auth?client_id=authpipe-pushes&response_type=code&scope=openid")
    assert "/interaction/" not in without.headers.get("location", ""), "and takes nothing else"


@pytest.mark.promise("P37")
def test_a_client_secret_is_changed_while_nobody_fails(
    customer: Customer,
    entries: dict[str, str],
    oidc_provider: OidcProvider,
    aged: Callable[[str], None],
    wait_for: Callable[..., Any],
) -> None:
    config = entries["machine"]
    body = {
        "kind": "oauth2",
        "end_user_id": "rotates",
        "provider_config_id": config,
        "renewal": "client_credentials",
        "material": {},
    }
    connection = customer.post("/connections", body).raise_for_status().json()["id"]

    def refreshes() -> bool:
        aged(connection)
        answer = customer.post(f"/connections/{connection}/refresh")
        assert answer.status_code == 200, answer.text
        return True

    def counted() -> int:
        return int(customer.get(f"/provider-configs/{config}").json()["client_secret_count"])

    assert customer.token(connection).status_code == 200
    newer = "a-newer-client-secret-of-the-test-9876543210"
    first = customer.get(f"/provider-configs/{config}").json()["client_secret_masked"]
    added = customer.post(f"/provider-configs/{config}/client-secrets", {"client_secret": newer})
    assert added.status_code == 201, added.text
    assert (added.status_code, added.json()["client_secret_count"]) == (201, 2), added.text
    assert newer not in added.text
    third = customer.post(f"/provider-configs/{config}/client-secrets", {"client_secret": "one-too-many"})
    assert (third.status_code, third.json()["reason"]) == (409, "TWO_CLIENT_SECRETS")
    assert refreshes(), "the Provider takes only the older one yet"
    oidc_provider.set_secret(newer)
    try:
        assert refreshes(), "and now only the newer one"
        retired = customer.post(f"/provider-configs/{config}/client-secrets:retire")
        assert (retired.status_code, counted()) == (200, 1), retired.text
        assert retired.json()["client_secret_masked"] != first
        assert refreshes(), "which is left"
        last = customer.post(f"/provider-configs/{config}/client-secrets:retire")
        assert (last.status_code, last.json()["reason"]) == (409, "ONE_CLIENT_SECRET")
    finally:
        oidc_provider.set_secret(oidc_provider.client_secret)
    wanted = {"CLIENT_SECRET_ADDED", "CLIENT_SECRET_RETIRED"}
    assert wait_for(lambda: wanted <= {each["event"] for each in customer.events(target=config)})
