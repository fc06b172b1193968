"""A store that somebody set back, changed or filled behind our back: the log says what it has to have."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

Superuser = Callable[[str, str], Any]


def verify_store(stack: Stack, store: str) -> subprocess.CompletedProcess[str]:
    """Runs authpipe-admin verify-store as the operator."""
    config = str(stack.layout.configs / "operator.json")
    command = [sys.executable, "-m", "authpipe_admin", "--config", config, "verify-store", "--store", store]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def connection(
    new_customer: Callable[..., Customer], stack: Stack, aged: Callable[[str], None]
) -> tuple[Customer, str]:
    """A connection whose tokens were refreshed: its records are of version 2."""
    customer = new_customer()
    config = customer.configure(stack.layout.playground_issuer)["id"]
    made = customer.connect(config)
    aged(made)
    assert customer.post(f"/connections/{made}/refresh").status_code == 200
    return customer, made


@contextmanager
def put_back(database: Any, connection: str) -> Iterator[None]:
    """Puts the records of a connection back as they were."""
    database.execute("create table kept_records as table records with no data")
    database.execute("insert into kept_records select * from records where connection_id = %s", (connection,))
    try:
        yield
    finally:
        database.execute("delete from records where connection_id = %s", (connection,))
        database.execute("insert into records select * from kept_records")
        database.execute("drop table kept_records")


ACTS = {
    "rolled back to version 1": "update records set version = 1 where connection_id = %(c)s and record_class = 1",
    "was changed": "update records set record = set_byte(record, 50, get_byte(record, 50) # 1)"
    " where connection_id = %(c)s and record_class = 1",
    "was deleted behind our back": "delete from records where connection_id = %(c)s and record_class = 1",
    "was never written": "insert into records select 'ws_forged', connection_id, record_class, version, record, provider,"
    " hosts_digest, masked, expires_at, fence from records where connection_id = %(c)s and record_class = 1",
    "which was never logged": "update records set version = 9 where connection_id = %(c)s and record_class = 1",
}


@pytest.mark.case(2)
@pytest.mark.promise("P31")
@pytest.mark.parametrize("what", ACTS)
def test_a_record_that(what: str, connection: tuple[Customer, str], stack: Stack, superuser: Superuser) -> None:
    _, made = connection
    time.sleep(2)
    sound = verify_store(stack, "vault")
    assert sound.returncode == 0, sound.stdout
    with superuser("vault", "vault") as vault, put_back(vault, made):
        vault.execute(ACTS[what], {"c": made})
        said = verify_store(stack, "vault")
        assert said.returncode == 1, said.stdout
        assert what in said.stdout
        assert "1 differ" in said.stdout, said.stdout
        assert made in said.stdout
    assert verify_store(stack, "vault").returncode == 0


@pytest.mark.promise("P31")
def test_client_secrets_are_compared_too_and_what_is_deleted_is_missed_by_nobody(
    connection: tuple[Customer, str], stack: Stack, superuser: Superuser
) -> None:
    customer, made = connection
    assert customer.delete(f"/connections/{made}").status_code == 200
    time.sleep(2)
    assert verify_store(stack, "vault").returncode == 0
    assert verify_store(stack, "clientsecrets").returncode == 0
    with superuser("clientsecrets", "clientsecrets") as secrets:
        before = secrets.execute("select count(*) from records").fetchone()[0]
    said = verify_store(stack, "clientsecrets")
    assert f"{before:,} records compared, 0 differ." in said.stdout


def test_a_policy_is_put_on_record_by_an_operator(
    new_customer: Callable[..., Customer], stack: Stack, superuser: Superuser, wait_for: Callable[..., Any]
) -> None:
    customer = new_customer()
    customer.import_api_key("sk_live_for-a-workspace-0123456789")
    found = wait_for(lambda: customer.get("/audit/events", event="CONNECTION_CREATED").json()["events"], 20)
    with superuser("core", "audit") as audit:
        query = "select workspace_id from bodies where position(%s in record) > 0"
        (workspace,) = audit.execute(query, (found[0]["event_id"],)).fetchone()
    config = str(stack.layout.configs / "operator.json")
    command = [sys.executable, "-m", "authpipe_admin", "--config", config, "workspaces", "retention"]
    for name, days, code in ((workspace, "7", 0), ("ws_of_nobody", "7", 2), (workspace, "0", 2)):
        done = subprocess.run([*command, name, "--days", days], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    said = wait_for(lambda: customer.get("/audit/events", event="AUDIT_RETENTION_SET").json()["events"], 20)
    assert [event["count"] for event in said] == [7]
