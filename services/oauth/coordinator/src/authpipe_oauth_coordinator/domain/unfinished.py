"""A refresh that did not end: whether its refresh token may be sent again (ARCHITECTURE §7; case 23).

A refresh token that was sent may be spent, and the answer to it, with the next one, be in vault, on a worker's disk, or
nowhere. The answer is looked for first, always. Only where it is not found:

    rotation   what is done
    none       the token is sent again: it is good for as often as one likes
    grace      within the Provider's seconds it is sent again; after that as with strict
    strict     for a while only the answer is waited for, which a worker's disk may bring back; then the token is sent
               once more, carefully: a Provider that never saw it answers, one that did may end the family, and the end
               user has to connect the account again. A retry that is lost itself does no more harm the next time; after
               three nobody waits any longer.

Neither is done while the system is still settling after an outage of its own, however long that was: who waits then had
nobody to bring its answer to, and brings it in the first seconds.
"""

from __future__ import annotations

import enum
from datetime import datetime, timedelta

from authpipe_oauth_coordinator.domain.words import Left, ProviderConfig, Renewal, TokenOutcome, Unfinished
from authpipe_providers import Rotation

# For how long an answer is waited for of which nobody knows whether there is one: longer than a worker waits for it.
_UNKNOWN = timedelta(seconds=60)
_MOST_RETRIES = 3
# Workers look once a second whether what is on their disks is taken.
SETTLING = timedelta(seconds=15)
# What a worker says when a token was sent, or may have been, and what came of it is not known, or stored and not judged.
_NOT_JUDGED = {"PROVIDER_ANSWER_LOST", "ANSWER_STORED"}


class Spending(enum.Enum):
    """What may be done with a refresh token.

    SEND: send it. LOOK: look for the answer, and send nothing. RETRY: send it, this once. GIVE_UP: it is lost.
    """

    SEND = "send"
    LOOK = "look"
    RETRY = "retry"
    GIVE_UP = "give_up"


def decide(  # required means argument
    left: Left, config: ProviderConfig, renewal: Renewal, now: datetime, spool_patience: timedelta, *, settled: bool
) -> Spending:
    """Decides what may be done with a refresh token.

    Args:
        left: What the refresh before has left.
        config: With what its Provider does.
        renewal: What stands in the place of a refresh token, which is good for as often as one likes.
        now: The time.
        spool_patience: For how long an answer on a worker's disk is waited for.
        settled: Whether the last outage of our own is long enough ago.
    """
    if left.unfinished is Unfinished.NOTHING or left.since is None:
        return Spending.SEND
    if config.entry.rotation is Rotation.NONE or renewal is not Renewal.REFRESH_TOKEN:
        return Spending.SEND
    grace = timedelta(seconds=config.entry.grace_seconds)
    if config.entry.rotation is Rotation.GRACE and now - left.since < grace:
        return Spending.SEND
    waited = now - (left.again_at or left.since)
    if not settled or waited < (spool_patience if left.unfinished is Unfinished.SPOOLED else _UNKNOWN):
        return Spending.LOOK
    return Spending.GIVE_UP if left.retries >= _MOST_RETRIES else Spending.RETRY


def left_by(outcome: TokenOutcome, before: Left, meanwhile: Left) -> Left:
    """Gives what a refresh leaves.

    Args:
        outcome: What the worker says of it.
        before: What the one before it had left.
        meanwhile: What it would have left, had it died: its token may be spent.
    """
    if outcome.nothing_sent:
        return before
    if outcome.failure == "ANSWER_SPOOLED":
        return meanwhile._replace(unfinished=Unfinished.SPOOLED)
    return meanwhile if outcome.failure in _NOT_JUDGED else Left()
