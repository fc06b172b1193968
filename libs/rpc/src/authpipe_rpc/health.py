"""Health as gRPC defines it (grpc.health.v1): SERVING, or NOT_SERVING with the reason in the log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio  # type: ignore[attr-defined]  # it is there; the package is untyped

from authpipe_sensitive import DomainError, Label, get_log


class Health:
    """What this process says of itself."""

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()
        self.serving = False
        self._refused: tuple[Label | int | str, ...] = ()

    async def serve(self) -> None:
        """Says that requests are welcome."""
        if not self.serving:
            self.serving = True
            get_log().info("serving")
        await self.servicer.set("", health_pb2.HealthCheckResponse.SERVING)

    async def refuse(self, error: DomainError) -> None:
        """Says that requests cannot be carried out, and why; each reason once."""
        reason = (error.reason, *error.metadata.values())
        if self.serving or reason != self._refused:
            get_log().error("not serving", error=error)
        self.serving = False
        self._refused = reason
        await self.servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)

    async def watch(self, stop: asyncio.Event, *checks: Callable[[], Awaitable[None]], seconds: float = 2.0) -> None:
        """Says what the checks say, again and again, until told to stop.

        Args:
            stop: Set when to stop.
            checks: Each raises a DomainError when requests cannot be carried out: a database, a device of our own. Not
                what other processes say: one that is away would take all others with it.
            seconds: How long between two looks.
        """
        while not stop.is_set():
            try:
                for check in checks:
                    await check()
                await self.serve()
            except DomainError as error:
                await self.refuse(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), seconds)
