"""First use of an API key from a new address range, or at an hour at which it is never used.

A server's addresses change seldom, and a person's job runs by day: an API key that was used for some days from a few ranges
only, and is used from another, may have been taken along. Of a key that keeps coming from new ranges, as from machines that
are made by the minute, nothing is learned by that, and nothing is said.
"""

from __future__ import annotations

import ipaddress

from authpipe_audit.domain.detecting.words import DAY, HOUR, USE_NAMES, Seen, Severity, State, Subject

_KNOWN_DAYS, _KNOWN_USES = 3, 100
# New ranges within two weeks after which a key roams; and how many are remembered.
_ROAMS, _MOST, _DAYS = 4, 64, 14
_HOURS_DAYS, _HOURS_USES = 7, 200


def range_of(address: str) -> str:
    """Gives the range of an address: IPv4 /24, IPv6 /48; empty: it is none."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    bits = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network((found, bits), strict=False))


class NewAddressRange:
    """Remembers the ranges of each API key, each with the day on which it was seen first and last."""

    word = "API_KEY_NEW_ADDRESS_RANGE"
    severity = Severity.MEDIUM
    names = USE_NAMES

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the API key of a use whose address is known."""
        return Subject(seen.workspace, seen.actor) if seen.is_use and seen.source else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether the range is new to a key that is known and does not roam."""
        found = range_of(seen.source)
        if not found:
            return False
        day = seen.at // DAY
        since = state.setdefault("since", day)
        uses = state["uses"] = state.get("uses", 0) + 1
        known = f"last {found}" in state
        state[f"last {found}"] = day
        if known:
            return False
        state[f"first {found}"] = day
        self._forget(state)
        is_known = day - since >= _KNOWN_DAYS and uses > _KNOWN_USES
        late = [
            first
            for key, first in state.items()
            if key.startswith("first ") and first > since + 1 and day - first < _DAYS
        ]
        return is_known and len(late) < _ROAMS

    def _forget(self, state: State) -> None:
        lasts = sorted((last, key) for key, last in state.items() if key.startswith("last "))
        for _, key in lasts[:-_MOST]:
            del state[key]
            del state[f"first {key.removeprefix('last ')}"]


class UnusualHour:
    """Remembers of each API key the day on which each hour of the day was used last."""

    word = "API_KEY_UNUSUAL_HOUR"
    severity = Severity.LOW
    names = USE_NAMES

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the API key of a use."""
        return Subject(seen.workspace, seen.actor) if seen.is_use else None

    def look(self, seen: Seen, state: State) -> bool:
        """Says whether a key that is known was not used around this hour for two weeks."""
        day, hour = seen.at // DAY, seen.at // HOUR % 24
        since = state.setdefault("since", day)
        uses = state["uses"] = state.get("uses", 0) + 1
        around = [state.get(f"hour {(hour + beside) % 24}") for beside in (-2, -1, 0, 1, 2)]
        state[f"hour {hour}"] = day
        is_usual = any(last is not None and day - last <= _DAYS for last in around)
        return not is_usual and day - since >= _HOURS_DAYS and uses > _HOURS_USES
