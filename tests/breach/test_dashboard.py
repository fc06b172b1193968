"""A session of the dashboard that is stolen, forged or lured gives no credential, and nothing of another workspace."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import psycopg
import pytest
from authpipe.gateway.v1 import gateway_pb2, gateway_pb2_grpc
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.member import SESSION_COOKIE, Member

Superuser = Callable[[str, str], psycopg.Connection[Any]]
NewMember = Callable[..., Member]
ROLES = ("auditor", "developer", "admin", "owner")
# For how long edge reuses a verdict.
_REUSE_SECONDS = 2.3


@pytest.fixture(scope="module")
def people(shop: Customer, new_member: NewMember) -> dict[str, Member]:
    """A member of each role."""
    return {role: new_member(shop, role) for role in ROLES}


@pytest.mark.promise("P09", "P31")
@pytest.mark.parametrize("role", ROLES)
def test_no_role_has_a_credential_by_any_route(
    role: str, people: dict[str, Member], shop: Customer, stack: Stack
) -> None:
    connection = shop.import_api_key("sk_live_what-no-session-sees-0123456789")["id"]
    member = people[role]
    proof = {"method": "GET", "url": "https://api.example/x"}
    webhook = {"body": "e30=", "headers": {}}
    tried = [
        member.http.get(f"/v1/connections/{connection}/token"),
        member.http.post(f"/v1/connections/{connection}/refresh"),
        member.http.get(f"/v1/proxy/{connection}/v1/me"),
        member.http.post(f"/v1/connections/{connection}/dpop-proofs", json=proof),
        member.http.post(f"/v1/connections/{connection}/webhook-signatures:verify", json=webhook),
    ]
    bearer = {"authorization": f"Bearer {member.session}"}
    tried += [member.http.get(f"/v1/connections/{connection}/token", headers=bearer)]
    tried += [member.http.get(f"/v1/proxy/{connection}/v1/me", headers=bearer)]
    for answer in tried:
        assert answer.status_code in {400, 401, 403}, (answer.request.url.path, answer.text)
        assert "sk_live" not in answer.text
    credentials = grpc.ssl_channel_credentials(stack.public_ca.certificate_file.read_bytes())
    with grpc.secure_channel(stack.layout.grpc_address, credentials) as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)
        for metadata in (
            (("authorization", bearer["authorization"]),),
            (("cookie", f"{SESSION_COOKIE}={member.session}"),),
        ):
            with pytest.raises(grpc.RpcError) as error:
                stub.GetToken(gateway_pb2.GetTokenRequest(connection_id=connection), metadata=metadata, timeout=10)
            assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    shown = member.http.get(f"/v1/connections/{connection}").raise_for_status()
    assert "what-no-session-sees" not in shown.text


@pytest.mark.promise("P31")
def test_a_session_shows_nothing_of_another_workspace(
    people: dict[str, Member], stranger: Customer, new_member: NewMember
) -> None:
    connection = stranger.import_api_key("sk_live_of-another-workspace-0123456789")["id"]
    theirs = new_member(stranger, "admin")
    (their_id,) = theirs.members().values()
    mine = people["owner"].http
    assert mine.get(f"/v1/connections/{connection}").status_code == 404
    assert mine.delete(f"/v1/connections/{connection}").status_code == 404
    assert mine.patch(f"/v1/members/{their_id}", json={"role": "auditor"}).status_code == 404
    assert mine.delete(f"/v1/members/{their_id}").status_code == 404
    assert theirs.members(), "and they are signed in as before"
    assert not mine.get("/v1/audit/events", params={"id": connection}).json()["events"]


@pytest.mark.promise("P16")
@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", ""])
def test_a_page_of_another_site_does_nothing_with_a_members_cookie(site: str, owner: Member) -> None:
    lured = {"sec-fetch-site": site, "origin": "https://evil.example"}
    before = owner.members()
    tried = [
        owner.http.post("/v1/members", json={"email": "evil@evil.example", "role": "owner"}, headers=lured),
        owner.http.post("/v1/workspace:freeze", json={}, headers=lured),
        owner.http.get("/v1/audit/events", headers=lured),
        owner.http.post("/dashboard/sign-in:begin", headers=lured),
        owner.http.post("/dashboard/sign-out", headers=lured),
    ]
    assert {(each.status_code, each.json()["reason"]) for each in tried} == {(403, "CROSS_ORIGIN_REFUSED")}
    assert owner.members() == before


def test_the_cookie_of_a_session_is_for_this_host_over_tls_and_for_no_script(owner: Member) -> None:
    (cookie,) = owner.sign_in().headers.get_list("set-cookie")
    parts = {part.strip().lower() for part in cookie.split(";")[1:]}
    assert cookie.startswith("__Host-")
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= parts
    assert not any(part.startswith("domain") for part in parts)


@pytest.mark.promise("P31")
def test_nobody_rises_above_their_role_and_the_last_owner_stays(
    new_customer: Callable[..., Customer], new_member: NewMember, wait_for: Callable[..., Any]
) -> None:
    customer = new_customer()
    owner, admin, auditor = (new_member(customer, role) for role in ("owner", "admin", "auditor"))
    ids = owner.members()
    by_role = {email.partition("-")[0]: member_id for email, member_id in ids.items()}

    def reason(answer: Any) -> tuple[int, str]:
        return answer.status_code, answer.json()["reason"]

    assert reason(admin.invite("new@people.example", "owner")) == (403, "ROLE_INSUFFICIENT")
    assert reason(admin.http.delete(f"/v1/members/{by_role['owner']}")) == (403, "ROLE_INSUFFICIENT")
    mine = admin.http.patch(f"/v1/members/{by_role['admin']}", json={"role": "auditor"})
    assert reason(mine) == (403, "ROLE_INSUFFICIENT"), "nobody changes their own role"
    assert reason(auditor.invite("new@people.example", "auditor")) == (403, "ROLE_INSUFFICIENT")
    assert reason(auditor.http.post("/v1/workspace:freeze", json={})) == (403, "ROLE_INSUFFICIENT")
    assert reason(owner.http.delete(f"/v1/members/{by_role['owner']}")) == (409, "LAST_OWNER")
    assert reason(customer.post("/members", {"email": "key@people.example", "role": "owner"})) == (403, "SCOPE_MISSING")
    assert owner.members() == ids
    # Whoever is given another role signs in again; whoever is removed does not.
    owner.http.patch(f"/v1/members/{by_role['admin']}", json={"role": "auditor"}).raise_for_status()
    assert admin.http.get("/v1/members").status_code == 401
    assert admin.sign_in().status_code == 204
    assert reason(admin.invite("new@people.example", "auditor")) == (403, "ROLE_INSUFFICIENT")
    owner.http.delete(f"/v1/members/{by_role['auditor']}").raise_for_status()
    assert auditor.http.get("/v1/audit/events").status_code == 401
    assert auditor.sign_in().status_code == 401
    assert customer.get("/connections").status_code == 200, "API keys go on"
    events = wait_for(lambda: customer.get("/audit/events", event="MEMBER_REMOVED").json()["events"], 20)
    assert (events[0]["target"], events[0]["actor"]) == (by_role["auditor"], f"member:{by_role['owner']}")


@pytest.mark.case(14)
@pytest.mark.parametrize(
    "change",
    [
        "update members set role = 'owner' where member_id = %(member)s",
        "update members set credential = credential || '\\x00' where member_id = %(member)s",
        "update dashboard_sessions set expires_at = expires_at + 86400 where member_id = %(member)s",
        "update dashboard_sessions set member_id = %(other)s where member_id = %(member)s",
    ],
)
def test_a_superuser_who_writes_a_member_access_gives_none_and_raises_an_alarm(
    change: str,
    shop: Customer,
    new_member: NewMember,
    superuser: Superuser,
    wait_for: Callable[..., Any],
    alarms: Callable[[], int],
) -> None:
    member, other = new_member(shop, "auditor"), new_member(shop, "owner")
    ids = {"member": own_id(member), "other": own_id(other)}
    before = alarms()
    with superuser("core", "authority") as authority:
        authority.execute(change, ids)  # type: ignore[arg-type]
    time.sleep(_REUSE_SECONDS)
    answer = member.invite("evil@evil.example", "owner")
    assert answer.status_code == 401, answer.text
    assert wait_for(lambda: alarms() > before)


def own_id(member: Member) -> str:
    """Gives a member's own id."""
    return str(member.http.get("/v1/members").raise_for_status().json()["own_id"])


@pytest.mark.case(14)
@pytest.mark.parametrize("how", ["by removal", "by signing out"])
def test_a_session_that_was_ended_stays_so_when_its_row_is_put_back(
    how: str, new_customer: Callable[..., Customer], new_member: NewMember, superuser: Superuser
) -> None:
    customer = new_customer()
    owner, member = new_member(customer, "owner"), new_member(customer, "admin")
    member_id = own_id(member)
    cookie = {"cookie": f"{SESSION_COOKIE}={member.session}"}
    with superuser("core", "authority") as authority:
        authority.execute(
            "create temp table kept as select * from dashboard_sessions where member_id = %s", (member_id,)
        )
        if how == "by removal":
            owner.http.delete(f"/v1/members/{member_id}").raise_for_status()
        else:
            assert member.sign_out().status_code == 204
        authority.execute("insert into dashboard_sessions select * from kept")
        time.sleep(_REUSE_SECONDS)
        member.http.cookies.clear()
        assert member.http.get("/v1/members", headers=cookie).status_code == 401
    assert owner.http.get("/v1/members").status_code == 200, "others stay signed in"
    assert customer.get("/connections").status_code == 200, "and API keys go on"


@pytest.mark.promise("P27")
def test_in_a_frozen_workspace_members_read_the_log_and_change_nothing_but_to_take_access_away(
    new_customer: Callable[..., Customer], new_member: NewMember
) -> None:
    customer = new_customer()
    owner, auditor = new_member(customer, "owner"), new_member(customer, "auditor")
    owner.http.post("/v1/workspace:freeze", json={}).raise_for_status()
    assert owner.http.get("/v1/audit/events").status_code == 200
    frozen = owner.invite("new@people.example", "auditor")
    assert (frozen.status_code, frozen.json()["reason"]) == (403, "WORKSPACE_FROZEN")
    assert owner.http.delete(f"/v1/members/{own_id(auditor)}").status_code == 204
    assert auditor.http.get("/v1/members").status_code == 401


@pytest.mark.case(14)
def test_signing_out_of_a_workspace_whose_row_is_not_ours_is_an_alarm(
    new_customer: Callable[..., Customer],
    new_member: NewMember,
    superuser: Superuser,
    wait_for: Callable[..., Any],
    alarms: Callable[[], int],
) -> None:
    customer = new_customer()
    owner = new_member(customer, "owner")
    before = alarms()
    with superuser("core", "authority") as authority:
        query = "update workspaces set display_name = 'forged' where workspace_id = %s"
        authority.execute(query, (customer.workspace,))
    assert owner.http.post("/dashboard/sign-out").status_code == 401
    assert wait_for(lambda: alarms() > before)


@pytest.mark.case(14)
def test_the_attack_sees_that_the_mac_of_a_members_row_is_not_checked(notices: Callable[..., None]) -> None:
    notices(
        test_a_superuser_who_writes_a_member_access_gives_none_and_raises_an_alarm,
        (
            "authority",
            "authpipe_gateway_authority.domain.row_mac",
            "return hmac.compare_digest(row_mac(key, table, fields), mac)",
            "return True",
        ),
        change="update members set role = 'owner' where member_id = %(member)s",
    )


@pytest.mark.promise("P09")
def test_the_attack_sees_that_a_role_may_use_credentials(notices: Callable[..., None]) -> None:
    notices(
        test_no_role_has_a_credential_by_any_route,
        (
            "authority",
            "authpipe_gateway_authority.domain.members",
            '_AUDITOR = ("audit:read",',
            '_AUDITOR = ("proxy:use", "audit:read",',
        ),
        role="auditor",
    )


@pytest.mark.promise("P16")
def test_the_attack_sees_that_it_is_not_asked_which_page_sends_a_cookie(notices: Callable[..., None]) -> None:
    notices(
        test_a_page_of_another_site_does_nothing_with_a_members_cookie,
        (
            "edge",
            "authpipe_gateway_edge.rest.api",
            'if request.headers.get("sec-fetch-site", "") != "same-origin":',
            "if False:",
        ),
        site="cross-site",
    )


@pytest.mark.case(14)
def test_the_attack_sees_that_a_session_is_deleted_and_no_more(notices: Callable[..., None]) -> None:
    notices(
        test_a_session_that_was_ended_stays_so_when_its_row_is_put_back,
        (
            "authority",
            "authpipe_gateway_authority.store.members",
            "await self._epochs.next(connection, found, keys, ended=token_hash)",
            'await connection.execute(sa.text("delete from dashboard_sessions where token_hash = :h"), {"h": token_hash})',
        ),
        how="by signing out",
    )
