"""A thousand connections while each part dies at each step of a refresh; the Provider ends a family whose token comes twice.

One step of one part is no test here: a worker that dies with an answer in its memory has lost it, whoever wrote it
(docs/refresh.md, tests/breach/test_lost_answers.py). For the same reason nothing else is under way when a worker dies.
"""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from authpipe_testing import failpoints

STEPS = (
    "claimed",
    "intent written",
    "before the request",
    "answer received",
    "before the commit",
    "after the commit",
    "tokens in vault",
    "before the lease is given back",
)
OF_COORDINATOR = {"claimed", "intent written", "before the lease is given back"}
COORDINATORS = ("coordinator", "coordinator-2", "coordinator-3", "coordinator-4")
WORKERS = ("worker", "worker-2")
# The worker first: nothing else is under way when it dies, so that nothing has to be waited for.
PARTS = ("worker", "coordinator", "vault", "postgres-vault", "postgres-core")
AT_ONCE = 31


def dies_itself(part: str, step: str) -> bool:
    """Whether the process that reaches a step is the one that dies."""
    return part == ("coordinator" if step in OF_COORDINATOR else "worker")


def take_away(chaos: Any, part: str) -> list[str]:
    """Takes a part away just now; gives what has to be started again."""
    if part.startswith("postgres-"):
        chaos.stack.clusters[part.removeprefix("postgres-")].crash()
        return []
    names = chaos.holders()[:1] if part == "coordinator" else [part]
    for name in names or ["coordinator"]:
        chaos.kill(name)
    return names or ["coordinator"]


def run(chaos: Any, part: str, step: str, count: int) -> None:
    """Lets connections be due, and a part die when the first of them gets to a step."""
    itself = dies_itself(part, step)
    failpoints.arm(chaos.failpoint, step, "die" if itself else "wait", 0 if count == 1 else random.randrange(3))
    chaos.make_due(chaos.take(count))
    assert chaos.wait_for(lambda: failpoints.reached(chaos.failpoint), 40), f"nobody got to: {step}"
    if itself:
        family = [name for name in (*COORDINATORS, *WORKERS) if name.startswith(part)]
        gone = chaos.wait_for(lambda: [name for name in family if not chaos.stack.pid(name)], 10)
        assert gone, f"{part} did not die at: {step}"
    else:
        gone = take_away(chaos, part)
    failpoints.disarm(chaos.failpoint)
    if part.startswith("postgres-"):
        chaos.stack.clusters[part.removeprefix("postgres-")].start()
    for name in gone:
        chaos.start(name)


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.timeout(600)
def test_a_thousand_connections_live_on_whatever_dies_at_whatever_step(chaos: Any) -> None:
    before = chaos.provider.counts()
    for part in PARTS:
        for step in STEPS:
            if part == "worker":
                if step == "answer received":
                    continue
                assert chaos.wait_for(chaos.is_quiet, 90), "what was begun came to its end"
            run(chaos, part, step, 1 if part == "worker" else AT_ONCE)
    # Whoever was not taken yet is refreshed too: all thousand.
    chaos.make_due(chaos.take(len(chaos.connections)))
    assert chaos.wait_for(chaos.is_quiet, 180), "everything came to its end"
    everyone = "from connections where id = any(%s)"
    states = chaos.database(f"select state, state_reason, count(*) {everyone} group by 1, 2", chaos.connections)
    assert states == [("active", "", len(chaos.connections))], "nobody has to connect again"
    refreshed = chaos.database(
        f"select count(*) {everyone} and refreshed_at > created_at + interval '1 second'", chaos.connections
    )
    assert refreshed == [(len(chaos.connections),)], "every one of them was refreshed"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(chaos.customer.token, chaos.connections))
    tokens = [each.raise_for_status().json()["access_token"] for each in answers]
    assert all(chaos.provider.living(tokens)), "every connection serves a token that lives"
    counts = chaos.provider.counts()
    assert counts.get("grant_revoked", 0) == before.get("grant_revoked", 0), "no family was ended"
    assert counts["refresh_token"] - before.get("refresh_token", 0) >= len(tokens)
