"""A refresh that did not end: the answer is looked for, and a token that may be spent is sent again only as its Provider allows."""

from __future__ import annotations

import datetime as dt

import pytest
from authpipe_oauth_coordinator.domain.unfinished import Spending, decide, left_by
from authpipe_oauth_coordinator.domain.words import Left, ProviderConfig, TokenOutcome, Unfinished
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


def after(left: Left, seconds: float, rotation: Rotation = Rotation.STRICT, grace: int = 0) -> Spending:
    return decide(left, config(rotation, grace), START + dt.timedelta(seconds=seconds), PATIENCE)


@pytest.mark.promise("P36")
@pytest.mark.case(23)
def test_the_table() -> None:
    assert after(Left(), 0) is Spending.SEND
    # Not rotated: it may be sent whenever.
    assert after(SPENT, 0, Rotation.NONE) is after(SPOOLED, 0, Rotation.NONE) is Spending.SEND
    # With grace: within its seconds, and then as with strict.
    assert after(SPENT, 9, Rotation.GRACE, 10) is Spending.SEND
    assert after(SPENT, 10, Rotation.GRACE, 10) is Spending.LOOK
    assert after(SPENT, 31, Rotation.GRACE, 10) is Spending.RETRY
    # Strict: the answer is waited for, longer where there is one; then once, carefully; then never.
    assert after(SPENT, 29) is Spending.LOOK
    assert after(SPENT, 31) is Spending.RETRY
    assert after(SPOOLED, 31) is Spending.LOOK
    assert after(SPOOLED, 901) is Spending.RETRY
    assert after(SPENT._replace(retried=True), 31) is Spending.GIVE_UP
    assert after(SPENT._replace(retried=True), 29) is Spending.LOOK


@pytest.mark.promise("P36")
@given(
    st.sampled_from([SPENT, SPOOLED]),
    st.booleans(),
    st.floats(0, 2_000),
    st.sampled_from([Rotation.STRICT, Rotation.GRACE]),
    st.integers(1, 600),
)
def test_a_strict_provider_sees_a_token_that_may_be_spent_at_most_once_more_and_not_at_once(
    left: Left, retried: bool, seconds: float, rotation: Rotation, grace: int
) -> None:
    found = after(left._replace(retried=retried), seconds, rotation, grace)
    if found is Spending.SEND:
        assert rotation is Rotation.GRACE
        assert seconds < grace
    if found is Spending.RETRY:
        assert not retried
        assert seconds >= 30


@pytest.mark.promise("P36")
def test_what_a_refresh_leaves() -> None:
    meanwhile = Left(Unfinished.SPENT, 7, START)
    assert left_by(TokenOutcome(""), SPENT, meanwhile) == Left()
    assert left_by(TokenOutcome("INVALID_GRANT"), SPENT, meanwhile) == Left(), "an answer is an answer"
    assert left_by(TokenOutcome("TIMEOUT", nothing_sent=True), SPENT, meanwhile) == SPENT
    assert left_by(TokenOutcome("PROVIDER_ANSWER_LOST"), Left(), meanwhile) == meanwhile
    assert left_by(TokenOutcome("ANSWER_STORED"), Left(), meanwhile) == meanwhile
    assert left_by(TokenOutcome("ANSWER_SPOOLED"), Left(), meanwhile).unfinished is Unfinished.SPOOLED
