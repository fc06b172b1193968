"""audit is away, hangs, or its disk is full: work goes on until an outbox is full; then what gives or uses access waits, what takes
it away does not, and afterwards every event is there, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_sensitive import DomainError
from authpipe_testing.customer import Customer

ROWS = 25
BOUNDED = ("keyservice-user-credentials", "coordinator", "authority")
Superuser = Callable[[str, str], Any]


def kill(stack: Stack, name: str, wait_for: Callable[..., Any]) -> None:
    stack.send(name, signal.SIGKILL)
    assert wait_for(lambda: not stack.pid(name))


@pytest.fixture(scope="module")
def bounded(stack: Stack, wait_for: Callable[..., Any]) -> Iterator[None]:
    """Processes whose outboxes are soon full."""
    files = {name: stack.layout.configs / f"{name}.json" for name in BOUNDED}
    before = {name: file.read_text() for name, file in files.items()}

    def restart(change: Callable[[dict[str, Any]], None]) -> None:
        for name, file in files.items():
            config = json.loads(before[name])
            change(config)
            file.write_text(json.dumps(config))
            kill(stack, name, wait_for)
            stack.start(name)
        time.sleep(0.6)

    restart(lambda config: config["database"].update(outbox_rows=ROWS))
    yield
    restart(lambda _: None)


@contextmanager
def away(how: str, stack: Stack, superuser: Superuser, wait_for: Callable[..., Any]) -> Iterator[None]:
    """Has the log take nothing."""
    match how:
        case "down":
            kill(stack, "audit", wait_for)
            try:
                yield
            finally:
                stack.start("audit")
        case "hanging":
            stack.send("audit", signal.SIGSTOP)
            try:
                yield
            finally:
                stack.send("audit", signal.SIGCONT)
        case _:
            # What PostgreSQL says when a table cannot grow.
            with superuser("core", "audit") as audit:
                audit.execute(
                    "create function full_disk() returns trigger language plpgsql as $$ begin raise exception"
                    " 'could not extend file: No space left on device' using errcode = '53100'; end $$"
                )
                audit.execute(
                    "create trigger full_disk before insert on leaves for each statement execute function full_disk()"
                )
                try:
                    yield
                finally:
                    audit.execute("drop trigger full_disk on leaves")
                    audit.execute("drop function full_disk")


def nothing_waits(superuser: Superuser) -> bool:
    """Whether the log has all that those with a small outbox told it."""
    for name in BOUNDED:
        with superuser("core", name.replace("-", "_")) as core:
            if core.execute("select count(*) from audit_outbox").fetchone()[0]:
                return False
    return True


def until_refused(act: Callable[[], Any]) -> tuple[int, str]:
    """Does something until it is refused; gives how often it was done, and why it was not any more."""
    for done in range(400):
        answer = act()
        if answer.status_code >= 400:
            assert answer.status_code == 503, answer.text
            return done, str(answer.json()["reason"])
        time.sleep(0.02)
    return 400, "never"


def is_made(new_customer: Callable[..., Customer]) -> bool:
    """Whether a workspace can be made."""
    try:
        new_customer()
    except DomainError:
        return False
    return True


def count(superuser: Superuser, workspace: str, name: str) -> int:
    with superuser("core", "audit") as audit:
        query = "select count(*) from bodies where workspace_id = %s and name = %s"
        return int(audit.execute(query, (workspace, name)).fetchone()[0])


def workspace_of(superuser: Superuser, connection: str) -> str:
    with superuser("core", "coordinator") as core:
        return str(core.execute("select workspace_id from connections where id = %s", (connection,)).fetchone()[0])


@pytest.mark.case(28)
@pytest.mark.promise("P31")
@pytest.mark.parametrize("how", ["down", "hanging", "disk full"])
@pytest.mark.usefixtures("bounded")
def test_work_goes_on_until_an_outbox_is_full_and_what_takes_access_away_goes_on_after_that(
    how: str,
    stack: Stack,
    superuser: Superuser,
    new_customer: Callable[..., Customer],
    wait_for: Callable[..., Any],
) -> None:
    customer, reader, stolen = new_customer(), new_customer("connections:read"), new_customer()
    config = str(customer.configure(stack.layout.playground_issuer)["id"])
    first, second = (str(customer.import_api_key(f"sk_live_of-case-28-{n}-0123456789")["id"]) for n in range(2))
    taken = str(stolen.import_api_key("sk_live_of-who-was-robbed-0123456789")["id"])
    ours, theirs = workspace_of(superuser, first), workspace_of(superuser, taken)
    assert wait_for(lambda: nothing_waits(superuser), 30)
    time.sleep(1.2)  # each process looks once a second how much waits
    with away(how, stack, superuser, wait_for):
        served, why = until_refused(lambda: customer.token(first))
        # It is full once that many wait; it is looked at once a second.
        assert (served >= ROWS - 5, why) == (True, "AUDIT_BACKLOG")
        body = {"end_user_id": "x", "provider_config_ids": [config]}
        begun, why = until_refused(lambda: customer.post("/connect-sessions", body))
        assert (begun > 0, why) == (True, "AUDIT_BACKLOG")
        # What takes access away.
        assert customer.delete(f"/connections/{second}").status_code == 200
        assert customer.token(second).json()["reason"] == "CONNECTION_DISCONNECTED"
        assert stolen.post("/workspace:freeze", {}).status_code == 200
        assert stolen.token(taken).json()["reason"] == "WORKSPACE_FROZEN"
        assert stolen.post("/api-keys:revoke-all", {}).json() == {"revoked_count": 1}
        assert stolen.token(taken).json()["reason"] == "API_KEY_INVALID"
        # What is refused is refused as ever.
        for _ in range(2 * ROWS):
            assert reader.post("/connect-sessions", body).json()["reason"] == "SCOPE_MISSING"
    assert wait_for(lambda: customer.token(first).status_code == 200, 60), "it is served again by itself"
    assert wait_for(lambda: customer.post("/connect-sessions", body).status_code == 201, 60), "and so is this"
    assert wait_for(lambda: is_made(new_customer), 60), "and whoever comes now"
    again = 1
    # Every event is there, once.
    assert wait_for(lambda: count(superuser, ours, "RECORD_KEY_RELEASED") >= served + again, 60)
    time.sleep(1)
    assert count(superuser, ours, "RECORD_KEY_RELEASED") == served + again
    assert wait_for(lambda: count(superuser, ours, "CONNECT_SESSION_CREATED") >= begun + again, 60)
    assert count(superuser, ours, "CONNECT_SESSION_CREATED") == begun + again
    for workspace, name in (
        (ours, "CONNECTION_DISCONNECTING"),
        (theirs, "WORKSPACE_FROZEN"),
        (theirs, "API_KEYS_REVOKED"),
    ):
        assert wait_for(lambda w=workspace, n=name: count(superuser, w, n) == 1, 30), name


@pytest.mark.case(28)
@pytest.mark.parametrize("name", ["keyservice-user-credentials", "vault", "clientsecrets", "authority", "coordinator"])
def test_a_process_without_a_sink_for_its_events_does_not_start(name: str, stack: Stack, tmp_path: Any) -> None:
    config = json.loads((stack.layout.configs / f"{name}.json").read_text())
    del config["audit"]
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    module = next(process.module for process in stack.layout.processes if process.name == name)
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode not in {0, None}
    assert "audit" in done.stdout + done.stderr
