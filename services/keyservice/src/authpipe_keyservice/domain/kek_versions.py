"""KEK versions: what each state allows, and every move between them.

    from       to          by                       condition
    –          prepared    schedule, operator       no other version is prepared
    prepared   primary     any replica              every live replica has opened the version's canary
    primary    active      the same act             another version became primary
    active     disabled    re-wrapper, operator     no DEK is wrapped by it
    disabled   active      operator                 –
    disabled   destroyed   two operators            disabled for the grace period; the second asks within a day
    prepared   destroyed   two operators            –  (a version that some replica cannot open)

A prepared version is used for nothing but its canary. The primary one wraps and unwraps, an active one unwraps. With a
disabled one nothing is possible, and it comes back; a destroyed one never does. Names of states are those of Google's
Cloud KMS where they mean the same.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from authpipe_keyservice.errors import GracePeriodError, KekStateError
from authpipe_sensitive import Label

SECOND_WITHIN_SECONDS = 86_400.0


class KeyVersionState(enum.Enum):
    """What can be done with a version of a KEK or DEK."""

    PREPARED = "prepared"
    PRIMARY = "primary"
    ACTIVE = "active"
    DISABLED = "disabled"
    DESTROYED = "destroyed"

    @property
    def unwraps(self) -> bool:
        """Whether what it wrapped opens."""
        return self in {KeyVersionState.PRIMARY, KeyVersionState.ACTIVE}


_MOVES = {
    (KeyVersionState.PREPARED, KeyVersionState.PRIMARY),
    (KeyVersionState.PREPARED, KeyVersionState.DESTROYED),
    (KeyVersionState.PRIMARY, KeyVersionState.ACTIVE),
    (KeyVersionState.ACTIVE, KeyVersionState.DISABLED),
    (KeyVersionState.DISABLED, KeyVersionState.ACTIVE),
    (KeyVersionState.DISABLED, KeyVersionState.DESTROYED),
}


@dataclass(frozen=True, slots=True)
class KekVersion:
    """A version of a key domain's KEK. Times are seconds since the epoch; 0: not yet.

    Args:
        version: Its number, from 1.
        state: What can be done with it.
        canary: A random value that it wraps; empty: the key is not in the token yet.
        created: When it was asked for.
        primary_since: When it became primary.
        disabled: When it was disabled last.
        held: An operator enabled it by hand: it is not disabled again by itself.
        first_destroyer: The operator who asked first for its destruction; empty: nobody did.
        destruction_asked: When that was.
        erased: Whether a destroyed key has left the token too.
    """

    version: int
    state: KeyVersionState
    canary: bytes
    created: float
    primary_since: float = 0.0
    disabled: float = 0.0
    held: bool = False
    first_destroyer: str = ""
    destruction_asked: float = 0.0
    erased: bool = False


def require_move(version: KekVersion, to: KeyVersionState) -> None:
    """Returns when the table has this move.

    Raises:
        KekStateError: It has not.
    """
    if (version.state, to) not in _MOVES:
        raise KekStateError(version=version.version, state=Label(version.state.value), wanted=Label(to.value))


def is_second_request(version: KekVersion, operator: str, now: float, grace_seconds: float) -> bool:
    """Says whether a request to destroy is the second one that carries it out; the first one is noted only.

    Args:
        version: The version.
        operator: Who asks.
        now: Seconds since the epoch.
        grace_seconds: How long it has to be disabled.

    Raises:
        KekStateError: Its state does not allow it.
        GracePeriodError: It was disabled too short a time ago.
    """
    require_move(version, KeyVersionState.DESTROYED)
    if version.state is KeyVersionState.DISABLED and now < version.disabled + grace_seconds:
        raise GracePeriodError(not_before_s=int(version.disabled + grace_seconds) + 1)
    fresh = now < version.destruction_asked + SECOND_WITHIN_SECONDS
    return bool(version.first_destroyer) and fresh and version.first_destroyer != operator
