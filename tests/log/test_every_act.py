"""What promise P31 names, each provoked, when it succeeds and when it does not: it is in the log, with who, what and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe.authority.v1 import authority_pb2
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member

# Promise P31's lines, and the events of each: name and outcome.
ACTS = {
    "token refreshes": {("TOKEN_REFRESHED", "succeeded"), ("REFRESH_FAILED", "failed")},
    "connection creation": {("CONNECTION_CREATED", "succeeded"), ("FLOW_REFUSED", "refused")},
    "connection disconnection": {("CONNECTION_DISCONNECTING", "succeeded"), ("CONNECTION_DISCONNECTED", "succeeded")},
    "provider configuration changes": {
        ("PROVIDER_CONFIG_CREATED", "succeeded"),
        ("PROVIDER_CONFIG_CHANGED", "succeeded"),
        ("PROVIDER_CONFIG_DELETED", "succeeded"),
    },
    "API key creation and revocation": {("API_KEY_CREATED", "succeeded"), ("API_KEY_REVOKED", "succeeded")},
    "member access changes": {
        ("MEMBER_INVITED", "succeeded"),
        ("MEMBER_JOINED", "succeeded"),
        ("MEMBER_ROLE_CHANGED", "succeeded"),
        ("MEMBER_REMOVED", "succeeded"),
        ("ACCESS_REFUSED", "refused"),
    },
    "dashboard logins": {
        ("MEMBER_SIGNED_IN", "succeeded"),
        ("MEMBER_SIGNED_OUT", "succeeded"),
        ("SIGN_IN_REFUSED", "refused"),
    },
    "refused access": {("ACCESS_REFUSED", "refused")},
    "every use of a credential": {("RECORD_KEY_RELEASED", "succeeded"), ("WRITE_KEY_RELEASED", "succeeded")},
}


@pytest.fixture(scope="module")
def busy(
    stack: Stack,
    new_customer: Callable[..., Customer],
    new_member: Callable[..., Member],
    playground: Any,
    wait_for: Callable[..., Any],
) -> Customer:
    """A customer who has done all of it, well and badly."""
    customer = new_customer()
    issuer = stack.layout.playground_issuer
    config = str(customer.configure(issuer)["id"])
    connection = customer.connect(config)
    token = customer.token(connection).json()["access_token"]
    age(stack, connection)
    customer.post(f"/connections/{connection}/refresh").raise_for_status()
    # The Provider ends the grant: the next refresh is refused.
    token = customer.token(connection).json()["access_token"]
    playground.end_family(token)
    age(stack, connection)
    assert customer.post(f"/connections/{connection}/refresh").status_code >= 400
    # The end user does not agree.
    browser, url = customer.begin(config)
    browser.get(customer.allow(browser, url, "deny"))
    customer.http.patch(f"/v1/provider-configs/{config}", json={"display_name": "Renamed"}).raise_for_status()
    other = str(customer.configure(issuer)["id"])
    customer.delete(f"/provider-configs/{other}").raise_for_status()
    customer.delete(f"/connections/{connection}").raise_for_status()
    # An API key comes, goes, and is tried once more; and one is tried for what it may not do.
    asyncio.run(keys(stack, customer, customer.workspace))
    people(customer, new_member)
    wait_for(lambda: customer.get("/audit/events", event="SIGN_IN_REFUSED").json()["events"], 30)
    wait_for(lambda: customer.get("/audit/events", event="ACCESS_REFUSED").json()["events"], 20)
    return customer


def people(customer: Customer, new_member: Callable[..., Member]) -> None:
    """Has members come, change, be refused, sign in and out, and go."""
    owner, other = new_member(customer, "owner"), new_member(customer, "developer")
    assert other.invite("friend@people.example", "auditor").status_code == 403
    other_id = other.http.get("/v1/members").json()["own_id"]
    owner.http.patch(f"/v1/members/{other_id}", json={"role": "auditor"}).raise_for_status()
    signed = other.passkey.get(other.begin_sign_in())
    assert other.finish_sign_in(signed).status_code == 204
    assert other.finish_sign_in(signed).status_code == 401
    assert other.sign_out().status_code == 204
    owner.http.delete(f"/v1/members/{other_id}").raise_for_status()


def age(stack: Stack, connection: str) -> None:
    """Lets a connection's last refresh be a minute ago: one may be forced every ten seconds."""

    for database, statement in (
        ("coordinator", "update connections set refreshed_at = now() - interval '1 minute' where id = %s"),
        ("keyservice_user_credentials", "update connection_keys set last_forced_ms = 0 where connection_id = %s"),
    ):
        with psycopg.connect(**stack.clusters["core"].conninfo("dba", database), autocommit=True) as core:  # type: ignore[arg-type]
            core.execute(statement, (connection,))


async def keys(stack: Stack, customer: Customer, workspace: str) -> None:
    """Makes an API key as the operator, tries what it may not do, revokes it, and tries it again."""
    peer = stack.authority()
    made = await peer.call(
        lambda stub: stub.CreateApiKey,
        authority_pb2.CreateApiKeyRequest(
            workspace_id=workspace, display_name="second", scopes=["connections:read"], request_id="req_test"
        ),
    )
    headers = {"authorization": f"Bearer {made.api_key.decode()}"}
    assert customer.http.get("/v1/audit/events", headers=headers).status_code == 403
    await peer.call(
        lambda stub: stub.RevokeApiKey,
        authority_pb2.RevokeApiKeyRequest(workspace_id=workspace, api_key_id=made.api_key_id, request_id="req_test"),
    )
    await peer.close()


@pytest.mark.promise("P31")
@pytest.mark.parametrize("line", ACTS)
def test_in_the_log_are(line: str, busy: Customer) -> None:
    events = busy.events()
    found = {(event["event"], event["outcome"]) for event in events}
    assert ACTS[line] <= found, found
    for event in events:
        if (event["event"], event["outcome"]) in ACTS[line]:
            assert event["actor"].partition(":")[0] in {"api_key", "member", "end_user", "service", "operator"}
            assert event["request_id"]
            assert event["reason"] or event["outcome"] == "succeeded"
