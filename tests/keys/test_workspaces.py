"""DEKs and connection keys through their life, and the end of a workspace: nothing of it opens, from no backup."""

from __future__ import annotations

import asyncio
import json
import threading
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
    assert wait_for(lambda: tenant.post(f"/connections/{connection}/refresh").status_code == 200)
    after = tenant.token(connection).json()["access_token"]
    assert after != before
    assert wait_for(lambda: not retired())
    # A refresh still works: what it wrote was read back with version 2.
    assert versions(keys, connection) == {2}


@pytest.mark.parametrize("way", ["at once", "later"])
def test_a_new_connection_key_seals_an_api_key_again_and_it_stays_what_it_is(
    keys: Stack,
    tenant: Customer,
    admin: Callable[..., Any],
    database: Callable[..., Any],
    wait_for: Callable[..., Any],
    way: str,
) -> None:
    connection = tenant.import_api_key(SECRET)["id"]
    shown = tenant.get(f"/connections/{connection}").json()
    rotate = ("rotate-connection", *DOMAIN, tenant.workspace, connection)
    if way == "at once":
        done = admin(*rotate, "--now")
    else:
        assert admin(*rotate).returncode == 0
        assert versions(keys, connection) == {1}, "nothing writes an API key again by itself"
        done = admin("reseal", *DOMAIN, tenant.workspace, connection)
    assert "Records sealed again: 1." in done.stdout, done.stdout
    assert versions(keys, connection) == {2}
    assert tenant.token(connection).json()["api_key"] == SECRET
    assert tenant.get(f"/connections/{connection}").json() == shown
    retired = "select version from retired_connection_keys where connection_id = %s"
    assert wait_for(lambda: not database(retired, connection)), "the suspected key is destroyed"
    again = admin("reseal", *DOMAIN, tenant.workspace, connection)
    assert "on the newest key version already" in again.stdout, again.stdout


def test_tokens_and_client_secrets_are_sealed_again_while_they_are_used_and_refresh_goes_on(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    config = tenant.configure(keys.layout.playground_issuer)["id"]
    connection = tenant.connect(config, "suspicious-too")
    token = tenant.token(connection).json()["access_token"]
    going, answers = True, []

    def read() -> None:
        while going:
            answers.append(tenant.token(connection))

    # So many that some have met the version before in vault when keyservice hears of the new one.
    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(4):
            done = admin("rotate-connection", *DOMAIN, tenant.workspace, connection, "--now")
            assert "Records sealed again: 2." in done.stdout, done.stdout
        secret = admin("rotate-connection", "--domain", "client-secrets", tenant.workspace, config, "--now")
        assert "Records sealed again: 1." in secret.stdout, secret.stdout
    finally:
        going = False
        for reader in readers:
            reader.join()
    assert {(each.status_code, each.json().get("access_token", each.text)) for each in answers} == {(200, token)}
    assert len(answers) > 200
    assert tenant.events(event="INTEGRITY_VIOLATION") == [], "and nobody was alarmed"
    assert versions(keys, connection) == {5}
    # Both the refresh token and the client secret are what they were: the Provider takes them.
    assert wait_for(lambda: tenant.post(f"/connections/{connection}/refresh").status_code == 200)
    assert tenant.token(connection).json()["access_token"] != token


def test_what_is_not_there_is_not_sealed_again_and_an_operator_without_a_coordinator_is_told(
    keys: Stack, tenant: Customer, admin: Callable[..., Any]
) -> None:
    nothing = admin("reseal", *DOMAIN, tenant.workspace, "con_nothing")
    assert (nothing.returncode, "NOT_FOUND" in nothing.stdout) == (1, True), nothing.stdout
    config = json.loads((keys.layout.configs / "operator.json").read_text())
    del config["coordinator"]
    file = keys.layout.configs / "operator-without.json"
    file.write_text(json.dumps(config))
    done = admin("reseal", *DOMAIN, tenant.workspace, "con_nothing", operator="operator-without")
    assert (done.returncode, "does not say where the coordinator is" in done.stderr) == (2, True), done.stderr


def versions(keys: Stack, connection: str) -> set[int]:
    """Gives the key versions that a connection's records are sealed under."""
    return {int.from_bytes(bytes(row[0])[4:8], "big") for row in headers(keys, connection)}


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
    keys: Stack,
    tenant: Customer,
    admin: Callable[..., Any],
    database: Callable[..., Any],
    wait_for: Callable[..., Any],
    grace_seconds: float,
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
    time.sleep(grace_seconds + 0.5)
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
