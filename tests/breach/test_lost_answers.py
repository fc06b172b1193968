"""The worker killed at every step of a refresh, and vault away just when the Provider has answered (cases 23 and 24).

The Provider rotates refresh tokens and ends the family when one is used twice: every mistake shows.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from authpipe_devstack.stack import Stack, StackError
from authpipe_testing.customer import Customer

DIES = "__import__('os').kill(__import__('os').getpid(), 9)"
DESK, REFRESH = "authpipe_oauth_worker.domain.desk", "authpipe_oauth_worker.domain.refresh"
UNFINISHED = "authpipe_oauth_coordinator.domain.unfinished"
# So that a test need not wait for half a minute.
IMPATIENT = ("coordinator", UNFINISHED, "_UNKNOWN = timedelta(seconds=60)", "_UNKNOWN = timedelta(seconds=1)")
# Where the worker dies: the text before which it does, and whether the Provider has seen the refresh token by then.
STEPS = {
    "before the request": (
        "            sent = await self._send(job, old.plaintext, secrets, key)\n",
        False,
    ),
    "with the answer, before the disk": ("            slot.write(vault.pack(sealed))\n", True),
    "with the answer on the disk": ("            await vault.put([sealed], [], job.credential_grant", True),
    "with the answer in vault": (
        "        if failure := await self._store(job, sent, keys, slot):\n            return Outcome(failure)\n",
        True,
    ),
    "with the tokens in vault": (
        '        return Outcome("", scopes, expires_at, refreshable, metadata=tokens.metadata)\n',
        True,
    ),
}


def expired(customer: Customer, config: str, playground: Any, name: str) -> str:
    """Connects an account whose access token has ended; gives the connection."""
    playground.set_life(2)
    connection = customer.connect(config, name)
    playground.set_life(3600)
    time.sleep(2.5)
    return connection


def left(stack: Stack, connection: str) -> str:
    """Gives what coordinator says of a connection's last refresh."""
    conninfo = stack.clusters["core"].conninfo("dba", "coordinator")
    with psycopg.connect(**conninfo, autocommit=True) as coordinator:  # type: ignore[arg-type]
        row = coordinator.execute("select unfinished from leases where connection_id = %s", (connection,)).fetchone()
    return str(row[0]) if row else ""


def dying(step: str) -> tuple[str, str, str, str]:
    """Gives the patch by which the worker dies at a step, as soon as it gets there."""
    text, _ = STEPS[step]
    indent = text[: len(text) - len(text.lstrip())]
    if step == "with the answer in vault":
        return "worker", REFRESH, text, f"{text}{indent}{DIES}\n"
    if step == "with the tokens in vault":
        # The outcome is made before the tokens are put: it dies after the put.
        put = "        await self.vault.put(records, ended, job.credential_grant, job.request_id)\n"
        return "worker", DESK, put, f"{put}        {DIES}\n"
    return "worker", REFRESH, text, f"{indent}{DIES}\n{text}"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("step", STEPS)
def test_the_worker_killed_at_a_step_of_a_refresh_loses_no_token_that_can_be_kept(
    step: str,
    stack: Stack,
    customer: Customer,
    config: str,
    playground: Any,
    mutant: Callable[..., Any],
    wait_for: Callable[..., Any],
) -> None:
    connection = expired(customer, config, playground, f"killed-{step.replace(' ', '-')}")
    before, reuse = (playground.counts().get(name, 0) for name in ("refresh_token", "reuse"))
    _, seen = STEPS[step]
    with mutant(IMPATIENT):
        with mutant(dying(step)):
            assert customer.token(connection).status_code == 503
            assert wait_for(lambda: not stack.pid("worker")), "it died"
            assert left(stack, connection) == "spent", "that its token may be spent was written down before"
            assert playground.counts().get("refresh_token", 0) == before + seen
        # The worker is back, as it was.
        if step == "with the answer, before the disk":
            # Nobody can have the answer. Once more, carefully: the Provider refuses it, and the end user is asked.
            refused = wait_for(lambda: customer.token(connection).json().get("reason") == "CONNECTION_NEEDS_REAUTH")
            assert refused, customer.token(connection).text
            shown = customer.get(f"/connections/{connection}").json()
            assert (shown["state"], shown["state_reason"]) == ("needs_reauth", "REFRESH_ANSWER_LOST")
            assert playground.counts()["refresh_token"] == before + 2, "and that was one request"
            return
        assert wait_for(lambda: customer.token(connection).status_code == 200), customer.token(connection).text
    # And the one after that works too.
    assert wait_for(lambda: customer.post(f"/connections/{connection}/refresh").status_code == 200)
    assert left(stack, connection) == ""
    assert playground.counts().get("reuse", 0) == reuse


@contextmanager
def away_when_the_provider_has_answered(
    stack: Stack, part: str, ask: Callable[[], Any], wait_for: Callable[..., Any], counted: Callable[[], int]
) -> Iterator[None]:
    """Asks for a token, and takes a part away between the Provider's answer and vault; brings it back afterwards."""
    before = counted()
    asking = threading.Thread(target=ask)
    asking.start()
    assert wait_for(lambda: counted() == before + 1)
    cluster = stack.clusters["vault"]
    if part == "vault":
        stack.send("vault", signal.SIGKILL)
    else:
        cluster.stop()
    try:
        asking.join()
        yield
    finally:
        if part == "vault":
            stack.start("vault")
        else:
            cluster.start()
            assert wait_for(lambda: all(each["healthy"] for each in stack.status()["processes"]))


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("part", "killed"), [("vault", False), ("vault", True), ("postgres-vault", False)])
def test_an_answer_that_came_while_vault_was_away_waits_sealed_on_the_disk_and_is_served_when_it_is_back(
    part: str,
    killed: bool,
    stack: Stack,
    customer: Customer,
    config: str,
    playground: Any,
    mutant: Callable[..., Any],
    wait_for: Callable[..., Any],
) -> None:
    connection = expired(customer, config, playground, f"spooled-{part}-{killed}")
    old, reuse = (playground.counts().get(name, 0) for name in ("refresh_token", "reuse"))
    sending = "            sent = await self._send(job, old.plaintext, secrets, key)\n"
    # Long enough to take vault away in between.
    slow = ("worker", REFRESH, sending, f"{sending}            await __import__('asyncio').sleep(3)\n")
    folder = stack.layout.home / "spool" / "worker"
    with mutant(slow):
        counted = lambda: int(playground.counts().get("refresh_token", 0))  # noqa: E731
        ask = lambda: customer.token(connection)  # noqa: E731
        with away_when_the_provider_has_answered(stack, part, ask, wait_for, counted):
            assert wait_for(lambda: left(stack, connection) == "spooled"), left(stack, connection)
            kept = list(folder.glob("*.record"))
            assert len(kept) == 1
            assert b"access_token" not in kept[0].read_bytes(), "it is sealed"
            if killed:
                stack.send("worker", signal.SIGKILL)
                assert wait_for(lambda: not stack.pid("worker"))
                with suppress(StackError):  # it waits for all to be healthy, and vault is not
                    stack.start("worker")
            assert customer.token(connection).status_code == 503
    assert wait_for(lambda: not list(folder.glob("*.record")))
    assert wait_for(lambda: customer.token(connection).status_code == 200), customer.token(connection).text
    assert playground.counts()["refresh_token"] == old + 1, "the token was sent once"
    assert playground.counts().get("reuse", 0) == reuse


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("record_class", "what"), [(8, "the answer"), (1, "the access token"), (2, "the refresh token")]
)
def test_a_write_of_vault_that_fails_after_the_provider_answered_loses_no_token(
    record_class: int,
    what: str,
    customer: Customer,
    config: str,
    playground: Any,
    superuser: Callable[[str, str], Any],
    wait_for: Callable[..., Any],
) -> None:
    connection = expired(customer, config, playground, f"refused-write-{record_class}")
    old, reuse = (playground.counts().get(name, 0) for name in ("refresh_token", "reuse"))
    with superuser("vault", "vault") as vault:
        vault.execute("create function refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$")
        vault.execute(
            "create trigger refuse before insert or update on records for each row"
            f" when (new.connection_id = '{connection}' and new.record_class = {record_class}) execute function refuse()"
        )
        try:
            assert customer.token(connection).status_code == 503, what
            assert playground.counts()["refresh_token"] == old + 1, "the Provider has answered"
            assert customer.token(connection).status_code == 503
        finally:
            vault.execute("drop trigger refuse on records")
            vault.execute("drop function refuse()")
    assert wait_for(lambda: customer.token(connection).status_code == 200), customer.token(connection).text
    assert playground.counts()["refresh_token"] == old + 1, "and was asked once"
    assert playground.counts().get("reuse", 0) == reuse
    assert playground.knows(customer.token(connection).json()["access_token"])
