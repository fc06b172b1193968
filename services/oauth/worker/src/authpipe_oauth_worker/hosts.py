"""The connections that are kept: each host has its own, so that one that is slow takes none of another's.

They are kept by name and never shared by two names at one address: each name's certificate is verified.
"""

from __future__ import annotations

import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from urllib.parse import urlsplit

import httpcore2

from authpipe_oauth_worker.connecting import Guarded, Resolve
from authpipe_oauth_worker.errors import EgressError
from authpipe_sensitive import Label

# Those of a host at rest for so long are closed.
_MOST_HOSTS, _REST_SECONDS = 1_000, 5.0
_POOL = 10


class Hosts:
    """The hosts that are asked, each with its connections.

    Args:
        context: What TLS they speak, and whom they believe.
        resolve: Gives the addresses of a name.
        allow_loopback: Whether addresses of this machine may be called.
    """

    def __init__(self, context: ssl.SSLContext, resolve: Resolve, *, allow_loopback: bool) -> None:
        self._context = context
        self._resolve = resolve
        self._allow_loopback = allow_loopback
        self._hosts: OrderedDict[tuple[str, frozenset[str], int], _Host] = OrderedDict()

    @asynccontextmanager
    async def connections(
        self, url: str, pins: frozenset[str], most: int
    ) -> AsyncIterator[httpcore2.AsyncConnectionPool]:
        """Gives connections to a host, for the time of a request.

        Args:
            url: Where to.
            pins: Public keys of which the host has to show one; none: any.
            most: How many there may be at once.

        Raises:
            EgressError: More hosts than there is room for are asked at this moment.
        """
        name = (urlsplit(url).netloc.lower(), pins, most)
        await self._close_rested()
        host = self._hosts.get(name)
        if host is None:
            if len(self._hosts) >= _MOST_HOSTS:
                raise EgressError(cause=Label("TOO_MANY_AT_ONCE"))
            host = self._hosts[name] = _Host(most, lambda size: self._pool(pins, size))
        self._hosts.move_to_end(name)
        part = host.part()
        part.users += 1
        try:
            if (rested := host.rested()) is not None:
                await rested.aclose()
            yield part.pool
        finally:
            part.users -= 1
            part.rests_since = host.rests_since = time.monotonic()

    async def close(self) -> None:
        """Closes all connections."""
        for host in self._hosts.values():
            await host.close()

    async def _close_rested(self) -> None:
        """Closes the connections of two hosts at most that nobody has asked for a while: it is looked with every request."""
        for name in tuple(islice(self._hosts, 2)):
            # While the one before was being closed, another request may have closed this one.
            host = self._hosts.get(name)
            if host is None:
                continue
            if host.users:
                self._hosts.move_to_end(name)
            elif time.monotonic() - host.rests_since > _REST_SECONDS:
                del self._hosts[name]
                await host.close()

    def _pool(self, pins: frozenset[str], size: int) -> httpcore2.AsyncConnectionPool:
        return httpcore2.AsyncConnectionPool(
            ssl_context=self._context,
            max_connections=size,
            # A handshake costs as much as four requests: what a burst of refreshes has opened is kept for the next one.
            max_keepalive_connections=size,
            keepalive_expiry=_REST_SECONDS,
            network_backend=Guarded(self._resolve, pins, allow_loopback=self._allow_loopback),
        )


@dataclass
class _Part:
    """Some of the connections of a host: how many at most, how many requests use them, and since when none does."""

    pool: httpcore2.AsyncConnectionPool
    size: int
    users: int = 0
    rests_since: float = 0.0


class _Host:
    """The connections of a host, in small pools: with every request a pool asks the kernel about each that rests in it.

    Args:
        most: How many connections at most.
        make: Makes a pool of so many.
    """

    def __init__(self, most: int, make: Callable[[int], httpcore2.AsyncConnectionPool]) -> None:
        self._room = most
        self._make = make
        self._parts: list[_Part] = []
        self.rests_since = 0.0

    @property
    def users(self) -> int:
        """How many requests use them."""
        return sum(part.users for part in self._parts)

    def part(self) -> _Part:
        """Gives the first pool with one to spare, so that those behind it come to rest; else the one with the fewest users."""
        part = next((part for part in self._parts if part.users < _POOL), None)
        if part is None and self._room:
            size = min(_POOL, self._room)
            self._room -= size
            part = _Part(self._make(size), size)
            self._parts.append(part)
        return part or min(self._parts, key=lambda part: part.users)

    def rested(self) -> httpcore2.AsyncConnectionPool | None:
        """Takes out the last pool, if a burst has left it at rest: a pool that nobody asks closes nothing itself."""
        last = self._parts[-1]
        if last.users or time.monotonic() - last.rests_since <= _REST_SECONDS:
            return None
        self._room += last.size
        return self._parts.pop().pool

    async def close(self) -> None:
        """Closes them."""
        for part in self._parts:
            await part.pool.aclose()
