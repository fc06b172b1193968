"""Tokens that are bound to a key (RFC 9449), at a certified Provider that wants a nonce in every proof."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx2
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.oidc import OidcProvider
from joserfc import jws


def agree(customer: Customer, config: str, end_user: str) -> str:
    """Connects an account as a person does: signs in at the Provider and agrees."""
    browser, url = customer.begin(config, end_user)
    assert "dpop_jkt=" in url, "the code too is bound"
    for _ in range(12):
        if url.startswith(customer.rest):
            done = browser.get(url).headers["location"]
            assert done == "/connect/done"
            return str(customer.get("/connections", end_user_id=end_user).json()["connections"][0]["id"])
        answer = browser.get(url)
        if answer.status_code == 200:
            prompt = re.findall(r'name="prompt" value="(\w+)"', answer.text)[0]
            action = re.findall(r'action="([^"]+)"', answer.text)[0]
            form = {"prompt": prompt, "login": "ada", "password": "a password"}
            answer = browser.post(httpx2.URL(url).join(action), data=form)
        url = str(httpx2.URL(url).join(answer.headers["location"]))
    raise AssertionError("The Provider asks without an end.")


@pytest.fixture(scope="module")
def config(customer: Customer, oidc_provider: OidcProvider) -> Iterator[str]:
    """A provider configuration of an entry with an API; the Provider's own account page stands for that."""
    issuer = oidc_provider.issuer
    document = {
        "name": "binds",
        "display_name": "Binds tokens",
        "documentation": ["https://example.com/docs"],
        "oauth2": {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/auth",
            "token_endpoint": f"{issuer}/token",
            "revocation_endpoint": f"{issuer}/token/revocation",
            "device_authorization_endpoint": f"{issuer}/device/auth",
            "grants": ["authorization_code", "device_code", "client_credentials"],
            "client_authentication": ["client_secret_basic"],
            "iss_required": True,
            "dpop": True,
            "default_scopes": ["openid", "offline_access"],
        },
        "health_check": {"url": f"{issuer}/me"},
        "api": {"base_urls": [issuer]},
    }
    customer.post("/providers", document).raise_for_status()
    client = {"provider": "binds", "client_id": "authpipe-e2e", "client_secret": oidc_provider.client_secret}
    made = customer.post("/provider-configs", client).raise_for_status().json()
    assert made["dpop"] is True
    yield str(made["id"])
    customer.delete("/providers/binds")


@pytest.fixture(scope="module")
def connection(customer: Customer, config: str) -> str:
    return agree(customer, config, "bound")


@pytest.mark.promise("P09")
def test_a_bound_token_is_served_without_its_key_and_used_through_the_proxy(
    connection: str, customer: Customer, oidc_provider: OidcProvider
) -> None:
    served = customer.token(connection).json()
    assert served["token_type"] == "DPoP"
    assert set(served) == {"connection_id", "kind", "access_token", "token_type", "expire_time", "scopes"}
    # Whoever has the token alone has nothing.
    for scheme in ("Bearer", "DPoP"):
        refused = oidc_provider.http.get("/me", headers={"authorization": f"{scheme} {served['access_token']}"})
        assert refused.status_code in {400, 401}, refused.text
    for method, body in (("GET", None), ("POST", b"")):
        answer = customer.http.request(method, f"/v1/proxy/{connection}/me", content=body)
        assert (answer.status_code, answer.headers["authpipe-answered-by"]) == (200, "provider"), answer.text
        assert answer.json()["sub"]


@pytest.mark.promise("P36")
def test_a_bound_token_is_refreshed_and_the_next_one_is_bound_to_the_same_key(
    connection: str, customer: Customer, oidc_provider: OidcProvider, aged: Callable[[str], None]
) -> None:
    before, asked = customer.token(connection).json()["access_token"], oidc_provider.counts().get("refresh_token", 0)
    aged(connection)
    customer.post(f"/connections/{connection}/refresh").raise_for_status()
    after = customer.token(connection).json()
    assert (after["token_type"], after["access_token"] != before) == ("DPoP", True)
    assert oidc_provider.counts()["refresh_token"] == asked + 1
    assert customer.http.get(f"/v1/proxy/{connection}/me").status_code == 200


@pytest.mark.promise("P09")
def test_a_served_token_is_used_with_a_proof_that_is_made_for_that_request(
    connection: str,
    customer: Customer,
    oidc_provider: OidcProvider,
    stack: Stack,
    new_customer: Callable[..., Customer],
) -> None:
    token, url = customer.token(connection).json()["access_token"], f"{oidc_provider.issuer}/me"
    wanted = {"method": "GET", "url": url}

    def use(proof: str) -> httpx2.Response:
        return oidc_provider.http.get("/me", headers={"authorization": f"DPoP {token}", "dpop": proof})

    asked = use(
        customer.post(f"/connections/{connection}/dpop-proofs", {**wanted, "nonce": "old"})
        .raise_for_status()
        .json()["proof"]
    )
    assert asked.status_code == 401
    nonce = asked.headers["dpop-nonce"]
    made = customer.post(f"/connections/{connection}/dpop-proofs", {**wanted, "nonce": nonce}).raise_for_status()
    assert made.headers["cache-control"] == "no-store"
    assert use(made.json()["proof"]).json()["sub"]
    assert use(made.json()["proof"]).status_code in {400, 401}, "it was for one request"
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        request = gateway_pb2.ProveKeyRequest(connection_id=connection, nonce=nonce, **wanted)
        key = (("authorization", customer.http.headers["authorization"]),)
        assert use(gateway.ProveKey(request, metadata=key, timeout=10).proof).json()["sub"]
    reader = new_customer("connections:read", "tokens:read")
    refused = reader.post(f"/connections/{connection}/dpop-proofs", wanted)
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    plain = customer.import_api_key("sk_live_bound-to-no-key-0123456789")["id"]
    refused = customer.post(f"/connections/{plain}/dpop-proofs", wanted)
    assert refused.status_code == 409, refused.text


def test_the_health_of_a_bound_token_is_checked_with_a_proof(connection: str, customer: Customer) -> None:
    assert customer.health(connection) == "passing"


@pytest.mark.promise("P37")
def test_who_wants_bearer_tokens_gets_them_and_the_issuers_metadata_says_what_there_is(
    customer: Customer, oidc_provider: OidcProvider
) -> None:
    client: dict[str, Any] = {"client_id": "authpipe-e2e", "client_secret": oidc_provider.client_secret}
    bound = customer.configure(oidc_provider.issuer, **client)
    plain = customer.configure(oidc_provider.issuer, bearer_only=True, **client)
    assert (bound["dpop"], plain["dpop"]) == (True, False)
    assert (customer.get(f"/provider-configs/{plain['id']}").json()["dpop"]) is False


@pytest.mark.promise("P37")
def test_the_tokens_of_a_device_are_bound_to_a_key_that_is_there_before_them(
    customer: Customer,
    config: str,
    oidc_provider: OidcProvider,
    wait_for: Callable[..., Any],
    aged: Callable[[str], None],
) -> None:
    begun = customer.post("/device-flows", {"provider_config_id": config, "end_user_id": "bound-at-a-tv"})
    flow = begun.raise_for_status().json()
    _agree_elsewhere(customer, flow["verification_uri"], flow["user_code"])
    connection = flow["connection_id"]
    shown = wait_for(lambda: customer.get(f"/device-flows/{connection}").json()["status"] == "connected", 30)
    assert shown, customer.get(f"/device-flows/{connection}").json()
    for _ in range(2):
        assert customer.token(connection).json()["token_type"] == "DPoP"
        answer = customer.http.get(f"/v1/proxy/{connection}/me")
        assert (answer.status_code, answer.headers["authpipe-answered-by"]) == (200, "provider"), answer.text
        aged(connection)
        customer.post(f"/connections/{connection}/refresh").raise_for_status()


def _agree_elsewhere(customer: Customer, url: str, user_code: str) -> None:
    """Does what a person does at the Provider's own pages: enters the code, confirms, signs in, agrees."""
    typed = {"user_code": user_code, "login": "ada", "password": "a password"}
    with httpx2.Client(verify=False, follow_redirects=True, trust_env=False) as browser:  # a test Provider's CA
        page = browser.get(url)
        for _ in range(8):
            assert page.status_code == 200, page.text
            form = re.search(r'<form[^>]*action="([^"]+)"', page.text)
            if form is None:
                return
            names = re.findall(r'<input[^>]*name="(\w+)"', page.text)
            given = {name: value for name, value in re.findall(r'name="(\w+)" value="([^"]*)"', page.text)}
            given |= {name: typed[name] for name in names if name in typed and not given.get(name)}
            page = browser.post(httpx2.URL(str(page.url)).join(form[1]), data=given)
    raise AssertionError("The Provider asks without an end.")


@pytest.mark.promise("P37")
def test_the_tokens_of_no_person_are_bound_to_one_key_from_the_first_on(
    customer: Customer, config: str, oidc_provider: OidcProvider, aged: Callable[[str], None]
) -> None:
    body = {"kind": "oauth2", "end_user_id": "a-machine", "renewal": "client_credentials", "material": {}}
    made = customer.post("/connections", {**body, "provider_config_id": config}).raise_for_status().json()
    tokens, keys = set(), set()
    for _ in range(2):
        served = customer.token(made["id"]).json()
        assert served["token_type"] == "DPoP"
        assert oidc_provider.living([served["access_token"]]) == [True]
        tokens.add(served["access_token"])
        wanted = {"method": "GET", "url": f"{oidc_provider.issuer}/me"}
        proof = customer.post(f"/connections/{made['id']}/dpop-proofs", wanted).raise_for_status().json()["proof"]
        keys.add(json.dumps(jws.extract_compact(proof.encode()).headers()["jwk"], sort_keys=True))
        aged(made["id"])
        customer.post(f"/connections/{made['id']}/refresh").raise_for_status()
    assert (len(tokens), len(keys)) == (2, 1)


@pytest.mark.promise("P37")
def test_a_token_that_was_imported_stays_what_it_was(
    customer: Customer, config: str, oidc_provider: OidcProvider
) -> None:
    tokens = {"access_token": "an-imported-access-token-0123", "refresh_token": "an-imported-refresh-token-0123"}
    body = {"kind": "oauth2", "end_user_id": "imported", "provider_config_id": config, **tokens}
    made = customer.post("/connections", body).raise_for_status().json()
    assert customer.token(made["id"]).json()["token_type"] == "Bearer"
    refused = customer.post(
        f"/connections/{made['id']}/dpop-proofs", {"method": "GET", "url": f"{oidc_provider.issuer}/me"}
    )
    assert refused.status_code in {404, 409}, refused.text
