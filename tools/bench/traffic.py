"""A month of traffic with planted incidents, to see what detectors find of them and what they find where nothing is.

    python traffic.py SEED…      prints JSON: events, planted, found, alarms, true alarms, seconds, by detector

It is made of a seed, and as events look: offices that work by day, jobs that run at night or on Mondays, services that are
always busy, functions that come from a new address by the minute. What happens without harm is in it too: growth, a release
from other machines, overtime, a day on which everybody comes, Providers with hiccups, clients that have not heard of a
disconnect, ids mistyped. Detectors were tuned on seeds 1 to 3; `make bench` shows others.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from authpipe_audit.domain.detecting.watching import by_name, detectors, look, matches
from authpipe_audit.domain.detecting.words import DAY, HOUR, MINUTE, Finding, Profile, Seen, Subject
from authpipe_audit.domain.trails import Trail

DAYS, FIRST_INCIDENT_DAY = 30, 15
START = 20_000 * DAY
BOUND = 2_000
_PROVIDERS = ("google", "github", "slack", "hubspot", "salesforce")


@dataclass
class Key:
    """An API key and how it is used.

    Args:
        actor: Its name in events.
        kind: office, nightly, weekly, busy, functions.
        rate: Uses an hour, when it is at work.
        ranges: The first three numbers of the addresses it comes from.
    """

    actor: str
    kind: str
    rate: float
    ranges: list[str]


@dataclass
class Workspace:
    """A tenant."""

    name: str
    connections: list[str]
    keys: list[Key]


@dataclass
class Planted:
    """An incident that was put in.

    Args:
        what: The detectors any of which may find it.
        where: The workspace, or Provider.
        begins: When.
        ends: Until when.
    """

    what: tuple[str, ...]
    where: str
    begins: int
    ends: int

    def covers(self, finding: Finding) -> bool:
        """Says whether a finding is because of this one."""
        place = finding.subject.workspace or finding.subject.name
        return place == self.where and self.begins <= finding.seen.at <= self.ends + HOUR


@dataclass
class Month:
    """The traffic of a month.

    Args:
        seed: What it is made of.
    """

    seed: int
    planted: list[Planted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(f"authpipe {self.seed}")  # of a seed, for nothing secret  # noqa: S311
        self._leaf = 0
        self._extra: dict[int, list[Seen]] = {}
        self.workspaces = [self._workspace(number) for number in range(14)]
        self._providers = {
            connection: self._random.choice(_PROVIDERS)
            for workspace in self.workspaces
            for connection in workspace.connections
        }
        self._without_harm()
        self._plant()

    def events(self) -> Iterator[list[Seen]]:
        """Gives the events, hour by hour, each hour's in their order."""
        for hour in range(DAYS * 24):
            found = self._extra.pop(hour, [])
            for workspace in self.workspaces:
                for key in workspace.keys:
                    found += self._uses(workspace, key, hour)
            found += self._refreshes(hour)
            yield sorted(found, key=lambda seen: seen.at)

    def _workspace(self, number: int) -> Workspace:
        name, choose = f"ws_{number}", self._random
        connections = [f"con_{number}_{each}" for each in range(choose.choice((30, 80, 200, 400)))]
        kinds = ["office", *choose.sample(["nightly", "weekly", "busy", "functions", "office"], choose.randint(1, 3))]
        keys = [
            Key(
                f"api_key:key_{number}_{index}",
                kind,
                choose.uniform(10, 60),
                [
                    f"{choose.randint(11, 99)}.{choose.randint(0, 255)}.{choose.randint(0, 255)}"
                    for _ in range(choose.randint(1, 3))
                ],
            )
            for index, kind in enumerate(kinds)
        ]
        return Workspace(name, connections, keys)

    def _at_work(self, key: Key, hour: int) -> float:
        """Says how busy a key is at an hour; 0: not at all."""
        day, of_day = divmod(hour, 24)
        weekday, growth = day % 7 < 5, 1 + 0.01 * day
        match key.kind:
            case "office":
                shape = math.sin((of_day - 7) / 12 * math.pi) if 7 <= of_day < 19 else 0
                return growth * shape * (1 if weekday else 0.1)
            case "nightly":
                return growth * 4 * (of_day == 2)
            case "weekly":
                return 6.0 * (of_day == 4 and day % 7 == 0)
            case "busy":
                return growth * (0.7 + 0.3 * math.sin(of_day / 24 * 2 * math.pi))
            case _:
                return growth * (0.4 + 0.6 * weekday)

    def _uses(self, workspace: Workspace, key: Key, hour: int) -> Iterator[Seen]:
        busy = self._at_work(key, hour)
        everything = key.kind in {"nightly", "weekly"} and busy > 0
        amount = self._some(key.rate * busy)
        targets = workspace.connections if everything else None
        for nth in range(len(targets) if targets else amount):
            # A job goes through all of them in its hour; whoever answers people, where people are.
            target = targets[nth] if targets else self._popular(workspace.connections)
            at = hour * HOUR + (nth * HOUR // len(targets) if targets else self._random.randrange(HOUR))
            yield self._use(workspace, key, at, target)

    def _popular(self, connections: list[str]) -> str:
        return connections[int(len(connections) * self._random.random() ** 2)]

    def _some(self, mean: float) -> int:
        """Gives an amount around a mean, as independent visitors make it."""
        return max(0, round(self._random.gauss(mean, math.sqrt(mean)))) if mean else 0

    def _seen(self, at: int, name: str, workspace: str, **fields: Any) -> Seen:
        self._leaf += 1
        return Seen(
            Trail.USER_CREDENTIALS, self._leaf, fields.pop("emitter", "keyservice/user-credentials"), START + at, name,
            workspace, fields.pop("actor", "service:oauth/coordinator"), **fields,
        )  # fmt: skip

    def _use(self, workspace: Workspace, key: Key, at: int, target: str, source: str = "") -> Seen:
        if not source and key.kind == "functions":
            source = f"198.18.{self._random.randrange(256)}.{self._random.randrange(256)}"
        source = source or f"{self._random.choice(key.ranges)}.{self._random.randrange(1, 255)}"
        return self._seen(
            at, "RECORD_KEY_RELEASED", workspace.name, actor=key.actor, target=target, purpose="serve", source=source
        )

    def _refreshes(self, hour: int) -> Iterator[Seen]:
        for workspace in self.workspaces:
            for connection in self._random.sample(workspace.connections, len(workspace.connections) // 6):
                failed = self._random.random() < 0.02
                yield self._refresh(
                    workspace.name, connection, hour * HOUR + self._random.randrange(HOUR), failed=failed
                )

    def _refresh(self, workspace: str, connection: str, at: int, *, failed: bool) -> Seen:
        name = "REFRESH_FAILED" if failed else "TOKEN_REFRESHED"
        return self._seen(
            at, name, workspace, target=connection, provider=self._providers[connection], emitter="oauth/coordinator"
        )

    def _add(self, *events: Seen) -> None:
        for seen in events:
            self._extra.setdefault((seen.at - START) // HOUR, []).append(seen)

    def _without_harm(self) -> None:
        choose = self._random
        for workspace in self.workspaces:
            office = workspace.keys[0]
            # Ids mistyped, and clients that have not heard of a disconnect.
            for day in range(DAYS):
                at = day * DAY + choose.randrange(9, 17) * HOUR
                for nth in range(choose.randrange(4)):
                    self._add(self._refused(workspace, office, at + nth, f"con_typo_{day}_{nth}", "RECORD_NOT_FOUND"))
            gone = choose.choice(workspace.connections) + "_gone"
            at = choose.randrange(2, DAYS - 1) * DAY + 12 * HOUR
            self._add(
                self._seen(at, "CONNECTION_DISCONNECTING", workspace.name, target=gone, emitter="oauth/coordinator")
            )
            for nth in range(5):
                self._add(self._refused(workspace, office, at + 60 * nth, gone, "CONNECTION_DISCONNECTED"))
            # Overtime: an hour or two longer than usual.
            late = choose.randrange(8, DAYS) * DAY + 19 * HOUR
            self._add(
                *(
                    self._use(workspace, office, late + 600 * nth, self._popular(workspace.connections))
                    for nth in range(9)
                )
            )
        # A day on which everybody comes: twice as many.
        fair = choose.choice(self.workspaces)
        day = choose.randrange(8, DAYS)
        for hour in range(8, 18):
            for _ in range(self._some(fair.keys[0].rate)):
                at = day * DAY + hour * HOUR + choose.randrange(HOUR)
                self._add(self._use(fair, fair.keys[0], at, self._popular(fair.connections)))
        # A release from other machines, twice a month in all.
        for workspace in choose.sample(self.workspaces, 2):
            key, at = workspace.keys[0], choose.randrange(6, DAYS) * DAY + 10 * HOUR
            source = f"{choose.randint(100, 120)}.1.{choose.randrange(256)}.{choose.randrange(256)}"
            self._add(
                *(
                    self._use(workspace, key, at + 60 * nth, self._popular(workspace.connections), source)
                    for nth in range(9)
                )
            )

    def _refused(self, workspace: Workspace, key: Key, at: int, target: str, reason: str) -> Seen:
        source = f"{self._random.choice(key.ranges)}.9"
        return self._seen(
            at, "RECORDS_REFUSED", workspace.name, actor=key.actor, target=target, purpose="serve", source=source,
            reason=reason, emitter="vault",
        )  # fmt: skip

    def _plant(self) -> None:
        days = list(range(FIRST_INCIDENT_DAY, DAYS))
        for plant in (
            self._burst_of_connection, self._burst_of_key, self._stolen_key, self._by_night, self._enumeration,
            self._guessing, self._storm, self._outage, self._near_bound, self._disconnected, self._honeytoken,
        ):  # fmt: skip
            for day in self._random.sample(days, 4):
                plant(day)

    def _noon(self, day: int) -> int:
        return day * DAY + self._random.randrange(9, 17) * HOUR

    def _told(self, what: tuple[str, ...], where: str, events: list[Seen]) -> None:
        self._add(*events)
        self.planted.append(Planted(what, where, events[0].at, events[-1].at))

    def _any(self, kind: str = "office") -> tuple[Workspace, Key]:
        found = [(each, key) for each in self.workspaces for key in each.keys if key.kind == kind]
        return self._random.choice(found)

    def _burst_of_connection(self, day: int) -> None:
        workspace, key = self._any()
        at, target = self._noon(day), self._random.choice(workspace.connections)
        amount = self._random.randrange(250, 500)
        events = [self._use(workspace, key, at + nth * 3000 // amount, target) for nth in range(amount)]
        self._told(("CONNECTION_ABOVE_BASELINE",), workspace.name, events)

    def _burst_of_key(self, day: int) -> None:
        workspace, key = self._any()
        at, amount = self._noon(day), int(self._random.uniform(8, 14) * key.rate) + 300
        events = [
            self._use(workspace, key, at + nth * 3400 // amount, self._random.choice(workspace.connections))
            for nth in range(amount)
        ]
        self._told(("API_KEY_ABOVE_BASELINE", "WORKSPACE_ABOVE_BASELINE", "API_KEY_ENUMERATES"), workspace.name, events)

    def _stolen_key(self, day: int) -> None:
        workspace, key = self._any(self._random.choice(("office", "nightly")))
        at, source = self._noon(day), f"203.0.{self._random.randrange(256)}.{self._random.randrange(256)}"
        events = [
            self._use(workspace, key, at + 5 * nth, self._popular(workspace.connections), source)
            for nth in range(self._random.randrange(3, 30))
        ]
        self._told(("API_KEY_NEW_ADDRESS_RANGE",), workspace.name, events)

    def _by_night(self, day: int) -> None:
        workspace, key = self._any()
        at = day * DAY + self._random.randrange(0, 4) * HOUR
        events = [
            self._use(workspace, key, at + 9 * nth, self._popular(workspace.connections))
            for nth in range(self._random.randrange(3, 30))
        ]
        self._told(("API_KEY_UNUSUAL_HOUR",), workspace.name, events)

    def _enumeration(self, day: int) -> None:
        large = [each for each in self.workspaces if len(each.connections) >= 200]
        workspace = self._random.choice(large)
        key, at = workspace.keys[0], self._noon(day)
        targets = self._random.sample(workspace.connections, self._random.randrange(120, 200))
        events = [self._use(workspace, key, at + 2 * nth, target) for nth, target in enumerate(targets)]
        self._told(("API_KEY_ENUMERATES",), workspace.name, events)

    def _guessing(self, day: int) -> None:
        workspace, key = self._any(self._random.choice(("office", "busy")) if self.seed else "office")
        at = self._noon(day)
        events = [
            self._refused(workspace, key, at + nth, f"con_guess_{day}_{nth}", "RECORD_NOT_FOUND") for nth in range(40)
        ]
        self._told(("API_KEY_ENUMERATES",), workspace.name, events)

    def _storm(self, day: int) -> None:
        workspace, _ = self._any()
        at, target = self._noon(day), self._random.choice(workspace.connections)
        events = [self._refresh(workspace.name, target, at + 30 * nth, failed=False) for nth in range(80)]
        self._told(("CONNECTION_REFRESH_STORM",), workspace.name, events)

    def _outage(self, day: int) -> None:
        provider, at = self._random.choice(_PROVIDERS), self._noon(day)
        owners = {each: workspace.name for workspace in self.workspaces for each in workspace.connections}
        mine = [each for each in owners if self._providers[each] == provider]
        events = [
            self._refresh(owners[each], each, at + 5 * nth, failed=True)
            for nth, each in enumerate(self._random.sample(mine, min(len(mine), 300)))
        ]
        self._told(("PROVIDER_REFRESH_FAILURES",), provider, events)

    def _near_bound(self, day: int) -> None:
        workspace, _ = self._any()
        at = self._noon(day) // MINUTE * MINUTE
        events = [
            self._seen(at + nth * 58 // 1900, "WRITE_KEY_RELEASED", workspace.name, target=workspace.connections[0])
            for nth in range(1900)
        ]
        self._told(("WORKSPACE_NEAR_RELEASE_BOUND",), workspace.name, events)

    def _disconnected(self, day: int) -> None:
        workspace, key = self._any()
        target, at = f"{workspace.connections[0]}_ended_{day}", self._noon(day)
        told = self._seen(
            at - 2 * DAY, "CONNECTION_DISCONNECTING", workspace.name, target=target, emitter="oauth/coordinator"
        )
        self._add(told)
        events = [self._refused(workspace, key, at + nth, target, "CONNECTION_DISCONNECTED") for nth in range(3)]
        self._told(("DISCONNECTED_CONNECTION_USED",), workspace.name, events)

    def _honeytoken(self, day: int) -> None:
        workspace, key = self._any()
        target = f"{workspace.name}_decoy_{day}"
        self._add(self._seen(DAY, "DECOY_PLACED", workspace.name, target=target, emitter="oauth/coordinator"))
        self._told(("HONEYTOKEN_USED",), workspace.name, [self._use(workspace, key, self._noon(day), target)])


def incidents(findings: list[Finding]) -> list[Finding]:
    """Gives what opens an incident: of each detector and subject once a day, as if it were closed then."""
    last: dict[tuple[object, ...], int] = {}
    found = []
    for each in findings:
        name = (each.detector, each.subject)
        if each.seen.at - last.get(name, -DAY) >= DAY:
            last[name] = each.seen.at
            found.append(each)
    return found


def measure(seed: int) -> dict[str, object]:
    """Looks at a month; gives what was found."""
    month, profiles = Month(seed), dict[Subject, Profile]()
    each, findings, amount, spent = by_name(detectors(BOUND)), list[Finding](), 0, 0.0
    for hour in month.events():
        began = time.process_time()
        findings += look(matches(each, hour), profiles)
        spent += time.process_time() - began
        amount += len(hour)
    alarms = incidents(findings)
    true = [alarm for alarm in alarms if any(planted.covers(alarm) for planted in month.planted)]
    found = [
        planted
        for planted in month.planted
        if any(planted.covers(finding) and finding.detector in planted.what for finding in findings)
    ]
    return {
        "seed": seed,
        "events": amount,
        "planted": len(month.planted),
        "found": len(found),
        "alarms": len(alarms),
        "true_alarms": len(true),
        "seconds": spent,
        "missed": [planted.what[0] for planted in month.planted if planted not in found],
        "false": dict(Counter(alarm.detector for alarm in alarms if alarm not in true)),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps([measure(int(seed)) for seed in sys.argv[1:]], indent=1) + "\n")
