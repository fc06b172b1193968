"""The proxy: a credential is used and never seen by whoever uses it (promise P09; ARCHITECTURE §4)."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

KEY = "sk_live_the-api-key-behind-the-proxy-0123456789"


@pytest.fixture(scope="module")
def provider(customer: Customer, api: Any, stack: Stack) -> Iterator[str]:
    """A Provider with an API, described by the workspace; OAuth by the playground."""
    issuer = stack.layout.playground_issuer
    document = {
        "name": "with-an-api",
        "display_name": "With an API",
        "documentation": ["https://example.com/docs"],
        "read_on": "2026-11-24",
        "oauth2": {
            "authorization_endpoint": f"{issuer}/authorize",
            "token_endpoint": f"{issuer}/token",
            "client_authentication": ["client_secret_post"],
            "default_scopes": ["profile"],
        },
        "api_key": {"in": "header", "name": "X-Api-Key"},
        "basic": {},
        "api": {"base_urls": [api.url, f"{api.url}/second"], "headers": {"x-version": "7"}},
    }
    assert customer.post("/providers", document).status_code == 201
    yield "with-an-api"
    customer.delete("/providers/with-an-api")


@pytest.fixture(scope="module")
def key(customer: Customer, provider: str) -> str:
    """A connection with an API key for it."""
    body = {"kind": "api_key", "end_user_id": "proxied", "provider": provider, "api_key": KEY}
    return str(customer.post("/connections", body).raise_for_status().json()["id"])


def through(customer: Customer, method: str, path: str, **more: Any) -> httpx2.Response:
    return customer.http.request(method, f"/v1/proxy/{path}", **more)


def sent(answer: httpx2.Response, name: str) -> list[str]:
    return [value for each, value in answer.json()["headers"] if each == name]


def raw(customer: Customer, stack: Stack, path: str, headers: dict[str, str]) -> bytes:
    """Sends a request as bytes on a socket: a client library tidies dot segments up. Gives what came until the end."""
    host, port = stack.layout.rest_url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=str(stack.public_ca.certificate_file))
    lines = [f"GET /v1/proxy/{path} HTTP/1.1", f"host: {host}", "connection: close"]
    lines += [f"authorization: {customer.http.headers['authorization']}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, int(port))) as plain, context.wrap_socket(plain, server_hostname=host) as wire:
        wire.sendall("\r\n".join([*lines, "", ""]).encode())
        came = b""
        with contextlib.suppress(OSError):
            while piece := wire.recv(65_536):
                came += piece
        return came


@pytest.mark.promise("P09")
def test_an_api_key_is_used_where_its_provider_wants_it_and_never_comes_back(
    customer: Customer, key: str, wait_for: Callable[..., Any]
) -> None:
    answer = through(customer, "GET", f"{key}/things?a=1&b=%2F", headers={"x-own": "kept"})
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["method"], shown["path"]) == ("GET", "/api/things?a=1&b=%2F")
    assert sent(answer, "x-api-key") == [KEY]
    assert sent(answer, "x-own") == ["kept"]
    assert sent(answer, "x-version") == ["7"]
    assert sent(answer, "authorization") == [], "our own API key goes nowhere"
    assert answer.headers["authpipe-answered-by"] == "provider"
    event = wait_for(lambda: customer.events(event="RECORD_KEY_RELEASED", target=key))[0]
    assert (event["purpose"], event["outcome"]) == ("proxy", "succeeded")
    assert KEY not in json.dumps(customer.get(f"/connections/{key}").json())


@pytest.mark.promise("P31")
def test_every_request_of_many_in_a_row_has_an_event_though_its_key_was_kept(
    customer: Customer, provider: str, wait_for: Callable[..., Any]
) -> None:
    body = {"kind": "api_key", "end_user_id": "in-a-row", "provider": provider, "api_key": KEY}
    mine = customer.post("/connections", body).raise_for_status().json()["id"]
    for number in range(6):
        assert sent(through(customer, "GET", f"{mine}/{number}"), "x-api-key") == [KEY]

    def uses() -> list[dict[str, Any]]:
        return [
            event
            for name in ("RECORD_KEY_RELEASED", "RECORD_KEY_REUSED")
            for event in customer.events(event=name, target=mine)
        ]

    assert wait_for(lambda: len(uses()) == 6)
    assert {(event["purpose"], event["outcome"]) for event in uses()} == {("proxy", "succeeded")}
    assert len({event["request_id"] for event in uses()}) == 6
    released = [event for event in uses() if event["event"] == "RECORD_KEY_RELEASED"]
    assert 1 <= len(released) < 6, "keyservice was not asked each time"


@pytest.mark.promise("P11")
def test_a_connection_that_is_disconnected_is_not_used_again_though_its_key_was_kept(
    customer: Customer, provider: str, api: Any
) -> None:
    body = {"kind": "api_key", "end_user_id": "used-and-left", "provider": provider, "api_key": KEY}
    mine = customer.post("/connections", body).raise_for_status().json()["id"]
    for _ in range(2):
        assert through(customer, "GET", f"{mine}/x").status_code == 200
    customer.delete(f"/connections/{mine}").raise_for_status()
    before = len(api.seen)
    for _ in range(3):
        assert through(customer, "GET", f"{mine}/x").status_code in {404, 409, 410}
    assert len(api.seen) == before, "nothing was sent"


@pytest.mark.promise("P09")
def test_what_is_between_neighbours_and_every_cookie_stays_out_both_ways(customer: Customer, key: str) -> None:
    answer = through(
        customer,
        "POST",
        f"{key}/things",
        content=b"body",
        headers={
            "cookie": "a=b",
            "connection": "x-hop",
            "x-hop": "1",
            "te": "trailers",
            "x-forwarded-for": "1.2.3.4",
            "authpipe-secret": "x",
            "proxy-authorization": "Basic x",
        },
    )
    names = {name for name, _ in answer.json()["headers"]}
    assert not names & {"cookie", "x-hop", "te", "x-forwarded-for", "authpipe-secret", "proxy-authorization"}
    assert answer.json()["body"] == "body"
    assert "set-cookie" not in answer.headers
    assert "x-between-neighbours" not in answer.headers
    assert answer.headers["x-of-the-provider"] == "yes"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"


@pytest.mark.promise("P09")
def test_a_basic_pair_and_an_oauth_token_are_used_too(customer: Customer, provider: str, playground: Any) -> None:
    body = {
        "kind": "basic",
        "end_user_id": "pair",
        "provider": provider,
        "username": "ada",
        "password": "secret-of-ada",
    }
    pair = customer.post("/connections", body).raise_for_status().json()["id"]
    assert sent(through(customer, "GET", f"{pair}/x"), "authorization") == ["Basic YWRhOnNlY3JldC1vZi1hZGE="]
    made = {"provider": provider, "client_id": "c", "client_secret": "a-client-secret-of-the-test-0123456789"}
    config = customer.post("/provider-configs", made).raise_for_status().json()["id"]
    connection = customer.connect(config, "proxied-oauth")
    bearer = sent(through(customer, "GET", f"{connection}/x"), "authorization")[0]
    assert bearer == f"Bearer {customer.token(connection).json()['access_token']}"
    assert playground.knows(bearer.removeprefix("Bearer "))


@pytest.mark.promise("P09")
def test_a_request_is_signed_with_a_secret_that_is_not_sent(customer: Customer, api: Any) -> None:
    document = {
        "name": "signs",
        "display_name": "Wants signed requests",
        "documentation": ["https://example.com/docs"],
        "signing": {
            "scheme": "hmac",
            "signed": "{timestamp}\n{method}\n{target}\n{body}",
            "headers": {"X-Key": "{key}", "X-Time": "{timestamp}", "X-Signature": "{signature}"},
        },
        "api": {"base_urls": [api.url]},
    }
    customer.post("/providers", document).raise_for_status()
    secret = "the-secret-that-signs-and-is-never-sent-0123456789"
    pair = {"kind": "basic", "end_user_id": "signs", "provider": "signs", "username": "key-1", "password": secret}
    connection = customer.post("/connections", pair).raise_for_status().json()["id"]
    answer = through(customer, "POST", f"{connection}/orders?a=1", content=b"buy")
    (when,), (signature,) = sent(answer, "x-time"), sent(answer, "x-signature")
    message = f"{when}\nPOST\n/api/orders?a=1\nbuy".encode()
    assert signature == hmac.digest(secret.encode(), message, "sha256").hex()
    assert abs(int(when) - time.time()) < 60
    assert sent(answer, "x-key") == ["key-1"]
    assert secret not in json.dumps(api.seen)
    refused = through(customer, "POST", f"{connection}/orders", content=bytes(1_048_577))
    assert (refused.status_code, refused.json()["reason"]) == (413, "PROXY_BODY_TOO_LARGE")
    customer.delete("/providers/signs")


@pytest.mark.promise("P36")
def test_a_token_that_the_provider_refuses_is_refreshed_and_the_request_sent_once_more(
    customer: Customer, provider: str, api: Any, aged: Callable[[str], None]
) -> None:
    made = {"provider": provider, "client_id": "c", "client_secret": "a-client-secret-of-the-test-0123456789"}
    config = customer.post("/provider-configs", made).raise_for_status().json()["id"]
    connection = customer.connect(config, "refused-once")
    aged(connection)
    before = customer.token(connection).json()["access_token"]
    api.refuse = 1
    answer = through(customer, "POST", f"{connection}/unauthorized-once", content=b"the body, twice")
    assert answer.status_code == 200, answer.text
    assert answer.json()["body"] == "the body, twice"
    after = customer.token(connection).json()["access_token"]
    assert before != after
    assert sent(answer, "authorization") == [f"Bearer {after}"]
    # One that is refused again and again is handed on: it is the Provider's answer.
    api.refuse = 9
    assert through(customer, "GET", f"{connection}/unauthorized-once").status_code == 401
    api.refuse = 0


@pytest.mark.promise("P09")
@pytest.mark.case(22)
@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        ("{key}/../../admin", {}, "path"),
        ("{key}/a/%2e%2e/%2e%2e/b", {}, "path"),
        ("{key}/a/%252e%252e/b", {}, "path"),
        ("{key}/a\\..\\b", {}, "path"),
        ("{key}/a", {"authpipe-base-url": "https://evil.example"}, "base_url"),
        ("{key}/a", {"authpipe-base-url": "https://127.0.0.1:1/api"}, "base_url"),
        ("{key}@evil.example/a", {}, None),
    ],
)
def test_no_path_and_no_header_leads_elsewhere(
    path: str, headers: dict[str, str], field: str | None, customer: Customer, key: str, api: Any, stack: Stack
) -> None:
    before = len(api.seen)
    answer = raw(customer, stack, path.format(key=key), headers)
    status = int(answer.split(b" ", 2)[1])
    assert status in {400, 404}, answer[:300]
    if field and status == 400 and b"{" in answer:
        assert f'"field": "{field}"'.encode() in answer
    assert len(api.seen) == before, "nothing was sent"


def test_another_base_url_of_the_api_is_chosen_by_a_header(customer: Customer, key: str, api: Any) -> None:
    answer = through(customer, "GET", f"{key}/x", headers={"authpipe-base-url": f"{api.url}/second"})
    assert answer.json()["path"] == "/api/second/x"


@pytest.mark.case(21)
def test_a_redirect_of_the_api_is_handed_on_and_not_followed(customer: Customer, key: str) -> None:
    answer = through(customer, "GET", f"{key}/redirect", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (302, "https://169.254.169.254/latest/meta-data")


def test_a_body_of_sixty_four_megabytes_passes_through_both_ways(customer: Customer, key: str) -> None:
    data = bytes(range(256)) * 4096 * 64
    answer = through(customer, "PUT", f"{key}/digest", content=data)
    assert answer.json() == {"sha256": hashlib.sha256(data).hexdigest(), "length": len(data)}

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(data), 1024 * 1024):
            yield data[at : at + 1024 * 1024]

    answer = through(customer, "PUT", f"{key}/digest", content=pieces())
    assert answer.json()["length"] == len(data), "also where nobody knows beforehand how long it is"
    assert len(through(customer, "GET", f"{key}/stream/{len(data)}").content) == len(data)


def test_half_an_answer_does_not_look_like_a_whole_one(customer: Customer, key: str, stack: Stack) -> None:
    came = raw(customer, stack, f"{key}/breaks/1000000", {})
    head, _, body = came.partition(b"\r\n\r\n")
    assert b" 200 " in head
    assert b"content-length: 1000000" in head.lower()
    assert len(body) < 1000000, "and the connection ended"


def test_half_of_a_short_answer_is_none(customer: Customer, key: str) -> None:
    for method in ("GET", "POST"):
        answer = through(customer, method, f"{key}/breaks/1000")
        assert (answer.status_code, answer.json()["reason"]) == (502, "PROVIDER_ANSWER_LOST"), method


def test_an_answer_without_a_body_says_how_long_it_would_be(customer: Customer, key: str) -> None:
    answer = through(customer, "HEAD", f"{key}/stream/1000000")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1000000", b"")


@pytest.mark.promise("P09")
def test_who_may_not_proxy_is_refused_and_what_cannot_be_says_why(
    customer: Customer, key: str, new_customer: Callable[..., Customer], stranger: Customer
) -> None:
    reader = new_customer("connections:read", "tokens:read")
    refused = through(reader, "GET", f"{key}/x")
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    assert through(stranger, "GET", f"{key}/x").status_code == 404
    assert customer.http.get("/v1/proxy/nonsense/x").status_code == 404
    assert customer.browser().get(f"{customer.rest}/v1/proxy/{key}/x").status_code == 401
    unknown = customer.import_api_key("sk_live_nobody-knows-its-api-0123456789")["id"]
    assert through(customer, "GET", f"{unknown}/x").json()["reason"] == "PROVIDER_API_UNKNOWN"


def test_a_disconnected_connection_is_not_proxied_from_the_same_second(customer: Customer, provider: str) -> None:
    body = {"kind": "api_key", "end_user_id": "gone", "provider": provider, "api_key": KEY}
    gone = customer.post("/connections", body).raise_for_status().json()["id"]
    assert through(customer, "GET", f"{gone}/x").status_code == 200
    assert customer.delete(f"/connections/{gone}").status_code == 200
    assert through(customer, "GET", f"{gone}/x").status_code in {404, 409}


@pytest.mark.promise("P09")
def test_a_changed_description_of_the_provider_does_not_widen_where_a_credential_goes(
    customer: Customer, key: str, api: Any, superuser: Callable[[str, str], psycopg.Connection[Any]]
) -> None:
    before = len(api.seen)
    with contextlib.closing(superuser("core", "coordinator")) as core:
        # Whoever holds coordinator's database points the connection's API elsewhere; vault's record says where it may go.
        core.execute(
            "update connections set entry = jsonb_set(entry, '{api,base_urls}', %s::jsonb) where id = %s",
            (json.dumps(["https://localhost:1/api"]), key),
        )
        try:
            time.sleep(31)  # until edge asks for the route again
            refused = through(customer, "GET", f"{key}/x")
        finally:
            core.execute(
                "update connections set entry = jsonb_set(entry, '{api,base_urls}', %s::jsonb) where id = %s",
                (json.dumps([api.url, f"{api.url}/second"]), key),
            )
    assert (refused.status_code, refused.json()["reason"]) == (403, "CREDENTIAL_NOT_FOR_THESE_HOSTS")
    assert len(api.seen) == before
