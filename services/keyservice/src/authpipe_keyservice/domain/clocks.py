"""Clocks: a signer whose clock differs from ours by up to 5 s is like any other; up to 30 s it works, and raises an alarm.

Signers hand out a grant again for ten seconds and edge keeps one for five, so an honest one is at most 15 s old when keys
are asked for under it. What is older was signed by a clock that is behind; what is from the future, by one that is ahead.
"""

from __future__ import annotations

from authpipe_grants import Grant, GrantTimeError

OLDEST_SECONDS = 15.0
FINE_SECONDS = 5.0
MOST_SECONDS = 30.0


def require_clock(grant: Grant, now: float) -> float:
    """Gives by how many seconds the signer's clock surely differs from ours; 0: not enough for an alarm.

    Raises:
        GrantTimeError: By more than 30 s.
    """
    age = now - grant.issued_at
    differs = max(-age, age - OLDEST_SECONDS, 0.0)
    # A second of the difference is the rounding of `iat`.
    if differs > MOST_SECONDS + 1:
        raise GrantTimeError(ahead_s=int(-age))
    return differs if differs > FINE_SECONDS + 1 else 0.0
