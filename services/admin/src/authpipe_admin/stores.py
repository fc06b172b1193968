"""`authpipe-admin verify-store`: what a store has, compared with what the log says it has.

Whoever can write to a store's database can put an older record back, or add or delete one. He cannot make it the one that
the log's leaf commits to. Two passes, in constant memory: over what the store has, and over what the log says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol

from authpipe_transparency import FormatError, Record, commitment

PAGE = 1000
# An event is in the log a moment after its record is in the store: what differs is looked at again before it is named.
_TRIES, _PAUSE_SECONDS = 6, 1.0
# Code verifiers and answers that are not judged yet end within what uses them up, without an event of their own.
_TRANSIENT = frozenset({7, 8})


class Name(NamedTuple):
    """A record: the tenant, the connection or provider configuration, the class by its number."""

    workspace: str
    connection: str
    record_class: int


class Kept(NamedTuple):
    """A record as the store has it: its version, and SHA-256 of all of it in hexadecimal."""

    version: int
    digest: str


class Logged(NamedTuple):
    """A write as the log has it; `is_sound`: its body is the one that its leaf commits to."""

    version: int
    digest: str
    leaf: int
    is_sound: bool


class Difference(NamedTuple):
    """What is not as the log says."""

    name: Name
    what: str


class Store(Protocol):
    """vault or clientsecrets."""

    async def digests(self, names: Sequence[Name], after: Name | None) -> dict[Name, Kept]:
        """Gives what the store has of these; of none: the next page of all, in its order."""


class Log(Protocol):
    """audit, of one trail."""

    async def writes(self, names: Sequence[Name], after: Name | None) -> dict[Name, Logged]:
        """Gives what the log has of these and no deletion followed; of none: the next page of all, in its order."""


def logged_of(record: bytes, salt: bytes, entry: bytes, leaf: int) -> Logged:
    """Reads a write, and looks whether its leaf commits to it."""
    try:
        read = Record(record)
    except FormatError:
        return Logged(0, "", leaf, False)
    is_sound = commitment(salt, record) == entry
    return Logged(int(read.get("version", 0)), read.get("digest", ""), leaf, is_sound)


async def compare(store: Store, log: Log, progress: Callable[[int], None]) -> AsyncIterator[Difference]:
    """Compares a store with the log; gives what differs.

    Args:
        store: The store.
        log: Its trail.
        progress: Is told how many records were compared since it was told last.
    """
    seen: Name | None = None
    while page := await store.digests((), seen):
        seen = list(page)[-1]
        async for difference in _differences(store, log, list(page)):
            yield difference
        progress(len(page))
    seen = None
    while written := await log.writes((), seen):
        seen = list(written)[-1]
        # Deletions stand there too, without a class: they are nothing that a store has.
        named = [name for name in written if name.record_class and name.record_class not in _TRANSIENT]
        there = await store.digests(named, None) if named else {}
        missing = [name for name in named if name not in there]
        async for difference in _differences(store, log, missing):
            yield difference


async def _differences(store: Store, log: Log, names: Sequence[Name]) -> AsyncIterator[Difference]:
    """Compares some records, again and again while they differ: they may be written meanwhile."""
    left = list(names)
    found: dict[Name, str] = {}
    for attempt in range(_TRIES):
        if not left:
            return
        if attempt:
            await asyncio.sleep(_PAUSE_SECONDS)
        # The store first: what is written meanwhile is newer in the log, and is looked at again.
        there, logged = await store.digests(left, None), await log.writes(left, None)
        found = {name: what for name in left if (what := _difference(there.get(name), logged.get(name)))}
        left = list(found)
    for name, what in found.items():
        yield Difference(name, what)


def _difference(kept: Kept | None, logged: Logged | None) -> str:
    """Says what differs; empty: nothing."""
    match kept, logged:
        case None, None:
            return ""
        case Kept(), None:
            return "is in the store and was never written, or was deleted, as the log says"
        case None, Logged():
            return f"was deleted behind our back: the log has version {logged.version} at leaf {logged.leaf}"
        case Kept(), Logged() if not logged.is_sound:
            return f"cannot be compared: the body of leaf {logged.leaf} is gone or not the one that was logged"
        case Kept(), Logged() if kept.version < logged.version:
            return (
                f"was rolled back to version {kept.version}: the log has version {logged.version} at leaf {logged.leaf}"
            )
        case Kept(), Logged() if kept.version > logged.version:
            return f"has version {kept.version}, which was never logged: the log has version {logged.version}"
        case Kept(), Logged() if kept.digest != logged.digest:
            return f"was changed: it is not the version {kept.version} that was logged at leaf {logged.leaf}"
        case _:
            return ""
