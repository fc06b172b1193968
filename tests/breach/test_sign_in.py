"""Signing in to the dashboard, and joining: a passkey or an invitation that is forged, copied or used twice lets nobody in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.member import Member
from authpipe_testing.passkey import Passkey

Superuser = Callable[[str, str], psycopg.Connection[Any]]
NewMember = Callable[..., Member]


def refused(shop: Customer, wait_for: Callable[..., Any], reason: str) -> bool:
    """Says whether the log tells of a sign-in that was refused for a reason."""
    found = wait_for(
        lambda: [
            event
            for event in shop.get("/audit/events", event="SIGN_IN_REFUSED").json()["events"]
            if event["reason"] == reason
        ],
        20,
    )
    return bool(found)


@pytest.mark.promise("P31")
def test_what_a_passkey_signed_once_signs_in_once(owner: Member, shop: Customer, wait_for: Callable[..., Any]) -> None:
    signed = owner.passkey.get(owner.begin_sign_in())
    assert owner.finish_sign_in(signed).status_code == 204
    again = owner.finish_sign_in(signed)
    assert again.status_code == 401
    assert again.json()["reason"] == "SIGN_IN_REFUSED"
    assert refused(shop, wait_for, "CHALLENGE_USED")


@pytest.mark.parametrize(
    ("lie", "why"),
    [
        ("another origin", "SIGNATURE_INVALID"),
        ("a frame of another site", ""),
        ("nobody verified", "SIGNATURE_INVALID"),
        ("another key", "SIGNATURE_INVALID"),
        ("a challenge of theirs", ""),
        ("an unknown passkey", ""),
        ("another's name", ""),
    ],
)
def test_a_passkey_that_lies_signs_nobody_in(
    lie: str, why: str, owner: Member, shop: Customer, wait_for: Callable[..., Any]
) -> None:
    options, passkey = owner.begin_sign_in(), owner.passkey
    match lie:
        case "another origin":
            passkey.origin = "https://localhost.evil.example"
        case "a frame of another site":
            passkey.cross_origin = True
        case "nobody verified":
            passkey.verifies = False
        case "another key":
            passkey.key = Passkey(passkey.origin).key
        case "a challenge of theirs":
            options["challenge"] = "A" * len(options["challenge"])
        case "an unknown passkey":
            passkey.id = b"never registered"
        case _:
            passkey.user = b"mem_0000000000000000"
    answer = owner.finish_sign_in(passkey.get(options))
    assert (answer.status_code, answer.json()["reason"]) == (401, "SIGN_IN_REFUSED")
    assert "set-cookie" not in answer.headers
    assert not why or refused(shop, wait_for, why)


def test_a_copied_passkey_shows_by_its_count(shop: Customer, stack: Stack, wait_for: Callable[..., Any]) -> None:
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as member:
        member.passkey.count = 5
        url = asyncio.run(stack.invite(shop.workspace, "counted@people.example", "auditor"))
        assert member.join(url).status_code == 204
        assert member.sign_in().status_code == 204
        member.passkey.count = 5  # the copy signs with 6 once more
        assert member.sign_in().status_code == 401
    assert refused(shop, wait_for, "PASSKEY_CLONED")


@pytest.mark.promise("P31")
def test_an_invitation_makes_one_member_and_nobody_afterwards(shop: Customer, stack: Stack, owner: Member) -> None:
    url = asyncio.run(stack.invite(shop.workspace, "once@people.example", "auditor"))
    invitation = url.partition("#")[2]
    ca = str(stack.public_ca.certificate_file)
    with Member(stack.layout.dashboard_url, ca) as first, Member(stack.layout.dashboard_url, ca) as second:
        # Both begin; one is first.
        options = second.begin_joining(invitation).json()
        assert first.join(url).status_code == 204
        late = second.finish_joining(invitation, second.passkey.create(options))
        assert (late.status_code, late.json()["reason"]) == (401, "INVITATION_INVALID")
        assert second.begin_joining(invitation).status_code == 401
        assert second.begin_joining("api_test_" + "0" * 49).status_code == 401
        # What a passkey has signed for one purpose is good for no other.
        assert first.finish_sign_in(first.passkey.get(options)).status_code == 401
    taken = owner.invite("once@people.example", "auditor")
    assert (taken.status_code, taken.json()["reason"]) == (409, "MEMBER_EXISTS")


def test_nobody_registers_a_passkey_under_the_id_of_anothers(shop: Customer, stack: Stack, owner: Member) -> None:
    url = asyncio.run(stack.invite(shop.workspace, "twin@people.example", "auditor"))
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as twin:
        twin.passkey.id = owner.passkey.id
        answer = twin.join(url)
        assert (answer.status_code, answer.json()["reason"]) == (401, "SIGN_IN_REFUSED")
        twin.passkey.id = b"one of their own"
        assert twin.join(url).status_code == 204, "the invitation was not used up"
    assert owner.sign_in().status_code == 204


@pytest.mark.case(14)
def test_an_invitation_that_was_used_makes_nobody_a_member_when_its_row_is_put_back(
    stack: Stack, new_customer: Callable[..., Customer], new_member: NewMember, superuser: Superuser
) -> None:
    owner = new_member(new_customer(), "owner")
    invitation = owner.invite("invited@people.example", "admin").raise_for_status().json()["url"]
    kept = "select * from members where email = 'invited@people.example'"
    with (
        superuser("core", "authority") as authority,
        Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as invited,
        Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as thief,
    ):
        authority.execute(f"create temp table kept as {kept}")
        assert invited.join(invitation).status_code == 204
        columns = "state, invitation_hash, invited_until, credential_id, credential, sign_count, epoch, mac"
        authority.execute(
            f"update members m set ({columns}) = (select {columns} from kept k where k.member_id = m.member_id)"
            " where member_id in (select member_id from kept)"
        )
        assert thief.join(invitation).status_code == 401
        assert thief.http.get("/v1/members").status_code == 401


def test_sign_ins_from_one_address_are_counted(stack: Stack) -> None:
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as guesser:
        answers = [guesser.finish_sign_in({"id": "none"}) for _ in range(70)]
    assert {each.status_code for each in answers} == {401, 429}
    assert answers[-1].json()["reason"] == "TOO_MANY_SIGN_INS"


def test_invitations_that_are_tried_from_one_address_are_counted_and_on_record(
    stack: Stack, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as guesser:
        answers = [guesser.begin_joining("api_test_" + "0" * 49) for _ in range(40)]
    assert {each.status_code for each in answers} == {401, 429}
    assert answers[-1].json()["reason"] == "TOO_MANY_SIGN_INS"

    def noted() -> bool:
        with superuser("core", "audit") as audit:
            query = "select from bodies where name = 'SIGN_IN_REFUSED' and position('INVITATION_INVALID' in record) > 0"
            return audit.execute(query).fetchone() is not None

    assert wait_for(noted)


@pytest.mark.case(14)
def test_an_invitation_whose_row_is_not_ours_begins_nothing_and_is_an_alarm(
    shop: Customer, stack: Stack, superuser: Superuser, wait_for: Callable[..., Any], alarms: Callable[[], int]
) -> None:
    before = alarms()
    invitation = asyncio.run(stack.invite(shop.workspace, "forged@people.example", "auditor")).partition("#")[2]
    with superuser("core", "authority") as authority:
        authority.execute("update members set role = 'owner' where email = 'forged@people.example'")
    with Member(stack.layout.dashboard_url, str(stack.public_ca.certificate_file)) as guest:
        assert guest.begin_joining(invitation).status_code == 401
    assert wait_for(lambda: alarms() > before)


def test_the_attack_sees_that_a_challenge_is_not_used_up(notices: Callable[..., None]) -> None:
    notices(
        test_what_a_passkey_signed_once_signs_in_once,
        (
            "authority",
            "authpipe_gateway_authority.store.members",
            "if used.one_or_none() is None:",
            "if False:",
        ),
    )


@pytest.mark.case(14)
def test_the_attack_sees_that_a_used_invitation_leaves_the_epoch_as_it_is(notices: Callable[..., None]) -> None:
    notices(
        test_an_invitation_that_was_used_makes_nobody_a_member_when_its_row_is_put_back,
        (
            "authority",
            "authpipe_gateway_authority.store.members",
            "if current.invitation_hash and not member.invitation_hash:",
            "if False:",
        ),
    )
