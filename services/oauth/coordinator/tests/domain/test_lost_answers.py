"""A refresh whose answer is not known: written down before, looked for after, sent again as its Provider allows."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest
from authpipe_oauth_coordinator.domain.ports import Job
from authpipe_oauth_coordinator.domain.schedule import Schedule
from authpipe_oauth_coordinator.domain.words import (
    Acting,
    Left,
    ProviderConfig,
    State,
    TokenOutcome,
    Unfinished,
)
from authpipe_providers import Endpoints
from authpipe_oauth_coordinator.errors import (
    AnswerNotAwaitedError,
    LeaseHeldError,
    RefreshFailedError,
)

ACTING = Acting("ws", "api_key:key_1", "req_1")
ZERO = dt.timedelta(0)
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints(
    "https://as.example", "https://as.example/a", "https://as.example/t", "", "none", iss_required=True
)
CONFIG = ProviderConfig("ws", "pc", "as.example", "AS", "client", ("a",), ("https://x",), ENDPOINTS, bytes(32), START)

LOST = TokenOutcome("PROVIDER_ANSWER_LOST")


class Away:
    """A table of what is due that is away."""

    def __init__(self, error: type[Exception]) -> None:
        self._error = error

    async def claim_due(self, *_: object) -> list[Any]:
        raise self._error


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_that_a_token_is_about_to_be_sent_is_written_down_before_it_is(stage: Any) -> None:
    stage.hold.clear()
    asking = asyncio.create_task(stage.ask())
    while not stage.jobs:
        await asyncio.sleep(0.001)
    assert stage.tables.left["ws", "con"] == Left(Unfinished.SPENT, 1, START)
    stage.hold.set()
    assert await asking == ""
    assert stage.tables.left["ws", "con"] == Left(), "and ended is ended"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_that_was_lost_is_looked_for_then_the_token_is_sent_once_more_then_the_user_is_asked(
    stage: Any,
) -> None:
    stage.answer = LOST
    assert await stage.ask() == "PROVIDER_ANSWER_LOST"
    assert await stage.ask() == "ANSWER_AWAITED"
    assert [job.spend for job in stage.jobs] == [True, False], "for a minute the token is not sent again"
    stage.now += dt.timedelta(seconds=62)
    stage.answer = TokenOutcome("INVALID_GRANT")
    assert await stage.ask() == "NEEDS_REAUTH"
    assert [job.spend for job in stage.jobs] == [True, False, False, True], "looked for again before it is"
    assert stage.tables.connections["ws", "con"].state_reason == "REFRESH_ANSWER_LOST", "nobody did anything wrong"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.parametrize("trouble", ["it has just begun", "the worker was away", "its table was away"])
async def test_after_an_outage_of_our_own_an_answer_on_a_disk_comes_before_the_token_is_sent_again(
    trouble: str, stage: Any
) -> None:
    good, stage.answer = stage.answer, LOST
    await stage.ask()
    # However long nobody could take the answer: a worker may still have it, and brings it now.
    stage.now += dt.timedelta(hours=1)
    connection = stage.tables.connections["ws", "con"]
    process = stage.just_begun("one") if trouble == "it has just begun" else stage.refreshing("one")
    match trouble:
        case "the worker was away":
            awaited, stage.found = stage.found, stage.away()
            with pytest.raises(RefreshFailedError):
                await process.once(ACTING, connection, forced=False)
            stage.found = awaited
        case "its table was away":
            schedule = Schedule(Away(stage.away), process, str, most=8, per_provider=50, claim_seconds=60.0)
            with pytest.raises(stage.away):
                await schedule.run()
        case _:
            pass
    sent = [job.spend for job in stage.jobs].count(True)
    stage.answer = good
    with pytest.raises(RefreshFailedError):
        await process.once(ACTING, connection, forced=False)
    assert [job.spend for job in stage.jobs].count(True) == sent
    stage.now += dt.timedelta(seconds=16)
    await process.once(ACTING, connection, forced=False)
    assert [job.spend for job in stage.jobs].count(True) == sent + 1


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_a_provider_that_never_saw_the_token_takes_it_when_it_is_sent_once_more(stage: Any) -> None:
    good, stage.answer = stage.answer, LOST
    await stage.ask()
    stage.now += dt.timedelta(seconds=62)
    stage.answer = good
    assert await stage.ask() == ""
    assert stage.tables.left["ws", "con"] == Left()


@pytest.mark.promise("P36")
async def test_a_token_whose_answer_is_lost_again_and_again_is_sent_three_times_more_and_then_never(stage: Any) -> None:
    stage.answer = LOST
    await stage.ask()
    for _ in range(3):
        stage.now += dt.timedelta(seconds=62)
        assert await stage.ask() == "PROVIDER_ANSWER_LOST"
    stage.now += dt.timedelta(seconds=3_600)
    assert await stage.ask() == "NEEDS_REAUTH"
    assert [job.spend for job in stage.jobs] == [True, False, True, False, True, False, True, False]
    assert stage.tables.connections["ws", "con"].state_reason == "REFRESH_ANSWER_LOST"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
@pytest.mark.parametrize("retried", [False, True])
async def test_a_refresh_that_had_come_to_its_end_is_not_taken_for_a_lost_one_however_long_ago(
    retried: bool, stage: Any
) -> None:
    good = stage.answer
    stage.answer = LOST
    await stage.ask()
    if retried:
        stage.now += dt.timedelta(seconds=62)
        await stage.ask()
    stage.now += dt.timedelta(days=1)
    stage.found, stage.answer = TokenOutcome("REFRESH_TOKEN_NEWER", nothing_sent=True), good
    assert await stage.ask() == ""
    assert stage.tables.left["ws", "con"] == Left(), "nobody has to connect again"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_that_is_in_vault_is_judged_however_long_ago_it_came(stage: Any) -> None:
    good, stage.answer = stage.answer, LOST
    await stage.ask()
    stage.now += dt.timedelta(days=1)
    stage.found = good
    assert await stage.ask() == ""
    assert [job.spend for job in stage.jobs] == [True, False], "and the token is not sent again"


@pytest.mark.promise("P36")
async def test_a_worker_that_dies_with_the_token_in_hand_is_an_answer_that_is_lost(stage: Any) -> None:
    stage.answer = stage.away()
    assert await stage.ask() == "PROVIDER_ANSWER_LOST"
    assert stage.tables.left["ws", "con"].unfinished is Unfinished.SPENT


@pytest.mark.promise("P36")
@pytest.mark.case(24)
async def test_with_no_worker_there_nothing_is_written_down_and_the_token_is_not_spent(stage: Any) -> None:
    stage.worker_away = True
    with pytest.raises(stage.away):
        await stage.replica("any").ensure_fresh(ACTING, "con", ZERO, force=False)
    assert (stage.tables.leases, stage.tables.left) == ({}, {})


@pytest.mark.promise("P36")
async def test_what_was_not_sent_leaves_what_was_left_before(stage: Any) -> None:
    stage.answer = TokenOutcome("CONNECTION_FAILED", nothing_sent=True)
    assert await stage.ask() == "CONNECTION_FAILED"
    assert stage.tables.left["ws", "con"] == Left()
    stage.answer = TokenOutcome("ANSWER_SPOOLED")
    await stage.ask()
    spooled = stage.tables.left["ws", "con"]
    stage.now += dt.timedelta(seconds=901)
    stage.answer = TokenOutcome("CONNECTION_FAILED", nothing_sent=True)
    await stage.ask()
    assert stage.jobs[-1].spend
    assert stage.tables.left["ws", "con"] == spooled, "the answer on the disk can still be claimed, and the retry made"


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_an_answer_on_a_workers_disk_is_claimed_reported_and_judged_at_once(stage: Any) -> None:
    good, stage.answer = stage.answer, TokenOutcome("ANSWER_SPOOLED")
    assert await stage.ask() == "ANSWER_SPOOLED"
    answers = stage.answers()
    for _ in range(2):  # a worker that died after it stored it does all of it again
        assert await answers.claim(ACTING, "con", 1, "thumb") == "con/thumb/1"
    stage.found = good
    await answers.report(ACTING, "con", 1)
    while stage.events()[-1] != "TOKEN_REFRESHED":
        await asyncio.sleep(0.001)
    assert stage.jobs[-1].spend is False, "the answer was found, the token was not sent again"
    for act in (answers.claim(ACTING, "con", 1, "thumb"), answers.report(ACTING, "con", 1)):
        with pytest.raises(AnswerNotAwaitedError):
            await act


@pytest.mark.promise("P36")
@pytest.mark.case(23)
async def test_a_refresh_that_had_stored_its_tokens_before_it_died_is_followed_by_a_new_one_at_once(
    stage: Any,
) -> None:
    good, stage.answer = stage.answer, stage.away()
    await stage.ask()
    answers = iter([TokenOutcome("REFRESH_TOKEN_NEWER", nothing_sent=True), good])
    noted: list[Left] = []

    async def answer(job: Job) -> TokenOutcome:
        stage.jobs.append(job)
        noted.append(stage.tables.left["ws", "con"])
        return next(answers)

    stage.refresh = answer  # type: ignore[method-assign]
    assert await stage.ask() == ""
    assert [(job.spend, job.spent_fence) for job in stage.jobs[1:]] == [(False, 1), (True, 1)]
    assert [left.fence for left in noted] == [1, 2], "that the new token is sent is written down under the new fence"
    assert stage.tables.left["ws", "con"] == Left()


@pytest.mark.promise("P36")
@pytest.mark.case(25)
@pytest.mark.parametrize(("lives_seconds", "sent"), [(3600, False), (90, False), (30, True), (-5, True)])
async def test_a_refresh_of_which_nobody_heard_the_end_is_taken_for_done_while_its_token_lives(
    lives_seconds: int, sent: bool, stage: Any
) -> None:
    good, stage.answer = stage.answer, LOST
    await stage.ask()
    ends = stage.now + dt.timedelta(seconds=lives_seconds)
    stage.found, stage.answer = TokenOutcome("REFRESH_TOKEN_NEWER", (), ends, nothing_sent=True), good
    assert await stage.ask() == ""
    assert [job.spend for job in stage.jobs] == [True, False, *([True] if sent else [])]
    connection = stage.tables.connections["ws", "con"]
    assert (connection.expires_at == ends, connection.failing) == (not sent, None)
    assert connection.scopes, "what was granted stays"
    assert stage.tables.left["ws", "con"] == Left()


@pytest.mark.promise("P36")
async def test_a_connection_whose_refresh_token_may_be_spent_is_not_sealed_again(stage: Any) -> None:
    stage.answer = LOST
    await stage.ask()
    sealing = asyncio.create_task(stage.resealing("one").connection(ACTING, "con"))
    await asyncio.sleep(0.01)
    stage.now += dt.timedelta(seconds=62)
    with pytest.raises(LeaseHeldError):
        await sealing
    assert stage.resealed == []


@pytest.mark.promise("P36")
async def test_an_answer_of_a_lease_whose_token_was_sent_again_since_or_of_no_lease_is_not_taken(stage: Any) -> None:
    stage.answer = LOST
    await stage.ask()
    stage.now += dt.timedelta(seconds=62)
    await stage.ask()
    for fence in (0, 1, 3):
        with pytest.raises(AnswerNotAwaitedError):
            await stage.answers().claim(ACTING, "con", fence, "thumb")
    assert await stage.answers().claim(ACTING, "con", 2, "thumb")
    stage.change(state=State.DISCONNECTING)
    with pytest.raises(AnswerNotAwaitedError):
        await stage.answers().claim(ACTING, "con", 2, "thumb")
