"""A PostgreSQL superuser who writes himself access gets none (case 14)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe.authority.v1 import authority_pb2, members_pb2
from authpipe.authority.v1.authority_pb2_grpc import AuthorityStub
from authpipe.authority.v1.members_pb2_grpc import MembersStub
from authpipe_devstack.stack import Stack
from authpipe_sensitive import DomainError
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], psycopg.Connection[Any]]
_REUSE_SECONDS = 2.3


@pytest.fixture
def victim(new_customer: Callable[..., Customer]) -> Customer:
    """A customer whose key may only list."""
    return new_customer("connections:read")


def row_of(authority: psycopg.Connection[Any], customer: Customer) -> tuple[str, str]:
    """Finds a customer's API key: workspace and id, the newest one made."""
    row = authority.execute("select workspace_id, api_key_id from api_keys order by created_at desc limit 1").fetchone()
    assert row is not None
    return str(row[0]), str(row[1])


@pytest.mark.case(14)
@pytest.mark.parametrize(
    "change",
    [
        "update api_keys set scopes = scopes || '{tokens:read}' where api_key_id = %(key)s",
        "update api_keys set display_name = 'renamed' where api_key_id = %(key)s",
        "update api_keys set epoch = epoch + 1 where api_key_id = %(key)s",
        "update workspaces set epoch = epoch + 1 where workspace_id = %(workspace)s",
    ],
)
def test_a_changed_row_gives_no_access_and_raises_an_alarm(
    change: str, victim: Customer, superuser: Superuser, wait_for: Callable[..., Any], alarms: Callable[[], int]
) -> None:
    before = alarms()
    with superuser("core", "authority") as authority:
        workspace, key = row_of(authority, victim)
        authority.execute(change, {"workspace": workspace, "key": key})  # type: ignore[arg-type]
    answer = victim.get("/connections")
    assert (answer.status_code, answer.json()["reason"]) == (401, "API_KEY_INVALID")
    assert wait_for(lambda: alarms() > before)


@pytest.mark.case(14)
def test_an_inserted_api_key_gives_no_access(victim: Customer, superuser: Superuser, stack: Stack) -> None:
    with superuser("core", "authority") as authority:
        workspace, key = row_of(authority, victim)
        authority.execute(
            "insert into api_keys select workspace_id, 'key_forged', display_name, %s, scopes, state, epoch, mac"
            " from api_keys where api_key_id = %s",
            (hashlib.sha256(b"guessed").digest(), key),
        )
        # Even with the hash of the victim's own key moved to the forged row.
        authority.execute("update api_keys set key_hash = %s where api_key_id = %s", (b"\x00" * 32, key))
    assert victim.get("/connections").status_code == 401


@pytest.mark.case(14)
@pytest.mark.promise("P31")
def test_a_revoked_key_is_refused_and_stays_so_when_its_old_row_is_put_back(
    victim: Customer, superuser: Superuser, stack: Stack
) -> None:
    assert victim.get("/connections").status_code == 200
    with superuser("core", "authority") as authority:
        workspace, key = row_of(authority, victim)
        old = authority.execute("select epoch, mac, state from api_keys where api_key_id = %s", (key,)).fetchone()
        assert old is not None

        async def revoke() -> None:
            peer = stack.authority()
            request = authority_pb2.RevokeApiKeyRequest(workspace_id=workspace, api_key_id=key, request_id="req_test")
            await peer.call(lambda stub: stub.RevokeApiKey, request)
            await peer.close()

        asyncio.run(revoke())
        time.sleep(_REUSE_SECONDS)
        assert victim.get("/connections").status_code == 401
        authority.execute("update api_keys set epoch = %s, mac = %s, state = %s where api_key_id = %s", (*old, key))
        assert victim.get("/connections").status_code == 401
        authority.execute("update api_keys set state = 'active' where api_key_id = %s", (key,))
        assert victim.get("/connections").status_code == 401


ACTS_OF_AN_OPERATOR: dict[str, tuple[Any, str, Any]] = {
    "revokes the key": (AuthorityStub, "RevokeApiKey", authority_pb2.RevokeApiKeyRequest),
    "revokes all keys": (AuthorityStub, "RevokeApiKeys", authority_pb2.RevokeApiKeysRequest),
    "makes a key": (AuthorityStub, "CreateApiKey", authority_pb2.CreateApiKeyRequest),
    "freezes": (AuthorityStub, "FreezeWorkspace", authority_pb2.FreezeWorkspaceRequest),
    "unfreezes": (AuthorityStub, "UnfreezeWorkspace", authority_pb2.UnfreezeWorkspaceRequest),
    "sets how long the log is kept": (AuthorityStub, "SetAuditRetention", authority_pb2.SetAuditRetentionRequest),
    "invites somebody": (MembersStub, "InviteMember", members_pb2.InviteMemberRequest),
    "lists members": (MembersStub, "ListMembers", members_pb2.ListMembersRequest),
}


@pytest.mark.case(14)
@pytest.mark.promise("P26")
@pytest.mark.parametrize("act", ACTS_OF_AN_OPERATOR)
def test_an_operator_who_acts_on_a_row_that_is_not_ours_changes_nothing_and_it_is_an_alarm(
    act: str,
    victim: Customer,
    superuser: Superuser,
    stack: Stack,
    wait_for: Callable[..., Any],
    alarms: Callable[[], int],
) -> None:
    before = alarms()
    stub_type, method, request_type = ACTS_OF_AN_OPERATOR[act]
    with superuser("core", "authority") as authority:
        workspace, key = row_of(authority, victim)
        query = "select w.*, k.* from workspaces w join api_keys k using (workspace_id) where workspace_id = %s"
        authority.execute("update workspaces set display_name = 'forged' where workspace_id = %s", (workspace,))
        stood = authority.execute(query, (workspace,)).fetchall()
        named = {"workspace_id": workspace, "request_id": "req_test", "api_key_id": key, "display_name": "new",
                 "scopes": ["connections:read"], "days": 30, "email": "new@people.example", "role": "auditor"}  # fmt: skip
        fields = request_type.DESCRIPTOR.fields_by_name

        async def ask() -> None:
            peer = stack.authority(stub_type)
            request = request_type(**{name: value for name, value in named.items() if name in fields})
            try:
                await peer.call(lambda stub: getattr(stub, method), request)
            finally:
                await peer.close()

        with pytest.raises(DomainError) as refused:
            asyncio.run(ask())
        assert refused.value.reason == "API_KEY_INVALID"
        assert authority.execute(query, (workspace,)).fetchall() == stood
    assert wait_for(lambda: alarms() > before)


@pytest.mark.promise("P31")
def test_the_audit_role_cannot_update_or_delete(stack: Stack) -> None:
    with psycopg.connect(**stack.clusters["core"].conninfo("audit", "audit"), autocommit=True) as audit:  # type: ignore[arg-type]
        tables = ("leaves", "bodies", "batches", "certificates", "tile_hashes", "tree_heads", "checkpoints")
        for table in tables:
            assert audit.execute(f"select count(*) from {table}").fetchone() is not None
            (column,) = audit.execute(
                "select column_name from information_schema.columns where table_name = %s limit 1", (table,)
            ).fetchone()
            for statement in (
                f"update {table} set {column} = {column}",
                f"delete from {table}",
                f"truncate {table}",
                f"drop table {table}",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    audit.execute(statement)


@pytest.mark.case(14)
def test_the_attack_sees_that_the_mac_of_a_row_is_not_checked(notices: Callable[..., None]) -> None:
    notices(
        test_a_changed_row_gives_no_access_and_raises_an_alarm,
        (
            "authority",
            "authpipe_gateway_authority.domain.row_mac",
            "return hmac.compare_digest(row_mac(key, table, fields), mac)",
            "return True",
        ),
        change="update api_keys set scopes = scopes || '{tokens:read}' where api_key_id = %(key)s",
    )
