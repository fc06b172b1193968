"""The proxy as its caller sees it: use of a credential that never comes here (promise P09).

The worker opens the credential and sends the request; what comes back is the Provider's answer. Where the Provider says 401,
the token is refreshed and the request sent once more, if its body is still there to send.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import NamedTuple, Protocol

from authpipe_gateway_edge.domain.ports import Act, Authority, Coordinator
from authpipe_gateway_edge.domain.words import Caller, ProxyRoute, Verdict, require_id
from authpipe_sensitive import DomainError, get_log

Headers = tuple[tuple[str, bytes], ...]
# A method that may be sent again when nobody knows whether it arrived (RFC 9110, section 9.2.1).
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_UNAUTHORIZED = 401
_KEY_CHANGED = "CONSUMER_KEY_CHANGED"
# Nothing was sent; or it was, and a safe method does no harm twice.
_NOT_SENT, _LOST = "PROVIDER_UNREACHABLE", "PROVIDER_ANSWER_LOST"
_ATTEMPTS = 3


class Asked(NamedTuple):
    """A request to a Provider's API.

    Args:
        connection: The connection whose credential it is sent with.
        method: The HTTP method.
        base_url: One of the API's base URLs; empty: the first.
        path: What follows it.
        query: Without the question mark.
        headers: The caller's own.
        content_length: Of the body; None: not known beforehand.
    """

    connection: str
    method: str
    base_url: str
    path: str
    query: str
    headers: Headers
    content_length: int | None


class Body(Protocol):
    """The body of a request, which may be read again as long as little of it was."""

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""

    def can_be_sent_again(self) -> bool:
        """Whether all that was read of it is still there."""

    def pieces(self) -> AsyncIterator[bytes]:
        """Gives it, from its beginning."""


class Answered(NamedTuple):
    """The head of a Provider's answer.

    Args:
        status: The HTTP status.
        headers: What is handed on of its headers.
        whole: The body, where it is short: nothing follows. None: it follows.
    """

    status: int
    headers: Headers
    whole: bytes | None = None


class Worker(Protocol):
    """The worker, in our own words."""

    async def thumbprint(self, *, anew: bool) -> str:
        """Gives the thumbprint of its HPKE key."""

    def proxy(
        self, route: ProxyRoute, verdict: Verdict, asked: Asked, body: Body, request_id: str, thumbprint: str
    ) -> AsyncIterator[Answered | bytes]:
        """Has a request carried; gives the head of the answer, then its body."""


class Proxying:
    """Has requests carried.

    Args:
        authority: May I?
        coordinator: Knows where a Provider's API is, and has tokens refreshed.
        worker: Carries them.
    """

    def __init__(self, authority: Authority, coordinator: Coordinator, worker: Worker) -> None:
        self._authority = authority
        self._coordinator = coordinator
        self._worker = worker

    async def carry(self, caller: Caller, asked: Asked, body: Body) -> AsyncIterator[Answered | bytes]:
        """Has a request carried; gives the head of the answer, then its body as it comes.

        Raises:
            DomainError: Refused, or not carried out; the reason says why.
        """
        refreshed = anew = False
        for attempt in range(1, _ATTEMPTS + 1):
            thumbprint = await self._worker.thumbprint(anew=anew)
            verdict = await self._authority.authorize(
                caller, Act.PROXY, require_id(asked.connection), worker_thumbprint=thumbprint
            )
            route = await self._coordinator.proxy_route(verdict, asked.connection, thumbprint)
            answer = self._worker.proxy(route, verdict, asked, body, caller.request_id, thumbprint)
            async with aclosing(answer):  # type: ignore[type-var]  # it is a generator
                try:
                    head = await anext(answer)
                except DomainError as error:
                    anew = error.reason == _KEY_CHANGED
                    if attempt == _ATTEMPTS or not body.can_be_sent_again() or not _again(error, asked):
                        raise
                    continue
                if not isinstance(head, Answered):
                    raise TypeError("The head comes first.")
                if head.status == _UNAUTHORIZED and not refreshed and body.can_be_sent_again():
                    refreshed = True
                    if await self._refresh(caller, asked.connection):
                        continue
                yield head
                async for piece in answer:
                    yield piece
                return

    async def _refresh(self, caller: Caller, connection: str) -> bool:
        """Has the token refreshed that a Provider did not take; True: there is another one."""
        try:
            verdict = await self._authority.authorize(caller, Act.PROXY_REFRESH, connection)
            await self._coordinator.ensure_fresh(verdict, connection, 0, force=True, request_id=caller.request_id)
        except DomainError as error:
            get_log().info("a provider refused a token, and there is no other one", error=error)
            return False
        return True


def _again(error: DomainError, asked: Asked) -> bool:
    if error.reason in {_KEY_CHANGED, "DEPENDENCY_UNAVAILABLE", "RECORD_SUPERSEDED"}:
        # The worker was restarted, or not there: nothing was sent in the first case; in the second nobody knows.
        return error.reason != "DEPENDENCY_UNAVAILABLE" or asked.method in SAFE
    return error.reason == _NOT_SENT or (error.reason == _LOST and asked.method in SAFE)
