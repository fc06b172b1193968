"""When a token is due: before it ends, not before keyservice opens it, and not all at once; and when a failure is tried again."""

from __future__ import annotations

import datetime as dt

import pytest
from authpipe_oauth_coordinator.domain.due import MARGIN, due_at, failed
from authpipe_oauth_coordinator.domain.words import Failing
from hypothesis import given
from hypothesis import strategies as st

START = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
JITTER = st.floats(0, 1, exclude_max=True)


@pytest.mark.promise("P36")
@given(st.floats(1, 10 * 365 * 86_400), JITTER)
def test_a_token_is_due_within_the_smaller_of_a_quarter_of_an_hour_and_a_fifth_of_its_life(
    life: float, jitter: float
) -> None:
    ends = NOW + dt.timedelta(seconds=life)
    due = due_at(NOW, ends, jitter)
    assert due is not None
    margin = min(MARGIN, (ends - NOW) / 5)
    assert ends - margin <= due < ends
    assert due >= ends - MARGIN, "earlier, and keyservice does not open the refresh token"
    assert due > NOW


@pytest.mark.promise("P36")
def test_tokens_that_were_issued_together_are_not_due_together() -> None:
    ends = NOW + dt.timedelta(hours=1)
    due = [due_at(NOW, ends, number / 100) for number in range(100)]
    assert len(set(due)) == 100
    assert max(each for each in due if each) - min(each for each in due if each) > dt.timedelta(minutes=5)


def test_what_does_not_say_when_it_ends_is_never_due_and_what_has_ended_is_now() -> None:
    assert due_at(NOW, None, 0.5) is None
    assert due_at(NOW, NOW - dt.timedelta(seconds=1), 0.5) == NOW - dt.timedelta(seconds=1)


@given(st.integers(1, 1_000), st.integers(0, 10**9), JITTER)
def test_a_failure_is_tried_again_later_and_later_and_not_before_the_provider_wants_it(
    attempts: int, asked: int, jitter: float
) -> None:
    before = Failing("TIMEOUT", START, attempts, NOW)
    failing, due = failed(NOW, before, "PROVIDER_UNAVAILABLE", asked, jitter)
    assert (failing.reason, failing.since, failing.attempts) == ("PROVIDER_UNAVAILABLE", START, attempts + 1)
    pause, wait = ((each - NOW).total_seconds() for each in (due, failing.not_before))
    assert pause >= min(asked, 86_400)
    assert wait >= min(asked, 86_400)
    assert 10 <= pause <= 86_400
    if not asked:
        assert pause <= 3_600
        assert 1 <= wait <= 30
        assert failed(NOW, failing, "TIMEOUT", 0, jitter)[1] >= due


def test_the_first_failure_is_tried_again_within_seconds_and_our_own_whenever_somebody_asks() -> None:
    failing, due = failed(NOW, None, "CONNECTION_FAILED", 0, 0.0)
    assert failing == Failing("CONNECTION_FAILED", NOW, 1, NOW + dt.timedelta(seconds=1))
    assert due == NOW + dt.timedelta(seconds=5)
    for ours in ("AUDIT_UNAVAILABLE", "ANSWER_SPOOLED", "ANSWER_AWAITED", "DEPENDENCY_UNAVAILABLE"):
        assert failed(NOW, None, ours, 0, 0.0)[0].not_before == NOW
