"""What was looked up a moment ago, for plain reads: it is compared with what stands when their events are written.

Nothing is released on account of a memory: where anything differs, nothing is written, and all of it is looked up. What is
gained is a round trip to the database.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from authpipe_envelope import RecordClass
from authpipe_keyservice.domain.kek_versions import KeyVersionState
from authpipe_keyservice.domain.release import Direction, KeyFacts, Wanted


class KeyRow(NamedTuple):
    """A connection key as stored.

    Args:
        facts: What is known of it and of the record.
        version: The CK's version.
        dek_version: The DEK that wraps it.
        wrapped: The wrapped CK.
        dek_state: The state of that DEK.
        customers: Whether a customer's key wraps that DEK too.
    """

    facts: KeyFacts
    version: int
    dek_version: int
    wrapped: bytes
    dek_state: KeyVersionState = KeyVersionState.PRIMARY
    customers: bool = False


class Remembered:
    """Rows as they were looked up last.

    Args:
        clock: Gives seconds.
        keep_seconds: For how long.
        size: How many at most.
    """

    def __init__(self, clock: Callable[[], float], keep_seconds: float, size: int = 20_000) -> None:
        self._clock = clock
        self._keep = keep_seconds
        self._size = size
        self._rows: OrderedDict[tuple[str, str, RecordClass], tuple[float, KeyRow]] = OrderedDict()

    def rows(self, wanted: Sequence[Wanted]) -> list[KeyRow] | None:
        """Gives the row of each; None: of one of them none is known, or it is no read."""
        now = self._clock()
        found = []
        for each in wanted:
            kept = self._rows.get(_name(each))
            if kept is None or now >= kept[0] or each.direction is not Direction.READ:
                return None
            found.append(kept[1])
        return found

    def put(self, wanted: Sequence[Wanted], rows: Sequence[KeyRow | None]) -> None:
        """Remembers what was looked up. Where a customer's KMS has a say nothing is: it is asked again and again."""
        until = self._clock() + self._keep
        for each, row in zip(wanted, rows, strict=True):
            name = _name(each)
            if row is None or row.customers:
                self._rows.pop(name, None)
                continue
            self._rows[name] = (until, row)
            self._rows.move_to_end(name)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)


def _name(wanted: Wanted) -> tuple[str, str, RecordClass]:
    return wanted.workspace, wanted.connection, wanted.record_class
