"""Signatures of webhooks, by REST and gRPC; and what connections say of their health, which the Provider says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.oidc import OidcProvider

SECRET = "It's a Secret to Everybody"
GITHUB = {"signature_header": "X-Hub-Signature-256", "prefix": "sha256="}
# The example of GitHub's own page on validating webhook deliveries.
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
BODY = b"Hello, World!"


@pytest.fixture(scope="module")
def hooked(customer: Customer) -> str:
    """A connection with a webhook secret."""
    body = {"kind": "webhook_secret", "end_user_id": "hooked", "provider": "hub", "webhook_secret": SECRET}
    return str(customer.post("/connections", body).raise_for_status().json()["id"])


def verify(customer: Customer, connection: str, headers: dict[str, str], body: bytes, **more: Any) -> Any:
    said = {"headers": headers, "body_base64": base64.b64encode(body).decode(), **more}
    return customer.post(f"/connections/{connection}/webhook-signatures:verify", said)


@pytest.mark.promise("P37")
def test_a_webhooks_signature_is_compared_here_and_its_secret_stays_here(
    customer: Customer, hooked: str, stack: Stack
) -> None:
    good = verify(customer, hooked, {"x-hub-signature-256": SIGNATURE}, BODY, scheme=GITHUB)
    assert (good.status_code, good.json()) == (200, {"valid": True, "reason": ""}), good.text
    assert SECRET not in good.text
    for headers, body, reason in (
        ({"X-Hub-Signature-256": SIGNATURE}, b"Hello, World?", "SIGNATURE_DIFFERS"),
        ({"X-Hub-Signature-256": SIGNATURE[:-1] + "8"}, BODY, "SIGNATURE_DIFFERS"),
        ({"X-Hub-Signature-256": SIGNATURE.removeprefix("sha256=")}, BODY, "SIGNATURE_MISSING"),
        ({}, BODY, "SIGNATURE_MISSING"),
    ):
        bad = verify(customer, hooked, headers, body, scheme=GITHUB)
        assert bad.json() == {"valid": False, "reason": reason}
    metadata = (("authorization", customer.http.headers["authorization"]),)
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        gateway = gateway_pb2_grpc.GatewayStub(channel)
        request = gateway_pb2.VerifyWebhookRequest(
            connection_id=hooked,
            headers=[gateway_pb2.Value(name="X-Hub-Signature-256", value=SIGNATURE)],
            body=BODY,
            scheme=gateway_pb2.WebhookScheme(signature_header="X-Hub-Signature-256", prefix="sha256="),
        )
        assert gateway.VerifyWebhook(request, metadata=metadata, timeout=10).valid
        request.body = b"Hello, World?"
        assert not gateway.VerifyWebhook(request, metadata=metadata, timeout=10).valid


@pytest.mark.promise("P37")
def test_how_a_provider_signs_comes_from_its_entry_and_an_old_message_is_told(customer: Customer) -> None:
    entry = {
        "name": "hooks",
        "display_name": "Hooks",
        "documentation": ["https://example.com/docs"],
        "webhook": {
            "signature_header": "Hooks-Signature",
            "separator": ",",
            "prefix": "v1=",
            "timestamp_prefix": "t=",
            "signed": "{timestamp}.{body}",
            "tolerance_seconds": 300,
        },
    }
    customer.post("/providers", entry).raise_for_status()
    body = {"kind": "webhook_secret", "end_user_id": "hooks", "provider": "hooks", "webhook_secret": SECRET}
    connection = customer.post("/connections", body).raise_for_status().json()["id"]
    customer.delete("/providers/hooks")

    def signed(moment: int, key: str = SECRET) -> dict[str, str]:
        mac = hmac.new(key.encode(), b"%d.%s" % (moment, BODY), hashlib.sha256).hexdigest()
        return {"Hooks-Signature": f"t={moment},v1={'0' * 64},v1={mac}"}

    now = int(time.time())
    assert verify(customer, connection, signed(now), BODY).json() == {"valid": True, "reason": ""}
    old = verify(customer, connection, signed(now - 400), BODY)
    assert old.json() == {"valid": False, "reason": "TIMESTAMP_TOO_OLD"}
    forged = verify(customer, connection, signed(now - 400, "another"), BODY)
    assert forged.json() == {"valid": False, "reason": "SIGNATURE_DIFFERS"}
    moved = {"Hooks-Signature": signed(now - 400)["Hooks-Signature"].replace(f"t={now - 400}", f"t={now}")}
    assert verify(customer, connection, moved, BODY).json() == {"valid": False, "reason": "SIGNATURE_DIFFERS"}


def test_who_may_read_connections_may_not_try_signatures(
    new_customer: Callable[..., Customer], hooked: str, customer: Customer
) -> None:
    refused = verify(new_customer("connections:read"), hooked, {"X-Hub-Signature-256": SIGNATURE}, BODY, scheme=GITHUB)
    assert (refused.status_code, refused.json()["reason"]) == (403, "SCOPE_MISSING")
    unknown = verify(customer, hooked, {"X-Hub-Signature-256": SIGNATURE}, BODY)
    assert (unknown.status_code, unknown.json()["reason"]) == (400, "WEBHOOK_SCHEME_UNKNOWN"), unknown.text


@pytest.fixture
def keyed(customer: Customer, oidc_provider: OidcProvider) -> Iterator[tuple[str, str]]:
    """An API key that its Provider knows; gives the connection and the key."""
    issuer = oidc_provider.issuer
    entry = {
        "name": "keyed",
        "display_name": "Keyed",
        "documentation": ["https://example.com/docs"],
        "api_key": {"in": "header", "name": "Authorization", "prefix": "Bearer "},
        "api": {"base_urls": [issuer]},
        "health_check": {"url": f"{issuer}/me"},
    }
    customer.post("/providers", entry).raise_for_status()
    key = oidc_provider.seed(1)[0]["access_token"]
    body = {"kind": "api_key", "end_user_id": "keyed", "provider": "keyed", "api_key": key}
    yield str(customer.post("/connections", body).raise_for_status().json()["id"]), key
    customer.delete("/providers/keyed")


@pytest.mark.promise("P37")
def test_a_key_that_its_provider_takes_no_more_is_told_by_the_connection_and_not_at_the_first_no(
    keyed: tuple[str, str], customer: Customer, oidc_provider: OidcProvider, superuser: Callable[[str, str], Any]
) -> None:
    connection, key = keyed

    def check() -> dict[str, Any]:
        with superuser("core", "coordinator") as core:
            core.execute("update connections set health_at = now() - interval '2 minutes' where id = %s", (connection,))
        # And at keyservice, which opens it for that once a minute whoever asks.
        with superuser("core", "keyservice_user_credentials") as core:
            core.execute("update connection_keys set last_check_ms = 0 where connection_id = %s", (connection,))
        return dict(customer.post(f"/connections/{connection}/health-checks").raise_for_status().json())

    assert customer.health(connection) == "passing", "the schedule tries what is new by itself"
    assert customer.get(f"/connections/{connection}").json()["state"] == "active"
    soon = customer.post(f"/connections/{connection}/health-checks")
    assert (soon.status_code, soon.json()["reason"]) == (429, "CHECK_TOO_SOON"), soon.text
    client = ("authpipe-e2e", oidc_provider.client_secret)
    oidc_provider.http.post("/token/revocation", data={"token": key}, auth=client).raise_for_status()
    once = check()
    assert (once["state"], once["health"]["state"]) == ("active", "failing"), once
    twice = check()
    assert (twice["state"], twice["state_reason"]) == ("needs_reauth", "CREDENTIAL_REFUSED"), twice
    # It is served all the same: should the check be what is wrong, nobody is cut off by it.
    assert customer.token(connection).json()["api_key"] == key


def test_what_nobody_can_try_is_said_so(customer: Customer) -> None:
    connection = customer.import_api_key("sk_live_nobody-can-try-this")["id"]
    answer = customer.post(f"/connections/{connection}/health-checks")
    assert (answer.status_code, answer.json()["reason"]) == (409, "CREDENTIAL_NOT_CHECKABLE"), answer.text
