"""OAuth 1.0a (RFC 5849): a person agrees, tokens are served and sign requests, at a server that shares no code with our client."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import grpc
import httpx2
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.oauth1 import CONSUMER, Known, run_oauth1_provider
from authlib.oauth1.rfc5849.client_auth import ClientAuth


class Provider(NamedTuple):
    url: str
    known: Known
    config: str


@pytest.fixture(scope="module")
def provider(customer: Customer, stack: Stack) -> Iterator[Provider]:
    """The Provider, an entry for it, and a provider configuration."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    certificates = stack.layout.certificates
    with run_oauth1_provider(certificates / "public.pem", certificates / "public.key") as (url, known):
        document = {
            "name": "signs-all",
            "display_name": "Signs all",
            "documentation": ["https://example.com/docs"],
            "oauth1": {
                "temporary_credentials_endpoint": f"{url}/initiate",
                "authorization_endpoint": f"{url}/authorize",
                "token_endpoint": f"{url}/token",
                "signature_method": "HMAC-SHA1",
                "metadata": {"screen_name": "/screen_name", "token": "/oauth_token"},
            },
            "api": {"base_urls": [f"{url}/api"]},
            "health_check": {"url": f"{url}/api/me"},
        }
        customer.post("/providers", document).raise_for_status()
        client = {"provider": "signs-all", "client_id": CONSUMER, "client_secret": known.consumer_secret}
        made = customer.post("/provider-configs", client).raise_for_status().json()
        yield Provider(url, known, str(made["id"]))
        customer.delete("/providers/signs-all")


def connect(customer: Customer, provider: Provider, end_user: str) -> str:
    browser, url = customer.begin(provider.config, end_user)
    back = browser.get(url).headers["location"]
    assert browser.get(back).headers["location"] == "/connect/done"
    return str(customer.get("/connections", end_user_id=end_user).json()["connections"][0]["id"])


@pytest.fixture(scope="module")
def connection(customer: Customer, provider: Provider) -> str:
    return connect(customer, provider, "signs")


@pytest.mark.promise("P14")
def test_a_person_agrees_and_the_pair_is_served_by_rest_and_grpc(
    connection: str, customer: Customer, provider: Provider, stack: Stack
) -> None:
    shown = customer.get(f"/connections/{connection}").json()
    assert (shown["kind"], shown["state"], shown["metadata"]) == ("oauth1", "active", {"screen_name": "ada"})
    served = customer.token(connection).raise_for_status().json()
    assert served["kind"] == "oauth1"
    assert provider.known.tokens[served["access_token"]] == served["token_secret"]
    assert provider.known.temporary == {}, "what the flow began with was used up"
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        key = (("authorization", customer.http.headers["authorization"]),)
        found = gateway.GetToken(gateway_pb2.GetTokenRequest(connection_id=connection), metadata=key, timeout=10)
    assert (found.kind, found.access_token, found.token_secret) == (
        "oauth1", served["access_token"], served["token_secret"]
    )  # fmt: skip


@pytest.mark.promise("P09")
@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "me", {}),
        ("GET", "things?b=2&a=1%2F%20&b=1", {}),
        ("POST", "things?x=1", {"data": {"status": "Hello Ladies + Gentlemen, a signed request!", "n": "ä"}}),
        ("PUT", "things", {"json": {"not": "a form"}}),
        ("PUT", "large", {"content": bytes(3_000_000)}),
    ],
    ids=["plain", "query", "form", "json", "large"],
)
def test_requests_are_signed_in_the_worker(
    method: str, path: str, more: dict[str, Any], connection: str, customer: Customer
) -> None:
    answer = customer.http.request(method, f"/v1/proxy/{connection}/{path}", **more)
    assert (answer.status_code, answer.headers["authpipe-answered-by"]) == (200, "provider"), answer.text
    assert answer.json()["form"] == more.get("data", {})


@pytest.mark.promise("P09")
def test_a_form_that_is_too_large_to_be_signed_is_refused(connection: str, customer: Customer) -> None:
    answer = customer.http.post(f"/v1/proxy/{connection}/things", data={"x": "y" * 1_048_577})
    assert (answer.status_code, answer.json()["reason"]) == (413, "PROXY_BODY_TOO_LARGE")


@pytest.mark.promise("P14")
@pytest.mark.case(19)
def test_what_comes_back_of_another_flow_or_with_another_verifier_connects_nothing(
    customer: Customer, provider: Provider
) -> None:
    browser, url = customer.begin(provider.config, "mixed-1")
    mine = httpx2.URL(browser.get(url).headers["location"])
    other, url = customer.begin(provider.config, "mixed-2")
    theirs = httpx2.URL(other.get(url).headers["location"])
    # The state and cookie of one flow with token and verifier of another; the right token with another verifier; none.
    mixed = mine.copy_merge_params({name: theirs.params[name] for name in ("oauth_token", "oauth_verifier")})
    assert browser.get(mixed).headers["location"] == "/connect/failed?reason=CODE_EXCHANGE_FAILED"
    wrong = theirs.copy_merge_params({"oauth_verifier": mine.params["oauth_verifier"]})
    assert other.get(wrong).headers["location"] == "/connect/failed?reason=CODE_EXCHANGE_FAILED"
    third, url = customer.begin(provider.config, "mixed-3")
    back = httpx2.URL(third.get(url).headers["location"]).copy_remove_param("oauth_token")
    assert third.get(back).headers["location"].startswith("/connect/failed?reason=")
    for end_user in ("mixed-1", "mixed-2", "mixed-3"):
        listed = customer.get("/connections", end_user_id=end_user).json()["connections"]
        assert "active" not in {each["state"] for each in listed}


@pytest.mark.promise("P14")
def test_a_callback_of_oauth_1_at_a_flow_of_oauth_2_is_refused(customer: Customer, config: str) -> None:
    browser, url = customer.begin(config, "crossed")
    back = httpx2.URL(customer.allow(browser, url)).copy_merge_params({"oauth_token": "x"})
    assert browser.get(back).headers["location"].startswith("/connect/failed?reason=")


def test_a_pair_that_somebody_has_already_is_imported_and_signs(customer: Customer, provider: Provider) -> None:
    provider.known.tokens["a-token-that-we-had"] = "the-secret-that-we-had"
    body = {
        "kind": "oauth1",
        "end_user_id": "brought",
        "provider_config_id": provider.config,
        "access_token": "a-token-that-we-had",
        "token_secret": "the-secret-that-we-had",
    }
    imported = customer.post("/connections", body).raise_for_status().json()["id"]
    assert customer.http.get(f"/v1/proxy/{imported}/me").status_code == 200
    missing = customer.post("/connections", {**body, "token_secret": ""})
    assert (missing.status_code, missing.json()["field"]) == (400, "token_secret")
    mistaken = customer.post("/connections", {**body, "kind": "oauth2"})
    assert mistaken.status_code in {400, 409}


def test_its_health_is_checked_and_its_account_connected_again(
    connection: str, customer: Customer, provider: Provider, wait_for: Callable[..., Any]
) -> None:
    assert customer.health(connection) == "passing"
    before = customer.token(connection).json()["access_token"]
    session = {"end_user_id": "signs", "connection_id": connection}
    begun = customer.post("/connect-sessions", session).raise_for_status().json()["url"]
    browser = customer.browser()
    page = browser.get(begun).raise_for_status().text
    csrf = page.partition('name="csrf" value="')[2].partition('"')[0]
    form = {"csrf": csrf, "provider_config_id": provider.config}
    url = browser.post(begun, data=form, headers={"origin": customer.rest}).headers["location"]
    assert browser.get(browser.get(url).headers["location"]).headers["location"] == "/connect/done"
    after = customer.token(connection).json()["access_token"]
    assert after != before
    assert wait_for(lambda: customer.http.get(f"/v1/proxy/{connection}/me").status_code == 200)


@pytest.mark.promise("P11")
def test_a_disconnected_pair_is_gone(customer: Customer, provider: Provider) -> None:
    gone = connect(customer, provider, "leaves")
    assert customer.delete(f"/connections/{gone}").status_code == 200
    assert customer.token(gone).status_code in {404, 409}
    assert customer.http.get(f"/v1/proxy/{gone}/me").status_code in {404, 409}


def test_the_server_sees_a_signature_with_another_secret(provider: Provider, stack: Stack) -> None:
    """What these tests rely on: the Provider refuses what is not signed as it should be."""
    auth = ClientAuth(CONSUMER, "another-secret", token="a-token-that-we-had", token_secret="the-secret-that-we-had")
    url, headers, _ = auth.prepare("GET", f"{provider.url}/api/me", {}, "")
    trusted = ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))
    refused = httpx2.get(url, headers=headers, verify=trusted, trust_env=False)
    assert refused.status_code == 401
