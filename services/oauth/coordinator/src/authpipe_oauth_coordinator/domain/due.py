"""When a token is refreshed: some time before it ends, and later and later after failures."""

from __future__ import annotations

from datetime import datetime, timedelta

from authpipe_oauth_coordinator.domain.failures import Cure, meaning
from authpipe_oauth_coordinator.domain.words import Failing

# keyservice opens a refresh token earlier than this before the end only for a forced refresh.
MARGIN = timedelta(minutes=15)
_FIRST_RETRY, _LONGEST_RETRY = timedelta(seconds=10), timedelta(hours=1)
# What is our own is mended sooner than a Provider, and nobody is burdened by a try.
_LONGEST_OF_OURS = timedelta(seconds=30)
# Whoever waits for a token may try sooner than the schedule does, but not as often as they ask.
_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=30)
LONGEST_ASKED = timedelta(days=1)


def due_at(now: datetime, expires_at: datetime | None, jitter: float) -> datetime | None:
    """Gives when a token is due.

    Args:
        now: The time, when the token was issued.
        expires_at: When it ends; None: it does not say, and is never due.
        jitter: 0 to 1, random: tokens that were issued together are not due together.

    Returns:
        Within the margin, which is the smaller of 15 minutes and a fifth of its life, and in the first half of that.
    """
    if expires_at is None:
        return None
    margin = min(MARGIN, max(timedelta(0), expires_at - now) / 5)
    return expires_at - margin * (1 - jitter / 2)


def later(attempts: int, jitter: float, longest: timedelta = _LONGEST_RETRY) -> timedelta:
    """Gives how long to wait after so many failures in a row: ten seconds, doubled up to an hour, half of it at random."""
    return min(_FIRST_RETRY * (1 << min(attempts - 1, 20)), longest) * (0.5 + jitter / 2)


def failed(
    now: datetime, before: Failing | None, reason: str, retry_after_seconds: int, jitter: float
) -> tuple[Failing, datetime]:
    """Gives what a connection's refreshes are after one more has failed, and when the schedule tries again.

    Args:
        now: The time.
        before: What they were before; None: the last one was good.
        reason: Why it failed.
        retry_after_seconds: What the Provider asked for (RFC 9110, section 10.2.3); 0: nothing.
        jitter: 0 to 1, random.

    Returns:
        The schedule tries ten seconds from now, doubled with each failure up to an hour, and half of that at random; where
        the failure is our own, up to half a minute.
        Whoever asks for the token may have it tried after a second, doubled up to half a minute, or at once where the
        failure is our own. Neither before what the Provider asked for, up to a day.
    """
    attempts = before.attempts + 1 if before else 1
    doubled = 1 << min(attempts - 1, 20)
    asked = min(timedelta(seconds=retry_after_seconds), LONGEST_ASKED)
    ours = meaning(reason).cure is Cure.OURSELVES
    pause = max(timedelta(0) if ours else min(_FIRST_PAUSE * doubled, _LONGEST_PAUSE), asked)
    retry = max(later(attempts, jitter, _LONGEST_OF_OURS if ours else _LONGEST_RETRY), asked)
    return Failing(reason, before.since if before else now, attempts, now + pause), now + retry
