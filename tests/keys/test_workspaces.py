"""DEKs and connection keys through their life, and the end of a workspace: nothing of it opens, from no backup."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

DOMAIN = ("--domain", "user-credentials")
SECRET = "sk_live_of-a-workspace-0123456789"


@pytest.mark.promise("P03")
def test_a_new_dek_version_takes_the_connection_keys_and_touches_no_credential(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    ids = [tenant.import_api_key(f"{SECRET}-{number}")["id"] for number in range(5)]
    records = stored(keys, tenant)
    assert len(records) == 5
    done = admin("rotate-dek", *DOMAIN, tenant.workspace)
    assert "DEK version 2 is primary" in done.stdout, done.stdout

    def deks() -> list[Any]:
        return list(
            database("select version, state from deks where workspace_id = %s order by version", tenant.workspace)
        )

    assert wait_for(lambda: deks() == [(1, "destroyed"), (2, "primary")]), deks()
    assert database("select distinct dek_version from connection_keys where workspace_id = %s", tenant.workspace) == [
        (2,)
    ]
    assert database("select wrapped from deks where workspace_id = %s and version = 1", tenant.workspace) == [(b"",)]
    assert [tenant.token(each).json()["api_key"] for each in ids] == [f"{SECRET}-{number}" for number in range(5)]
    assert stored(keys, tenant) == records, "no credential was touched"
    shown = admin("workspace", *DOMAIN, tenant.workspace).stdout
    assert "destroyed" in shown
    assert "primary" in shown


def stored(keys: Stack, tenant: Customer) -> list[tuple[Any, ...]]:
    """Gives what vault holds of a workspace."""
    with psycopg.connect(**keys.clusters["vault"].conninfo("dba", "vault"), autocommit=True) as connection:  # type: ignore[arg-type]
        return connection.execute(
            "select * from records where workspace_id = %s order by connection_id, record_class", (tenant.workspace,)
        ).fetchall()


def test_a_workspace_without_keys_and_a_connection_without_one_are_said_to_have_none(
    tenant: Customer, admin: Callable[..., Any]
) -> None:
    assert "KEY_NOT_FOUND" in admin("rotate-dek", *DOMAIN, tenant.workspace).stdout
    assert "KEY_NOT_FOUND" in admin("rotate-connection", *DOMAIN, tenant.workspace, "con_nothing").stdout
    assert "KEY_NOT_FOUND" in admin("cancel-erasure", *DOMAIN, tenant.workspace).stdout


def test_a_new_connection_key_seals_from_the_next_write_on_and_the_old_one_goes_when_no_record_is_on_it(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    config = tenant.configure(keys.layout.playground_issuer)["id"]
    connection = tenant.connect(config, "suspicious")
    before = tenant.token(connection).json()["access_token"]
    done = admin("rotate-connection", *DOMAIN, tenant.workspace, connection)
    assert "Key version 2 seals from now on" in done.stdout, done.stdout

    def retired() -> list[Any]:
        return list(database("select version from retired_connection_keys where connection_id = %s", connection))

    # What is stored is on version 1 still, and opens.
    assert tenant.token(connection).json()["access_token"] == before
    time.sleep(2)
    assert retired() == [(1,)], "records are on it"
    # The next write, a refresh, moves both records; then nothing needs the old version.
    assert wait_for(lambda: tenant.post(f"/connections/{connection}/refresh").status_code == 200, 15)
    after = tenant.token(connection).json()["access_token"]
    assert after != before
    assert wait_for(lambda: not retired())
    # A refresh still works: what it wrote was read back with version 2.
    assert {int.from_bytes(bytes(row[0])[4:8], "big") for row in headers(keys, connection)} == {2}


def headers(keys: Stack, connection_id: str) -> list[tuple[Any, ...]]:
    """Gives the AP1 headers of a connection's records."""
    with psycopg.connect(**keys.clusters["vault"].conninfo("dba", "vault"), autocommit=True) as connection:  # type: ignore[arg-type]
        return connection.execute("select record from records where connection_id = %s", (connection_id,)).fetchall()


def test_an_erasure_with_a_delay_refuses_at_once_and_can_be_cancelled(
    tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    assert tenant.token(connection).status_code == 200
    done = admin("erase", *DOMAIN, tenant.workspace, "--days", "30", "--yes")
    assert "Nothing of it opens from now on" in done.stdout, done.stdout
    assert "replicas have not said" not in done.stdout, "every replica acknowledged that it forgot"
    refused = [tenant.token(connection) for _ in range(6)]
    assert {(each.status_code, each.json()["reason"]) for each in refused} == {(410, "WORKSPACE_KEYS_ERASED")}
    body = {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": SECRET}
    assert tenant.post("/connections", body).status_code == 410, "and nothing new is stored"
    assert "KEY_NOT_FOUND" not in admin("cancel-erasure", *DOMAIN, tenant.workspace).stdout
    assert tenant.token(connection).json()["api_key"] == SECRET
    assert tenant.post("/connections", body).status_code == 201
    assert admin("erase", *DOMAIN, tenant.workspace, "--days", "31", "--yes").returncode == 2


@pytest.mark.promise("P29")
def test_a_workspace_that_is_erased_stays_erased_and_no_other_is_touched(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    workspace, key = asyncio.run(keys.create_workspace("beside it"))
    with Customer(keys.layout.rest_url, str(keys.public_ca.certificate_file), key.decode(), workspace) as other:
        kept = other.import_api_key(SECRET)["id"]
        assert admin("erase", *DOMAIN, tenant.workspace, "--days", "0", "--yes").returncode == 0
        assert database("select state, wrapped from deks where workspace_id = %s", tenant.workspace) == [
            ("destroyed", b"")
        ]
        assert tenant.token(connection).json()["reason"] == "WORKSPACE_KEYS_ERASED"
        assert "KEY_NOT_FOUND" in admin("cancel-erasure", *DOMAIN, tenant.workspace).stdout, "there is no way back"
        body = {"kind": "api_key", "end_user_id": "x", "provider": "p", "api_key": SECRET}
        assert tenant.post("/connections", body).status_code == 410
        assert other.token(kept).json()["api_key"] == SECRET


@pytest.mark.timeout(120)
def test_drill_a_backup_of_keyservice_brings_an_erased_workspace_back_until_its_kek_version_is_destroyed(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    backup = database("select version, kek_version, wrapped, state from deks where workspace_id = %s", tenant.workspace)
    kek = backup[0][1]
    assert admin("erase", *DOMAIN, tenant.workspace, "--days", "0", "--yes").returncode == 0
    assert tenant.token(connection).status_code == 410

    def restore() -> None:
        database("delete from workspace_erasures where workspace_id = %s", tenant.workspace)
        for version, kek_version, wrapped, state in backup:
            database(
                "update deks set kek_version = %s, wrapped = %s, state = %s where workspace_id = %s and version = %s",
                kek_version,
                wrapped,
                state,
                tenant.workspace,
                version,
            )

    # The backup of keyservice's own database, put back: the KEK version lives, so it opens. This is the bound.
    restore()
    assert wait_for(lambda: tenant.token(connection).status_code == 200)
    assert admin("erase", *DOMAIN, tenant.workspace, "--days", "0", "--yes").returncode == 0
    # The KEK is rotated, and the version that the backup is on destroyed by two.
    assert admin("rotate", *DOMAIN).returncode == 0
    disabled = "select state from kek_versions where version = %s"
    assert wait_for(lambda: database(disabled, kek) == [("disabled",)])
    time.sleep(2.5)
    for operator in ("operator", "operator-2"):
        assert admin("destroy", *DOMAIN, "--version", str(kek), operator=operator).returncode == 0
    assert wait_for(lambda: database("select erased from kek_versions where version = %s", kek) == [(True,)])
    # The same backup again: it is bytes now.
    restore()
    time.sleep(1.5)
    refused = tenant.token(connection)
    assert refused.status_code == 404, refused.text
    assert refused.json()["reason"] == "NOT_FOUND"
    assert admin("erase", *DOMAIN, tenant.workspace, "--days", "0", "--yes").returncode == 0
