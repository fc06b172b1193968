"""The life of a KEK, as operators see it: made, primary, active, disabled, destroyed by two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer
from authpipe_testing.softhsm import find_module

DOMAIN = ("--domain", "user-credentials")


def states(database: Callable[..., Any]) -> dict[int, str]:
    return dict(database("select version, state from kek_versions order by version"))


def primary(database: Callable[..., Any]) -> int:
    return int(database("select version from kek_versions where state = 'primary'")[0][0])


@pytest.mark.promise("P06")
@pytest.mark.promise("P04")
def test_a_rotation_moves_every_dek_and_disables_the_version_that_none_is_on(
    tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    connection = tenant.import_api_key("sk_live_before-a-rotation-0123456789")["id"]
    before = primary(database)
    wrapped = database("select wrapped from deks where workspace_id = %s", tenant.workspace)
    done = admin("rotate", *DOMAIN)
    assert done.returncode == 0, done.stdout
    assert f"Version {before + 1} is primary" in done.stdout
    moved = database("select kek_version, wrapped from deks where workspace_id = %s", tenant.workspace)
    assert moved[0][0] == before + 1
    assert moved[0][1] != wrapped[0][0]
    assert wait_for(lambda: states(database)[before] == "disabled")
    assert database("select count(*) from deks where kek_version not in (0, %s)", before + 1) == [(0,)]
    assert tenant.token(connection).json()["api_key"] == "sk_live_before-a-rotation-0123456789"
    listed = admin("list", *DOMAIN)
    assert "primary" in listed.stdout
    assert "disabled" in listed.stdout


@pytest.mark.promise("P06")
def test_a_version_becomes_primary_only_after_every_replica_has_opened_its_canary(
    keys: Stack,
    tenant: Customer,
    admin: Callable[..., Any],
    database: Callable[..., Any],
    wait_for: Callable[..., Any],
) -> None:
    before = primary(database)
    second = keys.pid("keyservice-user-credentials-2")
    assert second, "it runs"
    os.kill(second, signal.SIGSTOP)
    try:
        # However long commands take here, it counts as living; the other one says anew when it was seen.
        living = "seen_at > now() - interval '10 seconds'"
        database(f"update replicas set seen_at = now() + interval '1 minute' where {living}")
        assert admin("rotate", *DOMAIN, "--no-wait").returncode == 0
        assert wait_for(lambda: database("select count(*) from kek_proofs where version = %s", before + 1) == [(1,)])
        time.sleep(2)
        assert states(database)[before + 1] == "prepared", "one replica has not opened it"
        assert "1 of 2 replicas have not opened it" in admin("list", *DOMAIN).stdout
        again = admin("rotate", *DOMAIN, "--no-wait")
        assert f"Version {before + 1} is being made" in again.stdout, "a rotation that is on its way is not begun again"
    finally:
        os.kill(second, signal.SIGCONT)
    assert wait_for(lambda: states(database)[before + 1] == "primary", 20)
    connection = tenant.import_api_key("sk_live_after-a-rotation-0123456789")["id"]
    assert all(tenant.token(connection).status_code == 200 for _ in range(10))


@pytest.mark.promise("P06")
def test_a_replica_that_is_gone_does_not_hold_up_a_rotation_and_starts_with_what_is_primary_then(
    keys: Stack, tenant: Customer, admin: Callable[..., Any], database: Callable[..., Any]
) -> None:
    keys.send("keyservice-user-credentials-2", signal.SIGKILL)
    try:
        before = primary(database)
        assert admin("rotate", *DOMAIN).returncode == 0
        assert primary(database) == before + 1
        connection = tenant.import_api_key("sk_live_one-replica-left-0123456789")["id"]
    finally:
        keys.start("keyservice-user-credentials-2")
    assert all(tenant.token(connection).status_code == 200 for _ in range(10))


def test_a_disabled_version_comes_back_and_is_destroyed_by_two_operators_after_the_grace_period(
    tenant: Customer,
    admin: Callable[..., Any],
    database: Callable[..., Any],
    wait_for: Callable[..., Any],
    grace_seconds: float,
) -> None:
    tenant.import_api_key("sk_live_a-version-to-destroy-0123456789")
    old = primary(database)
    assert admin("rotate", *DOMAIN).returncode == 0
    assert wait_for(lambda: states(database)[old] == "disabled")
    version = ("--version", str(old))
    # Not from another state than disabled.
    assert "KEK_STATE" in admin("destroy", *DOMAIN, "--version", str(old + 1)).stdout
    assert "KEK_STATE" in admin("disable", *DOMAIN, "--version", str(old + 1)).stdout
    assert "KEY_NOT_FOUND" in admin("disable", *DOMAIN, "--version", "999").stdout
    # Undone, and by hand again.
    assert admin("enable", *DOMAIN, *version).returncode == 0
    time.sleep(2.5)
    assert states(database)[old] == "active", "what an operator enabled stays so"
    assert admin("disable", *DOMAIN, *version).returncode == 0
    assert "KEK_GRACE_PERIOD" in admin("destroy", *DOMAIN, *version).stdout, "it is too early"
    time.sleep(grace_seconds + 0.5)
    # One operator is not enough, however often.
    for _ in range(2):
        assert "A second operator" in admin("destroy", *DOMAIN, *version).stdout
    assert states(database)[old] == "disabled"
    assert "is destroyed" in admin("destroy", *DOMAIN, *version, operator="operator-2").stdout
    assert states(database)[old] == "destroyed"
    assert wait_for(lambda: database("select erased from kek_versions where version = %s", old) == [(True,)])
    assert "KEK_STATE" in admin("enable", *DOMAIN, *version).stdout, "there is no way back"


def test_every_act_of_an_operator_is_in_the_log_under_the_name_in_the_certificate(
    keys: Stack, admin: Callable[..., Any], database: Callable[..., Any], wait_for: Callable[..., Any]
) -> None:
    version = primary(database) + 1
    assert admin("rotate", *DOMAIN, operator="operator-2").returncode == 0
    assert wait_for(lambda: states(database)[version - 1] == "disabled")
    assert admin("enable", *DOMAIN, "--version", str(version - 1)).returncode == 0
    assert admin("disable", *DOMAIN, "--version", str(version - 1)).returncode == 0

    def found(version: int) -> set[tuple[str, str]]:
        return {(name, actor) for name, actor, target in events(keys) if target == f"kek-user-credentials-{version}"}

    service = "service:keyservice/user-credentials"
    new = {("KEK_PREPARED", "operator:second"), ("KEK_PROMOTED", service)}
    assert wait_for(lambda: new <= found(version)), found(version)
    old = {("KEK_ENABLED", "operator:first"), ("KEK_DISABLED", "operator:first"), ("KEK_DISABLED", service)}
    assert wait_for(lambda: old <= found(version - 1)), found(version - 1)


def events(keys: Stack) -> list[tuple[str, str, str]]:
    """Reads all events of the installation, which belong to no workspace."""
    with psycopg.connect(**keys.clusters["core"].conninfo("dba", "audit"), autocommit=True) as connection:  # type: ignore[arg-type]
        return connection.execute("select name, actor, target from bodies where workspace_id = ''").fetchall()


READ = """
import sys
import pkcs11
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import PKCS11Error
token = pkcs11.lib(sys.argv[1]).get_token(token_label="user-credentials")
with token.open(user_pin=open(sys.argv[2]).read()) as session:
    keys = list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}))
    refused = 0
    for key in keys:
        assert key[Attribute.EXTRACTABLE] is False and key[Attribute.SENSITIVE] is True
        try:
            key[Attribute.VALUE]
        except PKCS11Error as error:
            refused += type(error).__name__ == "AttributeSensitive"
    print(len(keys), refused, ",".join(sorted(key[Attribute.LABEL] for key in keys)))
"""


@pytest.mark.promise("P04")
def test_no_kek_can_be_read_out_of_the_token_and_a_destroyed_one_is_not_in_it(
    keys: Stack, database: Callable[..., Any]
) -> None:
    folder = keys.layout.home / "hsm" / "user-credentials"
    done = subprocess.run(
        [sys.executable, "-c", READ, str(find_module()), str(folder / "pin")],
        env={"SOFTHSM2_CONF": str(folder / "softhsm2.conf"), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    found, refused, labels = done.stdout.split()
    assert found == refused
    wanted = {f"kek-user-credentials-{version}" for version, state in states(database).items() if state != "destroyed"}
    assert set(labels.split(",")) == {"canary", *wanted}
    assert "destroyed" in states(database).values()
