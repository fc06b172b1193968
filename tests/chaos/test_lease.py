"""Many callers on one token that has ended, over four coordinators, of which the one with the lease stops and goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CALLERS = 200
COORDINATORS = ("coordinator", "coordinator-2", "coordinator-3", "coordinator-4")
SLOW_SECONDS = 10
STOPPED_SECONDS = 24
# Leases live six seconds here.
LONGER_THAN_A_LEASE_SECONDS = 14
_LEASES = "authpipe_oauth_coordinator.store.leases"
_UNFINISHED = "authpipe_oauth_coordinator.domain.unfinished"


@pytest.fixture
def coordinators(chaos: Any) -> Iterator[Callable[..., None]]:
    """Starts the coordinators as they are, or with a control switched off; afterwards they are as they were."""

    def start(*patches: tuple[str, str, str]) -> None:
        for name in COORDINATORS:
            chaos.kill(name)
            if patches:
                chaos.start_patched(name, patches)
            else:
                chaos.stack.start(name)

    yield start
    chaos.provider.set_pause(0)
    for name in COORDINATORS:
        chaos.kill(name)
        chaos.start(name)


def ended(chaos: Any) -> str:
    """Gives a connection whose token has just ended."""
    connection = chaos.take_last()
    [(known,)] = chaos.database("select refreshed_at from connections where id = %s", connection)
    chaos.provider.set_life(2)
    chaos.make_due([connection])
    since = "select 1 from connections where id = %s and refreshed_at > %s"
    assert chaos.wait_for(lambda: chaos.database(since, connection, known), 20)
    # Nobody but who asks for it refreshes it from now on.
    chaos.database("update connections set refresh_due_at = '2100-01-01' where id = %s", connection)
    chaos.provider.set_life(840)
    time.sleep(2.5)
    return str(connection)


def call(chaos: Any, connection: str, seconds: float) -> tuple[list[threading.Thread], list[str]]:
    """Lets many callers ask at once, each until it is served, as clients do.

    Those who want the same share one call from edge to coordinator, so each eighth wants a life of its own: eight calls come to
    four coordinators.
    """
    tokens: list[str] = []

    def ask(number: int) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            answer = chaos.customer.token(connection, min_ttl=30 + number % 8)
            if answer.status_code == 200:
                tokens.append(answer.json()["access_token"])
                return
            time.sleep(1)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    return threads, tokens


@pytest.mark.promise("P36")
@pytest.mark.case(25)
@pytest.mark.timeout(240)
def test_two_hundred_callers_cause_one_request_though_who_has_the_lease_stops_and_goes_on(
    chaos: Any, coordinators: Callable[..., None]
) -> None:
    coordinators()
    connection = ended(chaos)
    chaos.provider.set_pause(SLOW_SECONDS)
    before = chaos.provider.counts()
    [(known,)] = chaos.database("select refreshed_at from connections where id = %s", connection)
    threads, tokens = call(chaos, connection, 90)
    stopped = chaos.wait_for(chaos.holders, 20)
    assert len(stopped) == 1, "one has the lease"
    [(fence,)] = chaos.database("select fence from leases where connection_id = %s", connection)
    assert chaos.wait_for(lambda: chaos.provider.counts()["asked"] > before["asked"], 20)
    pid = chaos.stack.pid(stopped[0])
    assert pid, "it runs"
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(STOPPED_SECONDS)
        [(newer, holder)] = chaos.database("select fence, holder from leases where connection_id = %s", connection)
        assert newer > fence, "the lease was passed on"
        assert str(pid) not in holder
    finally:
        os.kill(pid, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert len(tokens) == CALLERS, "each of them is served"
    assert len(set(tokens)) == 1
    assert chaos.provider.living(tokens[:1]) == [True]
    # What was said under the lease that was passed on is not believed; who has the newer one finds what came of it.
    healed = (
        "select 1 from connections where id = %s and state = 'active' and refresh_failure = '' and refreshed_at > %s"
    )
    assert chaos.wait_for(lambda: chaos.database(healed, connection, known), 60)
    [(last,)] = chaos.database("select fence from leases where connection_id = %s", connection)
    assert last >= newer
    counts = chaos.provider.counts()
    assert counts["asked"] - before["asked"] == 1, "the Provider saw one request, from first to last"
    assert counts.get("grant_revoked", 0) == before.get("grant_revoked", 0)
    assert chaos.customer.token(connection).json()["access_token"] == tokens[0]
    # And the refresh token that is stored is the living one.
    chaos.provider.set_pause(0)
    chaos.make_due([connection])
    assert chaos.wait_for(lambda: chaos.provider.counts()["asked"] - before["asked"] == 2, 40)
    assert chaos.wait_for(lambda: chaos.customer.token(connection).json()["access_token"] != tokens[0], 20)
    assert chaos.provider.counts().get("grant_revoked", 0) == before.get("grant_revoked", 0)


@pytest.mark.case(25)
@pytest.mark.timeout(240)
def test_the_attack_sees_a_lease_that_everybody_gets_while_nobody_looks_what_the_one_before_has_left(
    chaos: Any, coordinators: Callable[..., None]
) -> None:
    # The lease alone is not what stands between two requests: who gets it looks whether a token is under way.
    coordinators(
        (_LEASES, "where leases.lives_until < now()", "where leases.fence > 0"),
        (_UNFINISHED, "if left.unfinished is Unfinished.NOTHING or left.since is None:", "if True:"),
    )
    connection = ended(chaos)
    chaos.provider.set_pause(2)
    before = chaos.provider.counts()["asked"]
    threads, _ = call(chaos, connection, 20)
    asked = chaos.wait_for(lambda: chaos.provider.counts()["asked"] - before > 1, 20)
    for thread in threads:
        thread.join()
    assert asked, "the Provider saw more than one request"


def _a_slow_provider_sees_one_request_under_one_lease(chaos: Any) -> None:
    connection = ended(chaos)
    chaos.provider.set_pause(LONGER_THAN_A_LEASE_SECONDS)
    before = chaos.provider.counts()
    threads, tokens = call(chaos, connection, 60)
    assert chaos.wait_for(lambda: chaos.provider.counts()["asked"] > before["asked"], 20)
    lease = "select fence, holder from leases where connection_id = %s"
    first = chaos.database(lease, connection)
    # A slow machine takes seconds to look, and must have looked before the answer comes.
    time.sleep(LONGER_THAN_A_LEASE_SECONDS - 5)
    # The others ask for it ten times a second, and who has it has nothing to say but that it is alive.
    assert chaos.database(lease, connection) == first
    for thread in threads:
        thread.join()
    assert len(tokens) == CALLERS, "each of them is served"
    assert len(set(tokens)) == 1
    assert chaos.provider.counts()["asked"] - before["asked"] == 1


@pytest.mark.promise("P36")
@pytest.mark.timeout(240)
def test_a_provider_that_takes_longer_than_a_lease_lives_sees_one_request_for_the_lease_lives_on(
    chaos: Any, coordinators: Callable[..., None]
) -> None:
    coordinators()
    _a_slow_provider_sees_one_request_under_one_lease(chaos)


@pytest.mark.timeout(240)
def test_the_attack_sees_a_lease_without_a_heartbeat(chaos: Any, coordinators: Callable[..., None]) -> None:
    coordinators(
        (
            "authpipe_oauth_coordinator.domain.leasing",
            "await asyncio.sleep(self._seconds / 3)",
            "await asyncio.sleep(3600)",
        )
    )
    with pytest.raises(AssertionError):
        _a_slow_provider_sees_one_request_under_one_lease(chaos)
