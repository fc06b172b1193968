"""Telling: each sink, of everything, in order, at least once. One that fails holds up itself alone, and is tried again."""

from __future__ import annotations

from typing import Protocol

from authpipe_herald.domain.words import Notice
from authpipe_sensitive import DomainError, Label, get_log


class Audit(Protocol):
    """audit, in our own words."""

    async def pending(self, sink: str) -> list[Notice]:
        """Gives what a sink has not been told yet, the oldest first."""

    async def confirm(self, sink: str, notice: Notice) -> None:
        """Says that it has been told."""


class Sink(Protocol):
    """Where somebody listens."""

    @property
    def name(self) -> str:
        """Gives its name, as configured."""

    async def tell(self, notice: Notice) -> None:
        """Tells a notice.

        Raises:
            SinkError: It was not taken.
        """

    async def close(self) -> None:
        """Closes what it holds open."""


class Telling:
    """Tells sinks.

    Args:
        audit: Who knows what they have not been told.
    """

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def tell(self, sink: Sink) -> int:
        """Tells a sink what it has not been told; gives how much. What it does not take waits for the next time.

        Raises:
            DomainError: audit is away.
        """
        told = 0
        for notice in await self._audit.pending(sink.name):
            try:
                await sink.tell(notice)
            except DomainError as error:
                get_log().error("a sink was not told of an incident", sink=Label(sink.name), error=error)
                break
            await self._audit.confirm(sink.name, notice)
            told += 1
        return told
