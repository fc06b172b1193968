"""A refresh that did not end: the answer is looked for, and a token that may be spent is sent again only as its Provider allows."""

from __future__ import annotations

import datetime as dt

import pytest
from authpipe_oauth_coordinator.domain.unfinished import Spending, decide, left_by
from authpipe_oauth_coordinator.domain.words import Left, ProviderConfig, Renewal, TokenOutcome, Unfinished
from authpipe_providers import Endpoints, Entry, Rotation
from hypothesis import given
from hypothesis import strategies as st

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENDPOINTS = Endpoints("", "https://as.example/a", "https://as.example/t", "", "none", iss_required=False)
PATIENCE = dt.timedelta(minutes=15)
SPENT = Left(Unfinished.SPENT, 3, START)
SPOOLED = SPENT._replace(unfinished=Unfinished.SPOOLED)


def config(rotation: Rotation, grace: int = 0) -> ProviderConfig:
    entry = Entry("p", "P", rotation=rotation, grace_seconds=grace)
    return ProviderConfig("ws", "pc", "p", "P", "c", (), (), ENDPOINTS, bytes(32), START, entry)


def after(
    left: Left,
    seconds: float,
    rotation: Rotation = Rotation.STRICT,
    grace: int = 0,
    renewal: Renewal = Renewal.REFRESH_TOKEN,
    *,
    settled: bool = True,
) -> Spending:
    now = START + dt.timedelta(seconds=seconds)
    return decide(left, config(rotation, grace), renewal, now, PATIENCE, settled=settled)


@pytest.mark.promise("P36")
@pytest.mark.case(23)
def test_the_table() -> None:
    assert after(Left(), 0) is Spending.SEND
    # Not rotated: it may be sent whenever.
    assert after(SPENT, 0, Rotation.NONE) is after(SPOOLED, 0, Rotation.NONE) is Spending.SEND
    # With grace: within its seconds, and then as with strict.
    assert after(SPENT, 9, Rotation.GRACE, 10) is Spending.SEND
    assert after(SPENT, 10, Rotation.GRACE, 10) is Spending.LOOK
    assert after(SPENT, 61, Rotation.GRACE, 10) is Spending.RETRY
    # Strict: the answer is waited for, longer where there is one; then once more, carefully.
    assert after(SPENT, 59) is Spending.LOOK
    assert after(SPENT, 61) is Spending.RETRY
    assert after(SPOOLED, 61) is Spending.LOOK
    assert after(SPOOLED, 901) is Spending.RETRY
    # The answer to a retry is waited for too, and one that was lost is made again: it does no more harm.
    again = SPENT._replace(retries=1, again_at=START + dt.timedelta(seconds=61))
    assert after(again, 100) is Spending.LOOK
    assert after(again, 122) is Spending.RETRY
    assert after(SPENT._replace(retries=3, again_at=START), 61) is Spending.GIVE_UP
    assert after(SPENT._replace(retries=3, again_at=START), 59) is Spending.LOOK
    # After an outage of our own, however long: who has an answer brings it first.
    for left in (SPENT, SPOOLED, SPENT._replace(retries=3, again_at=START)):
        assert after(left, 3_600, settled=False) is Spending.LOOK
    assert after(Left(), 0, settled=False) is Spending.SEND
    # What stands in the place of a refresh token is good for as often as one likes.
    assert after(SPENT, 0, renewal=Renewal.JWT_BEARER) is Spending.SEND


@pytest.mark.promise("P36")
@given(
    st.sampled_from([SPENT, SPOOLED]),
    st.integers(0, 4),
    st.floats(0, 2_000),
    st.sampled_from([Rotation.STRICT, Rotation.GRACE]),
    st.integers(1, 600),
)
def test_a_strict_provider_sees_a_token_that_may_be_spent_a_few_times_more_at_most_and_not_at_once(
    left: Left, retries: int, seconds: float, rotation: Rotation, grace: int
) -> None:
    found = after(left._replace(retries=retries), seconds, rotation, grace)
    if found is Spending.SEND:
        assert rotation is Rotation.GRACE
        assert seconds < grace
    if found is Spending.RETRY:
        assert retries < 3
        assert seconds >= 60


@pytest.mark.promise("P36")
def test_what_a_refresh_leaves() -> None:
    meanwhile = Left(Unfinished.SPENT, 7, START)
    assert left_by(TokenOutcome(""), SPENT, meanwhile) == Left()
    assert left_by(TokenOutcome("INVALID_GRANT"), SPENT, meanwhile) == Left(), "an answer is an answer"
    assert left_by(TokenOutcome("TIMEOUT", nothing_sent=True), SPENT, meanwhile) == SPENT
    assert left_by(TokenOutcome("PROVIDER_ANSWER_LOST"), Left(), meanwhile) == meanwhile
    assert left_by(TokenOutcome("ANSWER_STORED"), Left(), meanwhile) == meanwhile
    assert left_by(TokenOutcome("ANSWER_SPOOLED"), Left(), meanwhile).unfinished is Unfinished.SPOOLED
