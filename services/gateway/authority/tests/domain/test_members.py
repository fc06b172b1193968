"""Roles: none yields a credential, nobody rises by themselves, and an owner stays, whatever is tried in whatever order."""

from __future__ import annotations

import pytest
from authpipe_gateway_authority.domain.acts import ACTS
from authpipe_gateway_authority.domain.api_keys import SCOPES
from authpipe_gateway_authority.domain.members import ROLES, Change, MemberRow, given_role, invited, removed
from authpipe_gateway_authority.errors import LastOwnerError, MemberExistsError, NoSuchMemberError, RoleError
from authpipe_sensitive import DomainError, Secret
from hypothesis import given
from hypothesis import strategies as st

_RANK = {role: rank for rank, role in enumerate(ROLES)}


def member(number: int, role: str, state: str = "active") -> MemberRow:
    return MemberRow("ws_1", f"mem_{number}", f"m{number}@people.example", role, state)


@pytest.mark.promise("P09")
@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_do_what_yields_a_key_to_open_a_credential(role: str) -> None:
    yields = {act.name for act in ACTS.values() if act.purpose in {"serve", "proxy"} or act.name == "refresh"}
    assert yields == {"serve", "proxy", "verify_webhook", "refresh"}
    assert not {act.name for act in ACTS.values() if act.scope in ROLES[role]} & yields


def test_no_api_key_may_have_a_scope_over_members() -> None:
    assert not {scope for scope in SCOPES if scope.startswith("members:")}
    assert {act.scope for act in ACTS.values() if act.name.endswith(("member", "members", "member_role"))} == {
        "members:read",
        "members:write",
    }


acts = st.one_of(
    st.tuples(st.just("invite"), st.integers(0, 7), st.sampled_from(list(ROLES))),
    st.tuples(st.just("role"), st.integers(0, 7), st.sampled_from(list(ROLES))),
    st.tuples(st.just("remove"), st.integers(0, 7), st.just("")),
)


@pytest.mark.promise("P31")
@given(st.lists(st.tuples(st.integers(0, 7), acts), max_size=40))
def test_an_owner_stays_and_nobody_touches_or_makes_anyone_above_themselves(
    steps: list[tuple[int, tuple[str, int, str]]],
) -> None:
    members = {each.member_id: each for each in (member(0, "owner"), member(1, "admin"), member(2, "auditor"))}
    for acting, (what, target, role) in steps:
        who = members.get(f"mem_{acting}")
        before = members.get(f"mem_{target}")
        try:
            change = _change(list(members.values()), f"mem_{acting}", what, f"mem_{target}", role, target)
        except DomainError:
            continue
        assert who is not None
        assert who.state == "active"
        rank = _RANK[who.role]
        assert rank >= _RANK[change.member.role]
        assert "members:write" in ROLES[who.role]
        if what != "invite":
            assert before is not None
            assert rank >= _RANK[before.role]
            assert change.takes_away
            assert what == "remove" or target != acting
        members[change.member.member_id] = change.member
        assert any(each.role == "owner" and each.state == "active" for each in members.values())


def _change(members: list[MemberRow], acting: str, what: str, target: str, role: str, number: int) -> Change:
    if what == "invite":
        if any(each.member_id == target for each in members):
            raise MemberExistsError
        return invited(members, acting, member(number, role))
    if what == "role":
        return given_role(members, acting, target, role)
    return removed(members, acting, target)


def test_an_operator_has_no_rank_and_may_do_all_but_take_the_last_owner_away() -> None:
    alone = [member(0, "owner"), member(1, "owner", "invited"), member(2, "owner", "removed")]
    assert invited(alone, "", member(3, "owner")).member.role == "owner"
    for act in (lambda: removed(alone, "", "mem_0"), lambda: given_role(alone, "", "mem_0", "admin")):
        with pytest.raises(LastOwnerError):
            act()
    with pytest.raises(NoSuchMemberError):
        removed(alone, "", "mem_2")


def test_a_member_who_lost_the_role_since_the_grant_was_signed_invites_nobody() -> None:
    with pytest.raises(RoleError):
        invited([member(0, "owner"), member(1, "auditor")], "mem_1", member(2, "auditor"))
    with pytest.raises(RoleError):
        invited([member(0, "owner"), member(1, "owner", "removed")], "mem_1", member(2, "auditor"))


def test_whoever_is_removed_leaves_no_passkey_and_no_address_behind() -> None:
    row = MemberRow("ws_1", "mem_1", "m@people.example", "admin", "active", credential_id=b"id", credential=b"key")
    gone = removed([member(0, "owner"), row], "mem_0", "mem_1").member
    assert gone.email == ""
    assert (gone.state, gone.credential_id, gone.credential, gone.invitation_hash) == ("removed", b"", b"", b"")


@pytest.mark.case(14)
def test_every_field_of_a_members_row_is_under_its_mac() -> None:
    key = Secret(b"k" * 32)
    row = MemberRow("ws_1", "mem_1", "m@x.example", "admin", "active", b"i", 5, b"c", b"k", 1).sealed(key, 3)
    assert row.is_genuine(key)
    for field, other in (
        ("workspace", "ws_2"), ("member_id", "mem_2"), ("email", "n@x.example"), ("role", "owner"), ("state", "removed"),
        ("invitation_hash", b"j"), ("invited_until", 6), ("credential_id", b"d"), ("credential", b"l"),
        ("sign_count", 0), ("epoch", 4),
    ):  # fmt: skip
        changed = {name: getattr(row, name) for name in row.__dataclass_fields__} | {field: other}
        assert not MemberRow(**changed).is_genuine(key), field
