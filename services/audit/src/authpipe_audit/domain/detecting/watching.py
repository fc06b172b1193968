"""Watching: goes through the log, event by event, and carries what detectors find to the incidents.

One process watches at a time. It has in memory what detectors remember, and writes that down now and then, together with
how far it has looked: whoever dies in between looks at the same events again, from what was remembered then, and finds
the same; raising it again changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple, Protocol

from authpipe_audit.domain.detecting.baselines import baselines
from authpipe_audit.domain.detecting.bounds import NearBound
from authpipe_audit.domain.detecting.enumerating import Enumeration
from authpipe_audit.domain.detecting.places import NewAddressRange, UnusualHour
from authpipe_audit.domain.detecting.refreshes import ProviderFailures, RefreshStorm
from authpipe_audit.domain.detecting.reported import reported
from authpipe_audit.domain.detecting.traps import DisconnectedUse, Honeytoken
from authpipe_audit.domain.detecting.words import HOUR, Detector, Finding, Profile, Seen, Subject
from authpipe_audit.domain.trails import Trail

# Looked at in one go: longer, and whoever wants something of the log meanwhile would wait for it.
_MANY = 500
# Of more subjects nothing is kept in memory once it is written down; and what is remembered of so many is written down at once.
_MOST_KNOWN, _MOST_CHANGED = 50_000, 10_000
_TOLD = "told"


class Part(NamedTuple):
    """A part of a trail.

    Args:
        events: Those that somebody looks at, in their order.
        next_leaf: Where the next part begins.
        is_last: Whether nothing more is there yet.
    """

    events: Sequence[Seen]
    next_leaf: int
    is_last: bool


class Alone(Protocol):
    """The log and what is remembered of it, as the only one sees it who watches."""

    async def begins(self) -> dict[Trail, int]:
        """Gives the leaf of each trail up to which everything was looked at when it was last written down."""

    async def read(self, trail: Trail, first_leaf: int, names: Collection[str], leaves: int) -> Part:
        """Gives the events of these names among so many leaves."""

    async def profiles(self, subjects: Sequence[Subject]) -> dict[Subject, Profile]:
        """Gives what is written down; of whom nothing is, does not stand in it."""

    async def remember(self, profiles: Mapping[Subject, Profile], next_leaves: Mapping[Trail, int], now: int) -> None:
        """Writes down profiles and how far each trail was looked at, all or nothing; forgets of whom long nothing happened."""


class Log(Protocol):
    """The log, as watchers see it."""

    def alone(self) -> AbstractAsyncContextManager[Alone | None]:
        """Begins to watch: nobody else does meanwhile. None: somebody else does."""


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
        remember_seconds: How often what detectors remember is written down.
    """

    def __init__(
        self,
        log: Log,
        incidents: Incidents,
        each: Iterable[Detector],
        clock: Callable[[], float],
        remember_seconds: float,
    ) -> None:
        self._log = log
        self._incidents = incidents
        self._detectors = by_name(each)
        self._clock = clock
        self._remember_seconds = remember_seconds

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Watcher | None]:
        """Begins to watch; None: somebody else does. What it remembers is written down when it ends well.

        Raises:
            DomainError: The log or its database is away.
        """
        async with self._log.alone() as alone:
            if alone is None:
                yield None
                return
            watcher = Watcher(alone, self._incidents, self._detectors, self._clock, self._remember_seconds)
            yield watcher
            await watcher.remember()


class Watcher:
    """The only one who watches. After an error it is not to be used again: what it has in memory is half of something.

    Args:
        alone: The log.
        incidents: Where findings go.
        detectors: The detectors, by the names of the events that they look at.
        clock: Gives seconds.
        remember_seconds: How often what they remember is written down.
    """

    def __init__(
        self,
        alone: Alone,
        incidents: Incidents,
        detectors: Mapping[str, Sequence[Detector]],
        clock: Callable[[], float],
        remember_seconds: float,
    ) -> None:
        self._alone = alone
        self._incidents = incidents
        self._detectors = detectors
        self._clock = clock
        self._remember_seconds = remember_seconds
        self._next_leaves: dict[Trail, int] = {}
        self._remembered: dict[Trail, int] = {}
        self._profiles: dict[Subject, Profile] = {}
        self._changed: set[Subject] = set()
        self._written_at = clock()

    async def look(self) -> bool:
        """Looks at the next events of every trail; says whether more of them wait.

        Raises:
            DomainError: The log or its database is away. What was raised is raised.
        """
        if not self._next_leaves:
            self._remembered = await self._alone.begins()
            self._next_leaves = dict(self._remembered)
        waits = False
        # What was disconnected and what is a decoy stands in this trail; uses in the others.
        for trail in (Trail.CONTROL, Trail.USER_CREDENTIALS, Trail.CLIENT_SECRETS):
            part = await self._alone.read(trail, self._next_leaves[trail], self._detectors.keys(), _MANY)
            await self._judge(part.events)
            self._next_leaves[trail] = part.next_leaf
            waits |= not part.is_last
        if len(self._changed) > _MOST_CHANGED or self._clock() - self._written_at >= self._remember_seconds:
            await self.remember()
        return waits

    async def remember(self) -> None:
        """Writes down what is remembered, and how far it was looked.

        Raises:
            DomainError: The log's database is away.
        """
        self._written_at = self._clock()
        if self._next_leaves == self._remembered:
            return
        changed = {
            subject: profile
            for subject in self._changed
            if (profile := {word: state for word, state in self._profiles[subject].items() if state})
        }
        await self._alone.remember(changed, self._next_leaves, int(self._written_at))
        self._remembered = dict(self._next_leaves)
        self._changed.clear()
        if len(self._profiles) > _MOST_KNOWN:
            self._profiles.clear()

    async def _judge(self, events: Sequence[Seen]) -> None:
        # An emitter whose clock is ahead must not move what we remember into the future, and so blind us.
        now = int(self._clock())
        watched = matches(self._detectors, [each if each.at <= now else each._replace(at=now) for each in events])
        concerned = {subject for _, subject, _ in watched}
        if unknown := concerned - self._profiles.keys():
            self._profiles |= await self._alone.profiles(list(unknown))
        found = look(watched, self._profiles)
        self._changed |= concerned
        if found:
            await self._incidents.raise_all(found)


class Match(NamedTuple):
    """What a detector has to look at."""

    detector: Detector
    subject: Subject
    seen: Seen


def by_name(each: Iterable[Detector]) -> dict[str, list[Detector]]:
    """Gives the detectors that look at events of a name, by name."""
    found = defaultdict[str, list[Detector]](list)
    for detector in each:
        for name in detector.names:
            found[name].append(detector)
    return dict(found)


def matches(detectors: Mapping[str, Sequence[Detector]], events: Iterable[Seen]) -> list[Match]:
    """Gives which detector has to look at which event, and of whom it remembers something for that, in the order of the events."""
    return [
        Match(detector, subject, seen)
        for seen in events
        for detector in detectors.get(seen.name, ())
        if (subject := detector.subject(seen)) is not None
    ]


def look(each: Iterable[Match], profiles: dict[Subject, Profile]) -> list[Finding]:
    """Lets detectors look at events; gives what they find, of each subject once an hour at most.

    Args:
        each: Which at which, in the order of the events.
        profiles: What is remembered; changed in place.
    """
    found = []
    for detector, subject, seen in each:
        state = profiles.setdefault(subject, {}).setdefault(detector.word, {})
        if detector.look(seen, state) and seen.at - state.get(_TOLD, -HOUR) >= HOUR:
            state[_TOLD] = seen.at
            found.append(Finding(detector.word, detector.severity, subject, seen))
    return found
