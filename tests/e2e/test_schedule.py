"""Tokens are refreshed before they end, though nobody asks for them; also when coordinator is killed on the way."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from authpipe_devstack.stack import Stack
from authpipe_testing.customer import Customer

MANY = 12


@pytest.fixture
def ahead(stack: Stack, wait_for: Callable[..., Any]) -> Iterator[None]:
    """coordinator with its schedule, as it is in production."""
    file = stack.layout.configs / "coordinator.json"
    before = file.read_text()

    def again(text: str) -> None:
        file.write_text(text)
        stack.send("coordinator", signal.SIGKILL)
        assert wait_for(lambda: not stack.pid("coordinator"))
        stack.start("coordinator")
        time.sleep(1)  # its peers connect again within half a second

    again(json.dumps(json.loads(before) | {"refresh_ahead": True, "claim_seconds": 12}))
    yield
    again(before)


@pytest.mark.promise("P36")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("killed", [False, True])
def test_tokens_are_refreshed_before_they_end_once_each_and_nobody_has_asked(
    killed: bool,
    ahead: None,
    stack: Stack,
    customer: Customer,
    config: str,
    playground: Any,
    wait_for: Callable[..., Any],
) -> None:
    playground.set_life(12)  # due after 10 to 11 seconds
    connections = [customer.connect(config, f"ahead-{killed}-{number}") for number in range(MANY)]
    playground.set_life(3600)
    before, reuse = (playground.counts().get(name, 0) for name in ("refresh_token", "reuse"))
    refreshed = lambda: playground.counts().get("refresh_token", 0) - before  # noqa: E731
    if killed:
        # The moment it begins: some are taken up, some under way, some done.
        assert wait_for(lambda: refreshed() > 0, 30)
        stack.send("coordinator", signal.SIGKILL)
        assert wait_for(lambda: not stack.pid("coordinator"))
        stack.start("coordinator")
    assert wait_for(lambda: refreshed() >= MANY, 90), refreshed()
    time.sleep(1)
    states = [customer.get(f"/connections/{each}").json() for each in connections]
    assert {each["state"] for each in states} == {"active"}
    tokens = [customer.token(each).raise_for_status().json()["access_token"] for each in connections]
    assert len(set(tokens)) == MANY
    assert all(map(playground.knows, tokens)), "they live"
    assert playground.counts().get("reuse", 0) == reuse
    if not killed:
        assert refreshed() == MANY


@pytest.mark.promise("P31")
def test_whatever_is_refreshed_at_one_moment_every_use_of_the_client_secret_is_on_record(
    customer: Customer, config: str, playground: Any, wait_for: Callable[..., Any]
) -> None:
    def uses() -> int:
        return sum(event["count"] or 1 for event in customer.events(target=config, event="RECORD_KEY_RELEASED"))

    before = uses()
    playground.set_life(2)
    connections = [customer.connect(config, f"together-{number}") for number in range(MANY)]
    assert wait_for(lambda: uses() - before >= MANY), "a code was exchanged for each"
    playground.set_life(3600)
    time.sleep(2)
    with ThreadPoolExecutor(MANY) as pool:
        assert {answer.status_code for answer in pool.map(customer.token, connections)} == {200}
    assert wait_for(lambda: uses() - before >= 2 * MANY)
    time.sleep(1)
    assert uses() - before == 2 * MANY
