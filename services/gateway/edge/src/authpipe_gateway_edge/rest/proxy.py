"""`ANY /v1/proxy/{connection}/…`: bare ASGI, so that bodies of any size pass through a piece at a time."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from authpipe_gateway_edge.domain.proxying import Answered, Asked, Proxying
from authpipe_gateway_edge.domain.words import Caller
from authpipe_gateway_edge.errors import MalformedRequestError
from authpipe_gateway_edge.rest.problems import new_request_id, problem_document
from authpipe_gateway_edge.rest.tokens import Send, bearer
from authpipe_rpc import IncidentError
from authpipe_sensitive import DomainError, Label, get_log

Receive = Callable[[], Awaitable[dict[str, Any]]]
PATH = re.compile(r"/v1/proxy/([^/]{1,80})(/.*)?", re.DOTALL)
_BASE_URL = b"authpipe-base-url"
# What is kept of a body, to be sent again after a 401.
_MOST_KEPT = 256 * 1024
_PIECE = 64 * 1024
# What a Provider answers is not ours, though it comes from our origin: no browser may run it or keep a cookie of it.
_OURS = [
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"authpipe-answered-by", b"provider"),
]
_REPLACED = {name for name, _ in _OURS} | {b"x-request-id"}


class ProxyRoute:
    """Carries requests to Providers' APIs.

    Args:
        proxying: The rules.
    """

    def __init__(self, proxying: Proxying) -> None:
        self._proxying = proxying

    async def __call__(self, scope: dict[str, Any], source: str, receive: Receive, send: Send) -> None:
        """Answers one request that came from an address."""
        request_id = new_request_id()
        begun = ended = False
        try:
            caller = Caller(bearer(scope["headers"]), request_id, source)
            asked = _asked(scope)
            answer = self._proxying.carry(caller, asked, _Body(receive, scope))
            async with aclosing(answer):  # type: ignore[type-var]  # it is a generator
                async for part in answer:
                    if isinstance(part, Answered):
                        begun = True
                        await send(_head(part, request_id))
                        if part.whole is not None:
                            ended = True
                            await send({"type": "http.response.body", "body": part.whole, "more_body": False})
                    else:
                        await send({"type": "http.response.body", "body": part, "more_body": True})
            if not ended:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except DomainError as error:
            if ended:
                return
            if begun:
                # Half an answer must not look like a whole one: the connection ends.
                raise
            await _refuse(send, error, request_id)
        except Exception as error:  # becomes a problem document with the request id, never its text  # handed on or shown with an incident id, never swallowed
            if begun and not ended:
                raise
            get_log().error("incident", error=error)
            if not begun:
                await _refuse(send, IncidentError(), request_id)


class _Body:
    """A body as it comes in; its beginning is kept, to be sent again."""

    def __init__(self, receive: Receive, scope: dict[str, Any]) -> None:
        self._receive = receive
        names = {name for name, _ in scope["headers"]}
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        self._ended = b"transfer-encoding" not in names and length == b"0"
        self._empty = self._ended
        self._kept: list[bytes] = []
        self._size = 0

    @property
    def is_empty(self) -> bool:
        return self._empty

    def can_be_sent_again(self) -> bool:
        return self._size <= _MOST_KEPT

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._kept:
            yield piece
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise MalformedRequestError(field=Label("body"))
            self._ended = not message.get("more_body")
            body = bytes(message.get("body", b""))
            for at in range(0, len(body), _PIECE):
                piece = body[at : at + _PIECE]
                self._size += len(piece)
                if self._size <= _MOST_KEPT:
                    self._kept.append(piece)
                else:
                    self._kept.clear()
                yield piece


def _asked(scope: dict[str, Any]) -> Asked:
    # As it was sent: nothing is decoded on the way.
    raw = bytes(scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
    found = PATH.fullmatch(raw.decode("latin-1"))
    if found is None:
        raise MalformedRequestError(field=Label("path"))
    headers = [(name.lower(), value) for name, value in scope["headers"]]
    base_url = next((value.decode("latin-1") for name, value in headers if name == _BASE_URL), "")
    length = next((value for name, value in headers if name == b"content-length"), b"")
    if length and not (length.isdigit() and len(length) < 16):
        raise MalformedRequestError(field=Label("content-length"))
    return Asked(
        connection=found[1],
        method=scope["method"],
        base_url=base_url,
        path=found[2] or "",
        query=scope["query_string"].decode("latin-1"),
        headers=tuple((name.decode("latin-1"), value) for name, value in headers if name != b"authorization"),
        content_length=int(length) if length else None,
    )


def _head(answered: Answered, request_id: str) -> dict[str, Any]:
    headers = [(name.encode(), value) for name, value in answered.headers if name.encode() not in _REPLACED]
    return {
        "type": "http.response.start",
        "status": answered.status,
        "headers": [*headers, *_OURS, (b"x-request-id", request_id.encode())],
    }


async def _refuse(send: Send, error: DomainError, request_id: str) -> None:
    status, document, retry_after = problem_document(error, request_id)
    headers = [(b"content-type", b"application/problem+json"), (b"x-request-id", request_id.encode())]
    headers += [(b"cache-control", b"no-store"), (b"authpipe-answered-by", b"authpipe")]
    if retry_after:
        headers.append((b"retry-after", str(retry_after).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": document})
