"""When a token is refreshed: some time before it ends, and later and later after failures."""

from __future__ import annotations

from datetime import datetime, timedelta

# keyservice opens a refresh token earlier than this before the end only for a forced refresh.
MARGIN = timedelta(minutes=15)
_FIRST_RETRY, _LONGEST_RETRY = timedelta(seconds=10), timedelta(hours=1)


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


def retry_at(now: datetime, attempts: int, retry_after_seconds: int, jitter: float) -> datetime:
    """Gives when a refresh that failed is tried again.

    Args:
        now: The time.
        attempts: How often it has failed in a row, this time included.
        retry_after_seconds: What the Provider asked for (RFC 9110, section 10.2.3); 0: nothing.
        jitter: 0 to 1, random.

    Returns:
        Ten seconds from now, doubled with each failure up to an hour, and half of that at random; never before what the
        Provider asked for, up to a day.
    """
    pause = min(_FIRST_RETRY * (1 << min(attempts - 1, 20)), _LONGEST_RETRY)
    asked = timedelta(seconds=min(retry_after_seconds, 86_400))
    return now + max(pause * (0.5 + jitter / 2), asked)
