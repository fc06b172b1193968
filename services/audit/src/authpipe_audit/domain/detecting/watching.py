"""Watching: goes through the log, event by event, and carries what detectors find to the incidents.

Findings are raised before what was looked at is remembered: whoever dies in between finds the same again, in the same
events, and raising it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from authpipe_audit.domain.detecting.baselines import baselines
from authpipe_audit.domain.detecting.bounds import NearBound
from authpipe_audit.domain.detecting.enumerating import Enumeration
from authpipe_audit.domain.detecting.places import NewAddressRange, UnusualHour
from authpipe_audit.domain.detecting.refreshes import ProviderFailures, RefreshStorm
from authpipe_audit.domain.detecting.reported import reported
from authpipe_audit.domain.detecting.traps import DisconnectedUse, Honeytoken
from authpipe_audit.domain.detecting.words import HOUR, Detector, Finding, Seen, State, Subject
from authpipe_audit.domain.trails import Trail

_MANY = 2000
_TOLD = "told"


class Profile(NamedTuple):
    """Whose state it is.

    Args:
        detector: The word of the detector.
        subject: Of whom.
    """

    detector: str
    subject: Subject


class Turn(Protocol):
    """One turn: nobody else looks at the log meanwhile, and what is remembered is remembered when it ends."""

    async def read(self, trail: Trail, limit: int) -> Sequence[Seen]:
        """Gives the next events of a trail that nobody has looked at."""

    async def states(self, profiles: Sequence[Profile]) -> dict[Profile, State]:
        """Gives what is remembered; of whom nothing is, does not stand in it."""

    async def remember(self, states: Mapping[Profile, State], seen: Seen) -> None:
        """Remembers states, and that everything up to an event of its trail was looked at."""


class Log(Protocol):
    """The log, as watchers see it."""

    def turn(self) -> AbstractAsyncContextManager[Turn | None]:
        """Begins a turn; None: somebody else is at it."""


class Incidents(Protocol):
    """Where findings go."""

    async def raise_all(self, findings: Sequence[Finding]) -> None:
        """Raises incidents of findings, durable on return; of what was raised already, nothing."""


def detectors(release_bound: int) -> list[Detector]:
    """Makes all of them.

    Args:
        release_bound: How many keys keyservice releases of a workspace in a minute.
    """
    return [
        *baselines(),
        NewAddressRange(),
        UnusualHour(),
        Enumeration(),
        RefreshStorm(),
        ProviderFailures(),
        NearBound(release_bound),
        DisconnectedUse(),
        Honeytoken(),
        *reported(),
    ]


class Watching:
    """Watches the log.

    Args:
        log: The log.
        incidents: Where findings go.
        each: The detectors.
        clock: Gives seconds.
    """

    def __init__(self, log: Log, incidents: Incidents, each: Sequence[Detector], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._log = log
        self._incidents = incidents
        self._detectors = each

    async def watch(self) -> bool:
        """Looks at the next events of every trail; says whether more of them wait.

        Raises:
            DomainError: The log or its database is away. Nothing was remembered; what was raised is raised.
        """
        waits = False
        async with self._log.turn() as turn:
            if turn is None:
                return False
            # What was disconnected and what is a decoy stands in this trail; uses in the others.
            for trail in (Trail.CONTROL, Trail.USER_CREDENTIALS, Trail.CLIENT_SECRETS):
                # An emitter whose clock is ahead must not move what we remember into the future, and so blind us.
                now = int(self._clock())
                events = [seen if seen.at <= now else seen._replace(at=now) for seen in await turn.read(trail, _MANY)]
                if not events:
                    continue
                states = await turn.states(list(profiles(self._detectors, events)))
                found = look(self._detectors, events, states)
                if found:
                    await self._incidents.raise_all(found)
                await turn.remember({key: state for key, state in states.items() if state}, events[-1])
                waits |= len(events) == _MANY
        return waits


def profiles(each: Iterable[Detector], events: Iterable[Seen]) -> set[Profile]:
    """Gives whose states are needed for these events."""
    events = list(events)
    return {
        Profile(detector.word, subject)
        for detector in each
        for seen in events
        if (subject := detector.subject(seen)) is not None
    }


def look(each: Sequence[Detector], events: Iterable[Seen], states: dict[Profile, State]) -> list[Finding]:
    """Lets all detectors look at events; gives what they find, of each subject once an hour at most.

    Args:
        each: The detectors.
        events: In their order.
        states: What is remembered; changed in place.
    """
    found = []
    for seen in events:
        for detector in each:
            subject = detector.subject(seen)
            if subject is None:
                continue
            state = states.setdefault(Profile(detector.word, subject), {})
            if detector.look(seen, state) and seen.at - state.get(_TOLD, -HOUR) >= HOUR:
                state[_TOLD] = seen.at
                found.append(Finding(detector.word, detector.severity, subject, seen))
    return found
