"""Enumeration: one API key goes through many connections, or asks for many that are not there, in ten minutes.

How many different ones it had is estimated from a bitmap (linear counting: Whang, Vander-Zanden, Taylor, 1990), and compared
with the second highest of the days on which the key was used, or the highest of one that is used seldom: a job that goes through all
of them every night, or every Monday, is usual.
"""

from __future__ import annotations

import math
import zlib

from authpipe_audit.domain.detecting.words import DAY, MINUTE, REFUSED_NAMES, USE_NAMES, Seen, Severity, State, Subject

_WINDOW = 10 * MINUTE
_BITS = 4096
_DAYS, _KNOWN_DAYS, _FACTOR = 14, 3, 3
_FLOOR, _FLOOR_OF_NEW = 60, 1000
_MISSING = 20


def distinct(bitmap: int) -> int:
    """Estimates how many different things set these bits."""
    zeros = _BITS - bitmap.bit_count()
    return round(-_BITS * math.log(max(zeros, 1) / _BITS))


class Enumeration:
    """Remembers of each API key the connections of these ten minutes, and the most of each day."""

    word = "API_KEY_ENUMERATES"
    severity = Severity.HIGH
    names = USE_NAMES | REFUSED_NAMES

    def subject(self, seen: Seen) -> Subject | None:
        """Gives the API key of a use, or of one that was refused."""
        return Subject(seen.workspace, seen.actor) if seen.is_use or seen.is_refused_use else None

    def look(self, seen: Seen, state: State) -> bool:
        """Counts, and compares with what is usual of this key."""
        window, day = seen.at // _WINDOW, seen.at // DAY
        since = state.setdefault("since", day)
        if window > state.get("window", 0):
            state |= {"window": window, "bitmap": 0, "missing": 0, "limit": self._limit(day, since, state)}
        bit = 1 << (zlib.crc32(seen.target.encode()) % _BITS)
        if seen.is_refused_use:
            if seen.reason == "RECORD_NOT_FOUND" and not state["bitmap"] & bit:
                state["bitmap"] |= bit
                state["missing"] += 1
            return state["missing"] >= _MISSING
        if state["bitmap"] & bit:
            return False
        state["bitmap"] |= bit
        found, key = distinct(state["bitmap"]), f"day {day}"
        # What was too much is not learned.
        state[key] = max(state.get(key, 0), min(found, state["limit"]))
        return found > state["limit"]

    def _limit(self, day: int, since: int, state: State) -> int:
        for key in [key for key in state if key.startswith("day ") and int(key[4:]) < day - _DAYS]:
            del state[key]
        if day - since < _KNOWN_DAYS:
            return _FLOOR_OF_NEW
        highest = sorted(found for key, found in state.items() if key.startswith("day ") and int(key[4:]) < day)
        if not highest:
            return _FLOOR_OF_NEW
        return max(_FLOOR, _FACTOR * highest[-2 if len(highest) >= _KNOWN_DAYS else -1])
