"""A customer's KMS, kept apart from all others: two threads, a short line, a limit of time, a circuit breaker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import OpenedState

from authpipe_keyservice.errors import CustomerKeyUnavailableError, CustomerKmsUnavailableError, KeyTamperedError
from authpipe_sensitive import DomainError, get_log

ResultT = TypeVar("ResultT")

_THREADS = 2
_LINE = 8
# After so many calls in a row that came to nothing, nobody calls for a while.
_FAILURES = 3
_OPEN_SECONDS = 5.0


class BlockingKms(Protocol):
    """A key in a KMS, by a library that blocks. It raises our errors, or whatever its library does."""

    def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps."""

    def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps."""

    def describe(self) -> str:
        """Names the key."""


class PooledKms:
    """A key in a KMS that never waits longer than its time.

    Args:
        key: The key.
        timeout_seconds: How long one call may take.
        threads: Where its calls are made; None: in two threads of its own.
    """

    def __init__(self, key: BlockingKms, timeout_seconds: float, threads: ThreadPoolExecutor | None = None) -> None:
        self._key = key
        self._timeout = timeout_seconds
        self._own = threads is None
        self._threads = threads or ThreadPoolExecutor(_THREADS, thread_name_prefix="kms")
        self._in_line = 0
        # A KMS that says no, or finds something changed, works.
        self._breakers = AsyncCircuitBreakerFactory(
            default_threshold=_FAILURES,
            default_ttl=_OPEN_SECONDS,
            exclude=[CustomerKeyUnavailableError, KeyTamperedError],
        )

    async def wrap(self, payload: bytes, context: Mapping[str, str]) -> bytes:
        """Wraps up to 96 bytes, bound to a context."""
        return await self._call(lambda: self._key.wrap(payload, context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """Unwraps what was wrapped with the same context."""
        return await self._call(lambda: self._key.unwrap(wrapped, context))

    async def describe(self) -> str:
        """Names the key as its owner knows it."""
        return await self._call(self._key.describe)

    async def close(self) -> None:
        """Lets go of its threads; what hangs in one ends with its own time limit."""
        if self._own:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, work: Callable[[], ResultT]) -> ResultT:
        try:
            async with await self._breakers.get_breaker("kms"):
                return await self._in_thread(work)
        except OpenedState:
            raise CustomerKmsUnavailableError from None

    async def _in_thread(self, work: Callable[[], ResultT]) -> ResultT:
        if self._in_line >= _LINE:
            raise CustomerKmsUnavailableError
        self._in_line += 1
        doing = asyncio.get_running_loop().run_in_executor(self._threads, work)
        doing.add_done_callback(self._out_of_line)
        try:
            return await asyncio.wait_for(asyncio.shield(doing), self._timeout)
        except DomainError:
            raise
        except TimeoutError:
            raise CustomerKmsUnavailableError from None
        except Exception as error:  # a library's own; what it means was said where it is known  # noqa: BLE001
            get_log().warning("customer's kms", error=error)
            raise CustomerKmsUnavailableError from None

    def _out_of_line(self, done: asyncio.Future[Any]) -> None:
        self._in_line -= 1
        if not done.cancelled():
            done.exception()  # seen; whoever waited has it
