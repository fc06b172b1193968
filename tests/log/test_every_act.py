"""What promise P31 names, each provoked, when it succeeds and when it does not: it is in the log, with who, what and why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe.authority.v1 import authority_pb2
from authpipe_devstack.stack import Stack
from authpipe_rpc import PeerRefused
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member

# Promise P31's lines, and the events of each, when it succeeds and when it does not: name, outcome, and who (a kind of actor).
ACTS = {
    "token refreshes": {("TOKEN_REFRESHED", "succeeded", "api_key"), ("REFRESH_FAILED", "failed", "api_key")},
    "connection creation": {("CONNECTION_CREATED", "succeeded", "end_user"), ("FLOW_REFUSED", "refused", "end_user")},
    "connection disconnection": {
        ("CONNECTION_DISCONNECTING", "succeeded", "api_key"),
        ("CONNECTION_DISCONNECTED", "succeeded", "api_key"),
        ("ACCESS_REFUSED", "refused", "api_key"),
    },
    "provider configuration changes": {
        ("PROVIDER_CONFIG_CREATED", "succeeded", "api_key"),
        ("PROVIDER_CONFIG_CHANGED", "succeeded", "api_key"),
        ("PROVIDER_CONFIG_DELETED", "succeeded", "api_key"),
        ("ACCESS_REFUSED", "refused", "api_key"),
    },
    "API key creation and revocation": {
        ("API_KEY_CREATED", "succeeded", "operator"),
        ("API_KEY_REVOKED", "succeeded", "operator"),
        ("ACCESS_REFUSED", "refused", "operator"),
    },
    "member access changes": {
        ("MEMBER_INVITED", "succeeded", "operator"),
        ("MEMBER_JOINED", "succeeded", "member"),
        ("MEMBER_ROLE_CHANGED", "succeeded", "member"),
        ("MEMBER_REMOVED", "succeeded", "member"),
        ("ACCESS_REFUSED", "refused", "member"),
    },
    "dashboard logins": {
        ("MEMBER_SIGNED_IN", "succeeded", "member"),
        ("MEMBER_SIGNED_OUT", "succeeded", "member"),
        ("SIGN_IN_REFUSED", "refused", "member"),
    },
    "every use of a credential": {
        ("RECORD_KEY_RELEASED", "succeeded", "api_key"),
        ("WRITE_KEY_RELEASED", "succeeded", "api_key"),
        ("RECORDS_REFUSED", "refused", "api_key"),
    },
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
    assert customer.token(connection).status_code in {404, 409}, "it is disconnected, and asked for"
    # An API key comes, goes, and is tried once more; and one is tried for what it may not do.
    asyncio.run(keys(stack, customer, connection, config))
    people(customer, new_member)
    # Each service delivers its own events, and in batches: none of them says that those of another, or of a next batch, are there.
    wait_for(lambda: set().union(*ACTS.values()) <= {kind_of(event) for event in customer.events()})
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


async def keys(stack: Stack, customer: Customer, connection: str, config: str) -> None:
    """Makes an API key as the operator, tries what it may not do, revokes it, and tries what no operator can."""
    peer = stack.authority()

    def key(*scopes: str) -> authority_pb2.CreateApiKeyRequest:
        return authority_pb2.CreateApiKeyRequest(
            workspace_id=customer.workspace, display_name="second", scopes=scopes, request_id="req_test"
        )

    made = await peer.call(lambda stub: stub.CreateApiKey, key("connections:read"))
    headers = {"authorization": f"Bearer {made.api_key.decode()}"}
    for path in ("/v1/audit/events", f"/v1/connections/{connection}", f"/v1/provider-configs/{config}"):
        method = "GET" if path == "/v1/audit/events" else "DELETE"
        assert customer.http.request(method, path, headers=headers).status_code == 403
    revocation = authority_pb2.RevokeApiKeyRequest(
        workspace_id=customer.workspace, api_key_id=made.api_key_id, request_id="req_test"
    )
    await peer.call(lambda stub: stub.RevokeApiKey, revocation)
    with pytest.raises(PeerRefused):
        await peer.call(lambda stub: stub.CreateApiKey, key("everything"))
    await peer.close()


@pytest.mark.promise("P31")
@pytest.mark.parametrize("line", ACTS)
def test_in_the_log_are(line: str, busy: Customer) -> None:
    events = busy.events()
    found = {kind_of(event) for event in events}
    assert ACTS[line] <= found, found
    for event in events:
        if kind_of(event) in ACTS[line]:
            assert event["request_id"]
            assert event["reason"] or event["outcome"] == "succeeded"


def kind_of(event: dict[str, str]) -> tuple[str, str, str]:
    return event["event"], event["outcome"], event["actor"].partition(":")[0]


@pytest.mark.promise("P31")
def test_an_act_that_was_refused_says_on_what_it_was(busy: Customer, wait_for: Callable[..., Any]) -> None:
    def targets(name: str) -> set[str]:
        return {event["target"] for event in busy.events(event=name)}

    (deleted,) = targets("CONNECTION_DISCONNECTED")
    assert wait_for(lambda: deleted in targets("ACCESS_REFUSED")), targets("ACCESS_REFUSED")
    assert wait_for(lambda: any(each.startswith("pc_") for each in targets("ACCESS_REFUSED")))
